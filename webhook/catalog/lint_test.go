package catalog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
)

// TestLint: what is doubtful is said once, and a good catalogue gives nothing to say.
func TestLint(t *testing.T) {
	good := func(name string) Golden {
		return Golden{Golden: webhook.Golden{
			Name: name, Repository: "r.io/golden/" + name, Owner: "devex", Status: "active", DefaultTag: "v1.2.3", Scope: "a language",
		}}
	}
	changed := func(g Golden, change func(*Golden)) Golden { change(&g); return g }
	for title, c := range map[string]struct {
		golden []Golden
		want   []string
	}{
		"good":           {[]Golden{good("a"), good("b")}, nil},
		"no owner":       {[]Golden{changed(good("a"), func(g *Golden) { g.Owner = "" })}, []string{"a: it has no owner"}},
		"no default tag": {[]Golden{changed(good("a"), func(g *Golden) { g.DefaultTag = "" })}, []string{"a: it has no default tag"}},
		"default tag of a refused class": {
			[]Golden{changed(good("a"), func(g *Golden) { g.DefaultTag = "latest" })},
			[]string{"a: its default tag latest is of class rolling, which the rule for its tags refuses (it allows exact)"},
		},
		"default tag that does not match": {
			[]Golden{changed(good("a"), func(g *Golden) { g.Repository, g.DefaultTag = "r.io/strict/a", "1.2.3" })},
			[]string{"a: its default tag 1.2.3 does not match the pattern v.* of"},
		},
		"nowhere to be had": {
			[]Golden{changed(good("a"), func(g *Golden) { g.Repository = "elsewhere.io/a" })},
			[]string{"a: no entry of registries covers it"},
		},
		"names that are mixed up": {
			[]Golden{good("a"), changed(good("b"), func(g *Golden) { g.Repository = "r.io/other/a" })},
			[]string{"b: its repository ends like that of a"},
		},
		"successors in a circle": {
			[]Golden{
				changed(good("a"), func(g *Golden) { g.Status, g.Successor = "deprecated", "b" }),
				changed(good("b"), func(g *Golden) { g.Status, g.Successor = "decommissioned", "a" }),
			},
			[]string{"a: its successors lead in a circle", "b: its successors lead in a circle"},
		},
		"successor without one": {
			[]Golden{
				changed(good("a"), func(g *Golden) { g.Status, g.Successor = "deprecated", "b" }),
				changed(good("b"), func(g *Golden) { g.Status = "decommissioned" }),
			},
			[]string{"a: its successors end at one that is not active"},
		},
		"too many for everything": {
			func() (many []Golden) {
				for i := range 4 {
					many = append(many, changed(good(fmt.Sprintf("a%d", i)), func(g *Golden) { g.Scope = "" }))
				}
				return append(many, changed(good("tools"), func(g *Golden) { g.Scope, g.Roles = "", []string{"init"} }))
			}(),
			[]string{"golden images: 4 of them are for everything (a0, a1, a2, a3)"},
		},
	} {
		t.Run(title, func(t *testing.T) {
			got := newCatalogue(t, Config{
				Registries: []Registry{{Host: "r.io"}}, Golden: c.golden,
				Tags: []TagRule{{Match: patterns(t, "r.io/strict/*"), Allow: []string{"exact"}, Pattern: "v.*"}, {Allow: []string{"exact"}}},
			}).Lint()
			if !slices.EqualFunc(got, c.want, strings.Contains) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
