package webhook

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Mode says what a finding of a rule does.
type Mode string

// The modes, strictest first.
const (
	Enforce Mode = "enforce" // denies
	Warn    Mode = "warn"    // allows, with a warning to whoever sent the request
	Audit   Mode = "audit"   // allows; only audit record, log and metric know
	Off     Mode = "off"     // the rule is not judged
)

// Stricter says that m forbids more than n.
func (m Mode) Stricter(n Mode) bool { return m.rank() < n.rank() }

func (m Mode) rank() int {
	switch m {
	case Enforce:
		return 0
	case Warn:
		return 1
	case Audit:
		return 2
	}
	return 3
}

// A Moder says in which mode a rule is judged for a namespace.
type Moder interface {
	Mode(rule, namespace string) Mode
}

// ModerFunc is a function as a Moder.
type ModerFunc func(rule, namespace string) Mode

// Mode calls f.
func (f ModerFunc) Mode(rule, namespace string) Mode { return f(rule, namespace) }

// A Rule is what the flow has to know of a policy rule.
type Rule struct {
	Name     string
	Needs    Fact     // fetched facts that it mentions
	Attested []string // predicate types of attestations that it names; those of the configuration apply besides
	Off      bool     // it is not judged in any namespace
	Early    bool     // an absent fact never makes it find anything, so that it can be judged before facts are fetched too
}

// A Finding is one thing that a rule has against an image.
type Finding struct {
	Rule    string
	Image   *Image // nil when it concerns the whole object
	Message string // why, for a developer, without place and rule
	Fix     string // what to do, "" when not known
	Mode    Mode
	Warning bool // from the warn set of a rule: it never denies

	Undecided bool   // the rule could not be judged
	Retry     bool   // … and trying again may help
	Missing   bool   // … because the image does not exist
	refused   bool   // … because the registry may not be contacted
	Exemption string // the exemption that took the finding away, "" for none
}

// Phase tells a Judge which rules to judge.
type Phase int

const (
	EarlyPhase Phase = iota // rules that need nothing fetched, and early ones
	LatePhase               // rules that mention a fetched fact
)

// Input is what rules judge: the request and those of its images that are in question.
type Input struct {
	Request   *Request
	Workspace Workspace
	Images    []*Image
	Time      time.Time // of the decision
}

// A Judge judges the rules of one phase. What a rule cannot judge (undefined, wrong type, run-time error) is a finding
// with Undecided set, never nothing. The error is that of ctx, or of the judge itself; it is never an admission.
type Judge interface {
	Judge(ctx context.Context, phase Phase, input *Input) ([]Finding, error)
}

// JudgeFunc is a function as a Judge.
type JudgeFunc func(ctx context.Context, phase Phase, input *Input) ([]Finding, error)

// Judge calls f.
func (f JudgeFunc) Judge(ctx context.Context, phase Phase, input *Input) ([]Finding, error) {
	return f(ctx, phase, input)
}

// sortFindings orders by place in the pod, then rule, then text, and removes what is said twice: the same pod always
// gets the same message.
func sortFindings(findings []Finding, images []*Image) []Finding {
	place := make(map[*Image]int, len(images))
	for i, image := range images {
		place[image] = i + 1 // findings on the whole object come first
	}
	slices.SortFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(place[a.Image], place[b.Image]), cmp.Compare(a.Rule, b.Rule),
			cmp.Compare(a.Message, b.Message))
	})
	return slices.CompactFunc(findings, func(a, b Finding) bool {
		return a.Image == b.Image && a.Rule == b.Rule && a.Message == b.Message
	})
}
