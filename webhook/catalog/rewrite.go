package catalog

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Rewrite leads images whose name begins with From to the same path below To. Both are a registry, or a registry and
// path segments: "docker.io/codercom".
type Rewrite struct {
	From, To string
}

// newRewrites puts the longest beginning first.
func newRewrites(rewrites []Rewrite) []Rewrite {
	sorted := slices.Clone(rewrites)
	for i := range sorted {
		host, path, _ := strings.Cut(sorted[i].From, "/")
		sorted[i].From = strings.TrimSuffix(canonicalHost(host)+"/"+path, "/")
	}
	slices.SortStableFunc(sorted, func(a, b Rewrite) int { return cmp.Compare(len(b.From), len(a.From)) })
	return sorted
}

// Rewrite implements webhook.Rewriter.
func (c *Catalogue) Rewrite(ref webhook.Reference) webhook.Reference {
	name := ref.Name()
	for _, r := range c.rewrites {
		rest, found := strings.CutPrefix(name, r.From)
		if !found || rest != "" && rest[0] != '/' {
			continue
		}
		to, err := webhook.ParseReference(r.To + rest)
		if err != nil {
			return ref // a name that became too long: it is judged as it stands
		}
		to.Tag, to.Digest = ref.Tag, ref.Digest
		return to
	}
	return ref
}

// sources are the names that a rewrite leads to a name: what an image of a mirror is a copy of, and was signed as.
func (c *Catalogue) sources(name string) []string {
	var names []string
	for _, r := range c.rewrites {
		rest, found := strings.CutPrefix(name, r.To)
		if !found || rest != "" && rest[0] != '/' {
			continue
		}
		if from, err := webhook.ParseReference(r.From + rest); err == nil {
			names = append(names, from.Name())
		}
	}
	return names
}
