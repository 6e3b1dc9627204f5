package webhook

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
)

// Outcome is what became of a request, as metrics and log count it.
type Outcome string

// The outcomes of a decision.
const (
	Allowed   Outcome = "allowed"
	Patched   Outcome = "patched"
	Denied    Outcome = "denied"
	Undecided Outcome = "undecided" // refused because something could not be found out; trying again may help
	Failed    Outcome = "error"     // refused because of a fault in Hallmark or its policies
)

// A Decision answers a request.
type Decision struct {
	ID        string
	Name      string // of the object, or what the API server will make one of
	Outcome   Outcome
	Code      int       // HTTP status for a refusal, else 0
	Message   string    // for the developer, at most 800 bytes; "" when allowed
	Patch     []byte    // JSON Patch (RFC 6902), nil for none
	Warnings  []string  // at most 256 characters each
	Findings  []Finding // all, in every mode, sorted
	Images    []*Image  // those that were judged
	Workspace Workspace // that the object belongs to, as far as it was recognised
	Exempted  []string  // exemptions that were used, sorted
	Err       error     // the cause of Failed, for the log
}

// Allow says whether the object may be stored.
func (d Decision) Allow() bool { return d.Outcome == Allowed || d.Outcome == Patched }

// rulePinned is the one rule that the flow knows by name. An image that the pinning half left alone is read all the
// same, so that the developer learns why. When that fails, the failure is the finding; and when another rule denies the
// image anyway, that is why it was left alone.
const rulePinned = "pinned"

func (v *review) allow() Decision {
	return Decision{ID: v.request.ID(), Name: v.objectName(), Outcome: Allowed}
}

// malformed denies an object that cannot be read, with the place.
func (v *review) malformed(err error) Decision {
	m := message{review: v}
	return Decision{
		ID: v.request.ID(), Name: v.objectName(), Outcome: Denied, Code: http.StatusForbidden,
		Message: m.plainText(v.request.Kind + " is malformed: " + err.Error()),
	}
}

// failed refuses because rules could not be judged at all.
func (v *review) failed(err error) Decision {
	m := message{review: v}
	if v.glass {
		d := v.allow()
		d.Images, d.Err, d.Exempted = v.changed, err, []string{breakGlassName}
		d.Warnings = v.exemptionWarnings(d.Exempted)
		return d
	}
	return Decision{
		ID: v.request.ID(), Name: v.objectName(), Outcome: Failed, Code: http.StatusInternalServerError, Err: err, Images: v.changed,
		Message: m.plainText("The policy could not be evaluated, so nothing is allowed; ask your cluster admin to look " +
			"up the decision below in the log of Hallmark."),
	}
}

// decide turns findings into an answer. Allowed means: no finding in enforce, and nothing unknown that a rule in
// enforce needed.
func (v *review) decide(early, late []Finding) Decision {
	d := v.allow()
	d.Findings, d.Images = sortFindings(v.reconcile(early, late), v.changed), v.changed
	d.Workspace = v.workspace
	d.Exempted = v.exemptions()
	d.Warnings = v.exemptionWarnings(d.Exempted)
	for _, f := range inMode(d.Findings, Warn) {
		if len(d.Warnings) < maxWarnings {
			d.Warnings = append(d.Warnings, warning(f))
		}
	}
	enforced := inMode(d.Findings, Enforce)
	if len(enforced) == 0 {
		return d
	}
	d.Outcome, d.Code = Denied, http.StatusForbidden
	if !slices.ContainsFunc(enforced, func(f Finding) bool { return !f.Undecided || !f.Retry }) {
		d.Outcome, d.Code = Undecided, http.StatusServiceUnavailable
	}
	m := message{review: v, findings: enforced}
	d.Message = m.text()
	return d
}

// reconcile joins what rules found with what could not be found out, so that each thing is said once and by the one that
// knows. It never leaves less in a stricter mode than it was given.
func (v *review) reconcile(early, late []Finding) []Finding {
	late = slices.DeleteFunc(late, func(f Finding) bool {
		if f.Image == nil {
			return false
		}
		_, unknown := f.Image.unknown(v.ruleNeeds(f.Rule, f.Image))
		return unknown // what a rule says of a fact that could not be read means nothing; undecided says it instead
	})
	undecided := v.undecided()
	early = slices.DeleteFunc(early, func(f Finding) bool {
		if f.Rule != rulePinned || f.Image == nil {
			return false
		}
		return f.Image.denied || slices.ContainsFunc(undecided, func(u Finding) bool {
			return u.Image == f.Image && !f.Mode.Stricter(u.Mode)
		})
	})
	undecided = slices.DeleteFunc(undecided, func(u Finding) bool {
		return u.refused && slices.ContainsFunc(early, func(f Finding) bool {
			return f.Image == u.Image && !u.Mode.Stricter(f.Mode) // a rule says already what is wrong with the image
		})
	})
	return slices.Concat(early, late, undecided)
}

// undecided makes a finding of every fact that could not be read and that a rule needed, for the rule that is strictest
// about it.
func (v *review) undecided() []Finding {
	var findings []Finding
	for _, image := range v.changed {
		for _, unknown := range image.Unknown {
			f := Finding{
				Image: image, Mode: Off, Undecided: true, Retry: unknown.Retry, Missing: unknown.Missing,
				refused: unknown.Refused, Message: unknown.Reason,
			}
			for _, rule := range v.Rules {
				if v.ruleNeeds(rule.Name, image)&unknown.Fact == 0 || exemption(image, rule.Name) != "" {
					continue
				}
				if mode := v.mode(rule.Name); mode.Stricter(f.Mode) {
					f.Rule, f.Mode = rule.Name, mode
				}
			}
			if f.Mode != Off {
				findings = append(findings, f)
			}
		}
	}
	return findings
}

// ruleNeeds gives the facts that a rule needs of an image.
func (v *review) ruleNeeds(name string, image *Image) Fact {
	if name == rulePinned && v.unpinned(image) {
		return FactImage
	}
	i, found := slices.BinarySearchFunc(v.Rules, name, func(r Rule, name string) int { return cmp.Compare(r.Name, name) })
	if !found || v.Rules[i].Off {
		return 0
	}
	return v.Rules[i].Needs
}

func inMode(findings []Finding, mode Mode) []Finding {
	var kept []Finding
	for _, f := range findings {
		if f.Mode == mode {
			kept = append(kept, f)
		}
	}
	return kept
}

// Limits of admission warnings (k8s.io/api/admission/v1, AdmissionResponse.Warnings): 256 characters each and 4,096 in
// all before the API server begins to drop some.
const (
	maxWarning  = 256
	maxWarnings = 15
)

// warning puts a finding into one line.
func warning(f Finding) string {
	text := "hallmark: " + f.line()
	if f.Fix != "" && !strings.Contains(text, f.Fix) {
		text += "; " + f.Fix
	}
	return cut(plain(text), maxWarning)
}
