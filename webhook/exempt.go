package webhook

import (
	"fmt"
	"slices"
	"time"
)

// Exemption takes rules away from an image.
type Exemption struct {
	Name  string
	Rules []string
	Owner string
	Ends  time.Time
}

// breakGlassName is what is recorded as the exemption of a request that breaks the glass.
const breakGlassName = "break-glass"

// endingSoon is how long before its end an exemption is warned of.
const endingSoon = 14 * 24 * time.Hour

// breaksGlass says whether the request comes from somebody who may have everything admitted in an emergency. Nothing but
// the user's groups counts, which the API server vouches for.
func (r *Reviewer) breaksGlass(request *Request) bool {
	return slices.ContainsFunc(r.BreakGlass, func(group string) bool { return slices.Contains(request.User.Groups, group) })
}

// exemption is the name of the exemption that takes the rule away from the image: the narrowest, which the catalogue puts
// first.
func exemption(image *Image, rule string) string {
	if image == nil {
		return ""
	}
	for _, e := range image.Entry.Exemptions {
		if slices.Contains(e.Rules, rule) {
			return e.Name
		}
	}
	return ""
}

// lapsed words that an exemption would have taken the rule away, had it not ended.
func lapsed(image *Image, rule string) string {
	if image == nil {
		return ""
	}
	for _, e := range image.Entry.Lapsed {
		if slices.Contains(e.Rules, rule) {
			return fmt.Sprintf(" (exemption %s ended on %s)", e.Name, lastDay(e.Ends))
		}
	}
	return ""
}

// lastDay is the day before an end that is the first moment of a day.
func lastDay(end time.Time) string { return end.Add(-time.Second).UTC().Format(time.DateOnly) }

// exemptions names what was used for the request: what takes rules away that would be judged for its images.
func (v *review) exemptions() []string {
	var names []string
	if v.glass {
		names = append(names, breakGlassName)
	}
	for _, image := range v.changed {
		for _, rule := range v.Rules {
			name := exemption(image, rule.Name)
			if name != "" && !rule.Off && v.mode(rule.Name) != Off && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// exemptionWarnings tell the developer what admits a workspace today and will not for ever.
func (v *review) exemptionWarnings(used []string) []string {
	var warnings []string
	if v.glass {
		warnings = append(warnings, "hallmark: admitted by break-glass, whatever the rules say; it is recorded")
	}
	for _, image := range v.changed {
		for _, e := range image.Entry.Exemptions {
			if slices.Contains(used, e.Name) && e.Ends.Sub(v.Now()) < endingSoon {
				text := fmt.Sprintf("hallmark: %s: exemption %s ends on %s; its owner is %s", image.Label(), e.Name, lastDay(e.Ends), e.Owner)
				warnings = append(warnings, cut(plain(text), maxWarning))
			}
		}
	}
	return slices.Compact(warnings)
}
