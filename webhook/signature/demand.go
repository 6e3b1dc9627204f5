package signature

import (
	"errors"
	"fmt"
)

// demand settles what is wanted of a signer's signatures besides themselves, and refuses what cannot be had.
func (s *signer) demand(c Signer) error {
	keyless, rooted := c.Keyless != nil, c.TrustedRoot != ""
	orElse := func(d, standard Demand) Demand {
		if d == "" {
			return standard
		}
		return d
	}
	standard := Ignored
	if rooted {
		standard = Optional
	}
	s.timestamp, s.sct = orElse(c.Timestamp, standard), orElse(c.SCT, Required)
	s.log = orElse(c.Log, standard)
	if keyless {
		s.log = orElse(c.Log, Required)
	}
	var problems []error
	for what, demand := range map[string]Demand{"transparency log": s.log, "timestamp": s.timestamp, "SCT": s.sct} {
		switch demand {
		case Required, Optional, Ignored:
		default:
			problems = append(problems, fmt.Errorf("%s: want required, optional or ignored, not %q", what, demand))
		}
	}
	switch {
	case keyless && !rooted:
		problems = append(problems, errors.New("an identity needs a trusted root, which says whose certificates to believe"))
	case !rooted && (s.log != Ignored || s.timestamp != Ignored):
		problems = append(problems, errors.New("a log or a timestamp can be checked only against a trusted root"))
	case keyless && s.log == Ignored && s.timestamp == Ignored:
		problems = append(problems, errors.New("an identity's certificate lives for minutes, so a log or a timestamp has to "+
			"prove when it signed; do not ignore both"))
	case s.sct == Optional:
		problems = append(problems, errors.New("SCT: want required or ignored"))
	case keyless && (!c.NotBefore.IsZero() || !c.NotAfter.IsZero()):
		problems = append(problems, errors.New("the time in which it is valid is for keys; an identity's certificates have their own"))
	case !c.NotAfter.IsZero() && !c.NotAfter.After(c.NotBefore):
		problems = append(problems, errors.New("it ends to be valid before it begins"))
	}
	return errors.Join(problems...)
}
