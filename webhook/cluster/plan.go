package cluster

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"
)

// Lifetimes of what the controller issues. The other times follow from them.
type Lifetimes struct {
	CA      time.Duration // a year: its rotation costs nothing, and proves itself before anybody has forgotten it
	Serving time.Duration // 90 days: its key is in every replica, and a backup or node image that keeps it grows old soon
}

// settle is how long every caBundle holds an authority before it issues. An API server hears of a change by its watch within
// milliseconds; one whose watch is dead notices after 45 s (client-go's ping of HTTP/2: 30 s idle, 15 s without answer).
func (l Lifetimes) settle() time.Duration { return min(2*time.Minute, l.Serving/10) }

// retain is how long a replaced authority stays in the caBundles. A mount is refreshed within two minutes (kubelet: one of
// syncing, one of its cache); a node that was cut off does it when it is back, and after a day its pods are long replaced.
func (l Lifetimes) retain() time.Duration { return min(24*time.Hour, l.Serving/3) }

// due is when a certificate is replaced: after two thirds of its life, so that a third is left for trying.
func due(cert *x509.Certificate) time.Time {
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 3 * 2)
}

// maxAuthorities bounds what is taken over from caBundles that somebody else has filled.
const maxAuthorities = 8

// A state is what was read from the cluster. What does not exist, or cannot be understood, is nil.
type state struct {
	authorities    []authority // the newest last
	serving        *serving
	configurations []configuration
	disowned       bool // one of the Secrets does not name the Deployment as its owner
}

// A configuration is one of the two webhook configurations.
type configuration struct {
	kind      kind
	version   string
	activated bool // has been active once
	entries   []entry
}

type entry struct {
	name    string
	address string // host and port at which an API server calls it
	bundle  []byte
	rules   []rule
}

// A task is what a step does.
type task int

const (
	nothing task = iota
	storeAuthorities
	publish // the bundle, in one configuration
	issueServing
	ownSecrets // writes the Secrets as they are, with their owner
)

// A step is the next write.
type step struct {
	task        task
	authorities []authority // to store, or to issue by the last of them
	mint        bool        // a new authority follows them
	target      int         // index of the configuration
	bundle      []byte      // PEM
	because     string
}

// next gives the first write that brings the certificates nearer to what they should be, and when to look again if nothing
// happens before.
func (l Lifetimes) next(now time.Time, s state, names []string) (step, time.Time) {
	keep, fresh, because := l.keep(now, s)
	if fresh || !slices.EqualFunc(keep, s.authorities, sameAuthority) {
		return step{task: storeAuthorities, authorities: keep, mint: fresh, because: because}, now
	}
	bundle := l.bundle(now, keep)
	for i, c := range s.configurations {
		if slices.ContainsFunc(c.entries, func(e entry) bool { return !bytes.Equal(e.bundle, bundle) }) {
			return step{task: publish, target: i, bundle: bundle, because: "the caBundle is not the one of the authorities"}, now
		}
	}
	issuer, ready := l.issuer(now, s)
	if issuer >= 0 {
		if because := s.serving.unfit(now, keep[issuer], names); because != "" {
			return step{task: issueServing, authorities: keep[:issuer+1], bundle: bundle, because: because}, now
		}
	}
	if s.serving != nil && !bytes.Equal(s.serving.root, bundle) {
		return step{task: issueServing, bundle: bundle, because: "ca.crt is not the caBundle"}, now
	}
	if s.disowned {
		return step{task: ownSecrets, authorities: keep, bundle: bundle, because: "the Secrets do not name their owner"}, now
	}
	return step{}, l.wake(now, s, ready)
}

// keep gives the authorities as they should be stored, and whether a new one is wanted.
func (l Lifetimes) keep(now time.Time, s state) (list []authority, fresh bool, because string) {
	list = append(l.unknown(now, s), s.authorities...)
	if len(list) > len(s.authorities) {
		because = "caBundles hold an authority that is not stored"
	}
	serves := s.issuedBy(list)
	for i := range list {
		a := &list[i]
		a.published, a.retired = earlier(a.published, now), earlier(a.retired, now)
		everywhere := s.everywhere(a.cert)
		switch {
		case i == serves:
			a.retired = time.Time{}
		case i < serves:
			a.key = nil // nothing will be issued by it again
			if a.retired.IsZero() {
				a.retired = now
			}
		}
		if a.published.IsZero() && everywhere {
			a.published = now
		} else if i > serves && !everywhere {
			a.published = time.Time{} // an API server may have heard that it is gone
		}
	}
	// What is no longer wanted goes when the last caBundle has lost it, so that an authority of a caBundle is always a stored one.
	list = slices.DeleteFunc(list, func(a authority) bool { return !l.trusted(now, a) && !s.anywhere(a.cert) })
	newest := slices.IndexFunc(list, func(a authority) bool { return a.usable(now) && now.Before(due(a.cert)) })
	if newest < 0 {
		return list, true, "no authority is young enough"
	}
	if because == "" {
		because = "an authority has moved on"
	}
	return list, false, because
}

// unknown gives authorities that some caBundle holds and the Secret does not: the Secret was deleted, spoilt, or put back from
// a backup. Replicas may serve what they issued, so they are retired and not dropped.
func (l Lifetimes) unknown(now time.Time, s state) []authority {
	var bundles [][]byte
	for _, c := range s.configurations {
		for _, e := range c.entries {
			bundles = append(bundles, e.bundle)
		}
	}
	if s.serving != nil {
		bundles = append(bundles, s.serving.root)
	}
	var list []authority
	for _, bundle := range bundles {
		for _, cert := range parseBundle(bundle) {
			known := func(a authority) bool { return a.cert.Equal(cert) }
			if !cert.IsCA || now.After(cert.NotAfter) || slices.ContainsFunc(s.authorities, known) || slices.ContainsFunc(list, known) {
				continue
			}
			if len(list)+len(s.authorities) < maxAuthorities {
				list = append(list, authority{cert: cert, published: now, retired: now})
			}
		}
	}
	return list
}

// issuedBy is the index of the authority that issued the serving certificate, -1 for none of them.
func (s state) issuedBy(list []authority) int {
	if s.serving == nil {
		return -1
	}
	return slices.IndexFunc(list, func(a authority) bool { return a.signed(s.serving.leaf) })
}

// everywhere says whether every caBundle holds an authority, anywhere whether any does.
func (s state) everywhere(cert *x509.Certificate) bool {
	for _, c := range s.configurations {
		for _, e := range c.entries {
			if !holds(parseBundle(e.bundle), cert) {
				return false
			}
		}
	}
	return true
}

func (s state) anywhere(cert *x509.Certificate) bool {
	for _, c := range s.configurations {
		for _, e := range c.entries {
			if holds(parseBundle(e.bundle), cert) {
				return true
			}
		}
	}
	return s.serving != nil && holds(parseBundle(s.serving.root), cert)
}

// active says whether any API server calls the webhook.
func (s state) active() bool {
	return slices.ContainsFunc(s.configurations, func(c configuration) bool {
		return slices.ContainsFunc(c.entries, func(e entry) bool { return len(e.rules) > 0 })
	})
}

// trusted says whether an authority belongs into the caBundles.
func (l Lifetimes) trusted(now time.Time, a authority) bool {
	return now.Before(a.cert.NotAfter) && (a.retired.IsZero() || now.Before(a.retired.Add(l.retain())))
}

// usable says whether a certificate of the authority would be accepted.
func (a authority) usable(now time.Time) bool {
	return a.key != nil && !now.Before(a.cert.NotBefore) && now.Before(a.cert.NotAfter)
}

func (l Lifetimes) bundle(now time.Time, list []authority) []byte {
	var bundle []byte
	for _, a := range list {
		if l.trusted(now, a) {
			bundle = append(bundle, encodeCert(a.cert.Raw)...)
		}
	}
	return bundle
}

// issuer is the index of the newest authority that may issue, -1 for none yet; ready is when the newest of all may. It waits
// for nobody while nobody calls the webhook, or what is served has expired and is refused anyway.
func (l Lifetimes) issuer(now time.Time, s state) (index int, ready time.Time) {
	index = -1
	waits := s.active() && (s.serving == nil || now.Before(s.serving.leaf.NotAfter))
	for i, a := range s.authorities {
		if a.key == nil || a.published.IsZero() {
			continue
		}
		ready = a.published
		if waits {
			ready = ready.Add(l.settle())
		}
		if a.usable(now) && !now.Before(ready) {
			index = i
		}
	}
	return index, ready
}

// unfit says why a serving certificate has to be replaced by one of the issuer, "" for it need not.
func (c *serving) unfit(now time.Time, issuer authority, names []string) string {
	switch {
	case c == nil:
		return "there is no serving certificate, or none that can be read"
	case !issuer.signed(c.leaf):
		return "the serving certificate is of another authority"
	case slices.ContainsFunc(names, func(name string) bool { return c.leaf.VerifyHostname(name) != nil }):
		return "the serving certificate is for other names"
	case now.Before(c.leaf.NotBefore):
		return "the serving certificate is not valid yet"
	case !now.Before(due(c.leaf)):
		return "the serving certificate has used two thirds of its life"
	}
	return ""
}

// wake is the next time at which something is to be done without anybody's doing.
func (l Lifetimes) wake(now time.Time, s state, ready time.Time) time.Time {
	var times []time.Time
	if s.serving != nil {
		times = append(times, due(s.serving.leaf))
	}
	for _, a := range s.authorities {
		times = append(times, a.cert.NotAfter)
		if a.key != nil {
			times = append(times, due(a.cert))
		}
		if !a.retired.IsZero() {
			times = append(times, a.retired.Add(l.retain()))
		}
	}
	times = slices.DeleteFunc(append(times, ready), func(t time.Time) bool { return !t.After(now) })
	if len(times) == 0 {
		return now.Add(l.Serving)
	}
	return slices.MinFunc(times, time.Time.Compare)
}

// earlier takes a time of the future, which a clock that was wrong has left behind, for now.
func earlier(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

func sameAuthority(a, b authority) bool {
	return a.cert.Equal(b.cert) && (a.key == nil) == (b.key == nil) && a.published.Equal(b.published) && a.retired.Equal(b.retired)
}
