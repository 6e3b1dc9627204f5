package catalog

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hallmark-admission/hallmark/webhook"
)

// maxGeneral is how many golden images for everything an organisation can keep patched and explain.
const maxGeneral = 3

// Lint says what is doubtful about the catalogue: it works, and is probably not what its author meant, or will not stay
// useful. Each line begins with the golden image that it is about.
func (c *Catalogue) Lint() []string {
	var doubts []string
	doubt := func(golden *Golden, format string, args ...any) {
		doubts = append(doubts, "golden image "+golden.Name+": "+fmt.Sprintf(format, args...))
	}
	var general []string
	for i, golden := range c.names {
		if golden.Owner == "" {
			doubt(golden, "it has no owner; nobody will be asked when it has to be patched")
		}
		if golden.Status != "decommissioned" && golden.Scope == "" && len(golden.Roles) == 0 {
			general = append(general, golden.Name)
		}
		c.lintTag(golden, doubt)
		c.lintSuccessor(golden, doubt)
		for _, other := range c.names[:i] {
			if path.Base(other.Repository) == path.Base(golden.Repository) {
				doubt(golden, "its repository ends like that of %s, which developers will mix up", other.Name)
			}
		}
	}
	if len(general) > maxGeneral {
		doubts = append(doubts, fmt.Sprintf("golden images: %d of them are for everything (%s); keep two or three, and give the others a scope or roles",
			len(general), strings.Join(general, ", ")))
	}
	return doubts
}

// lintTag holds the default tag against the rule that applies to it.
func (c *Catalogue) lintTag(golden *Golden, doubt func(*Golden, string, ...any)) {
	if golden.DefaultTag == "" {
		if golden.Status == "active" {
			doubt(golden, "it has no default tag, so a rejection cannot say what to use")
		}
		return
	}
	ref, err := webhook.ParseReference(golden.Repository + ":" + golden.DefaultTag)
	if err != nil {
		return // a mistake, which is reported elsewhere
	}
	class := c.classify(ref).Class
	rule := c.tagRule(ref.Name(), ref.Tag, class)
	switch {
	case rule == nil:
	case !rule.Class:
		doubt(golden, "its default tag %s is of class %s, which the rule for its tags refuses (it allows %s)",
			golden.DefaultTag, class, strings.Join(rule.Allow, ", "))
	case !rule.Match:
		doubt(golden, "its default tag %s does not match the pattern %s of the rule for its tags", golden.DefaultTag, rule.Pattern)
	}
	if r := c.registry(ref); !r.Host || !r.Repository {
		doubt(golden, "no entry of registries covers it, so it is refused everywhere")
	}
}

// lintSuccessor looks for successors that lead nowhere.
func (c *Catalogue) lintSuccessor(golden *Golden, doubt func(*Golden, string, ...any)) {
	if golden.Status == "active" || golden.Successor == "" {
		return
	}
	seen := []*Golden{golden}
	next := c.named(golden.Successor)
	for next != nil && next.Status != "active" {
		if slices.Contains(seen, next) {
			doubt(golden, "its successors lead in a circle")
			return
		}
		seen = append(seen, next)
		next = c.named(next.Successor)
	}
	if next == nil {
		doubt(golden, "its successors end at one that is not active, so a rejection cannot say what to use")
	}
}
