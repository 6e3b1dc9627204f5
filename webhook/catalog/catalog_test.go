package catalog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hallmark-admission/hallmark/webhook"
)

func patterns(t testing.TB, list ...string) (parsed []webhook.Pattern) {
	t.Helper()
	for _, s := range list {
		p, err := webhook.ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, p)
	}
	return parsed
}

func newCatalogue(t testing.TB, config Config) *Catalogue {
	t.Helper()
	if config.Now == nil {
		config.Now = func() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }
	}
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// entry is what a catalogue says of an image in a namespace.
func entry(t testing.TB, c *Catalogue, namespace, image string) webhook.CatalogueEntry {
	t.Helper()
	ref, err := webhook.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	i := &webhook.Image{Ref: ref, Role: webhook.RoleWorkspace}
	c.Catalogue(&webhook.Request{Namespace: namespace}, i)
	return i.Entry
}

func golden(name, status, successor, tag string) Golden {
	return Golden{Golden: webhook.Golden{
		Name: name, Repository: "registry.corp:5000/golden/" + name, Status: status, Successor: successor, DefaultTag: tag,
	}}
}

func TestRegistry(t *testing.T) {
	c := newCatalogue(t, Config{Registries: []Registry{
		{Host: "registry.corp:5000", Repositories: patterns(t, "golden/**")}, {Host: "all.corp"}, {Host: "index.docker.io"},
	}})
	for image, want := range map[string]webhook.RegistryMatch{
		"registry.corp:5000/golden/a":    {Host: true, Repository: true},
		"registry.corp:5000/sandbox/a":   {Host: true},
		"registry.corp/golden/a":         {},
		"all.corp/anything":              {Host: true, Repository: true},
		"ubuntu":                         {Host: true, Repository: true},
		"registry-1.docker.io/library/a": {Host: true, Repository: true},
	} {
		if got := entry(t, c, "team", image).Registry; got != want {
			t.Errorf("%s: %+v, want %+v", image, got, want)
		}
	}
}

func TestTagRules(t *testing.T) {
	c := newCatalogue(t, Config{Tags: []TagRule{
		{Match: patterns(t, "registry.corp:5000/golden/*"), Allow: []string{Exact, Major}, Pattern: `v[0-9]+(\.[0-9]+){0,2}`},
		{Allow: []string{Digest, Exact}},
	}})
	for image, want := range map[string]webhook.TagRule{
		"registry.corp:5000/golden/a:v1":         {Class: true, Match: true},
		"registry.corp:5000/golden/a:v1.2.3":     {Class: true, Match: true},
		"registry.corp:5000/golden/a:v1.2.3-rc1": {Class: true, Match: false},
		"registry.corp:5000/golden/a:1.2.3":      {Class: true, Match: false},
		"registry.corp:5000/golden/a:latest":     {Class: false, Match: false},
		"registry.corp:5000/golden/a":            {Class: false, Match: true},
		"registry.corp:5000/other/a:1.2.3":       {Class: true, Match: true, Digest: true},
		"registry.corp:5000/other/a:v1":          {Class: false, Match: true, Digest: true},
	} {
		got := *entry(t, c, "team", image).Tags
		got.Allow, got.Pattern = nil, ""
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", image, diff)
		}
	}
	if _, err := New(Config{Tags: []TagRule{{Pattern: "("}}}); err == nil {
		t.Error("a broken pattern is accepted")
	}
}

// TestTagClasses: a class of one's own replaces that of the spelling, for the tags that it is for.
func TestTagClasses(t *testing.T) {
	c := newCatalogue(t, Config{Classes: []TagClass{
		{Match: patterns(t, "r.io/golden/*"), Pattern: "noble-[0-9]+", Class: "exact"},
		{Match: patterns(t, "r.io/golden/*"), Pattern: "noble.*", Class: "rolling"},
		{Match: patterns(t, "r.io/all/**"), Class: "branch"},
	}})
	for image, want := range map[string]string{
		"r.io/golden/a:noble-7": "exact", "r.io/golden/a:noble-7x": "rolling", "r.io/golden/a:v1.2.3": "exact", "r.io/golden/a:latest": "rolling",
		"r.io/other/a:noble-7": ClassifyTag("noble-7", false).Class, "r.io/all/a:v1.2.3": "branch", "r.io/all/a": "untagged",
	} {
		if got := entry(t, c, "team", image).TagClass; got != want {
			t.Errorf("%s is %s, want %s", image, got, want)
		}
	}
}

func TestPath(t *testing.T) {
	c := newCatalogue(t, Config{Path: "{company}/{department}/{software}"})
	got := entry(t, c, "team", "registry.corp:5000/acme/payments/api:1").Path
	if diff := cmp.Diff(map[string]string{"company": "acme", "department": "payments", "software": "api"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got := entry(t, c, "team", "registry.corp:5000/acme/api:1").Path; got != nil {
		t.Errorf("another path gave %v", got)
	}
	for _, bad := range []string{"{a}/{a}", "{}/b", "{a/b}", "a//b", "{a}x", ""} {
		if _, err := ParsePath(bad); err == nil {
			t.Errorf("ParsePath(%q) found nothing wrong", bad)
		}
	}
}

// TestExemptions: by namespace and image, and never after the last day.
func TestExemptions(t *testing.T) {
	c := newCatalogue(t, Config{Exemptions: []Exemption{
		{Name: "now", Namespaces: []string{"research-*"}, Images: patterns(t, "registry.corp:5000/legacy/*"), Rules: []string{"user"},
			Expires: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)},
		{Name: "over", Namespaces: []string{"*"}, Images: patterns(t, "**"), Rules: []string{"user"}, Expires: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)},
	}})
	for at, want := range map[string]int{
		"research-a registry.corp:5000/legacy/matlab": 1, "research registry.corp:5000/legacy/matlab": 0,
		"research-a registry.corp:5000/legacy-evil/matlab": 0, "research-a registry.corp:5000/legacy/a/b": 0,
	} {
		namespace, image, _ := strings.Cut(at, " ")
		if got := entry(t, c, namespace, image).Exemptions; len(got) != want {
			t.Errorf("%s: %+v", at, got)
		}
	}
}

func TestSuggest(t *testing.T) {
	c := newCatalogue(t, Config{Golden: []Golden{
		golden("base", "active", "", "v3.2.1"), golden("universal", "active", "", "v9"), golden("old", "decommissioned", "newer", "v1"),
		golden("newer", "deprecated", "base", "v2"), golden("gone", "decommissioned", "", "v1"), golden("ring-a", "decommissioned", "ring-b", "v1"),
		golden("ring-b", "decommissioned", "ring-a", "v1"), golden("untagged", "active", "", ""),
	}})
	const at = "registry.corp:5000/golden/"
	for image, want := range map[string]string{
		"registry.corp:5000/golden/base:latest": at + "base:v3.2.1", // the image itself, by its default tag
		"docker.io/codercom/enterprise-base:1":  at + "base:v3.2.1", // a word of the name
		"docker.io/codercom/base":               at + "base:v3.2.1", // the name
		"docker.io/library/bases":               at + "base:v3.2.1", // nearly the name
		"docker.io/library/bsae":                at + "base:v3.2.1", // two letters swapped
		"ghcr.io/acme/univrsal":                 at + "universal:v9",
		"registry.corp:5000/golden/old":         at + "base:v3.2.1", // the successor of the successor
		"registry.corp:5000/golden/gone":        "",
		"registry.corp:5000/golden/ring-a":      "", // a circle ends
		"registry.corp:5000/golden/untagged":    "",
		"docker.io/library/mysql":               "", // nothing like it: nothing is invented
	} {
		ref, err := webhook.ParseReference(image)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Suggest(&webhook.Image{Ref: ref}); got != want {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
	if got := c.Suggest(&webhook.Image{Error: "no reference"}); got != "" {
		t.Errorf("no reference: %q", got)
	}
}

func TestRewrite(t *testing.T) {
	c := newCatalogue(t, Config{Rewrites: []Rewrite{
		{From: "index.docker.io/codercom", To: "registry.corp:5000/mirror/codercom"}, {From: "docker.io", To: "registry.corp:5000/hub"},
		{From: "docker.io/codercom/special", To: "registry.corp:5000/special"}, {From: "quay.io", To: "mirror.corp"},
	}})
	for image, want := range map[string]string{
		"codercom/base:v1":                   "registry.corp:5000/mirror/codercom/base:v1",
		"registry-1.docker.io/codercom/base": "registry.corp:5000/mirror/codercom/base",
		"codercom-evil/base":                 "registry.corp:5000/hub/codercom-evil/base",
		"codercom/special":                   "registry.corp:5000/special",
		"ubuntu":                             "registry.corp:5000/hub/library/ubuntu",
		"quay.io/a/b:c":                      "mirror.corp/a/b:c",
		"quay.io.evil/a/b":                   "quay.io.evil/a/b",
	} {
		ref, err := webhook.ParseReference(image)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Rewrite(ref).String(); got != want {
			t.Errorf("%s becomes %s, want %s", image, got, want)
		}
	}
}

// BenchmarkCatalogue: the size of the catalogue does not matter.
func BenchmarkCatalogue(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		config := Config{Registries: []Registry{{Host: "registry.corp:5000"}}, Tags: []TagRule{{Allow: []string{Exact}}}}
		for i := range n {
			config.Golden = append(config.Golden, golden(fmt.Sprint("image-", i), "active", "", "v1.0.0"))
		}
		c := newCatalogue(b, config)
		ref, err := webhook.ParseReference("registry.corp:5000/golden/image-7:v1.0.0")
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint("entries=", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				image := &webhook.Image{Ref: ref, Role: webhook.RoleWorkspace}
				c.Catalogue(&webhook.Request{Namespace: "team"}, image)
			}
		})
	}
}
