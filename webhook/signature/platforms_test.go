package signature_test

import (
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestPlatforms (SIG-037, SIG-039): which digest must be signed when an index is signed and a platform runs, and the other
// way round.
func TestPlatforms(t *testing.T) {
	const index, amd64, arm64 = "index", "amd64", "arm64"
	type w = world
	tests := map[string]struct {
		signed []string
		run    string // with the tag of the index
		rule   webhook.PlatformRule
		change func(w *w, digests map[string]string)
		valid  string // whose signature counts; "" is none
	}{
		"the index is signed and run":                   {signed: []string{index}, run: index, valid: index},
		"the index is signed, a platform run":           {signed: []string{index}, run: amd64},
		"a platform is signed and run":                  {signed: []string{amd64}, run: amd64, valid: amd64},
		"a platform is signed, the index run":           {signed: []string{amd64, arm64}, run: index},
		"inherited":                                     {signed: []string{index}, run: amd64, rule: webhook.PlatformsInherit, valid: index},
		"inherited, and signed itself":                  {signed: []string{amd64}, run: amd64, rule: webhook.PlatformsInherit, valid: amd64},
		"inherited from an index that is not signed":    {signed: []string{arm64}, run: amd64, rule: webhook.PlatformsInherit},
		"not inherited by the index from its platforms": {signed: []string{amd64, arm64}, run: index, rule: webhook.PlatformsInherit},
		"inherited from an index that does not list it": {
			signed: []string{index}, run: amd64, rule: webhook.PlatformsInherit,
			change: func(w *w, digests map[string]string) {
				other, err := w.registry.PushImage(w.t.Context(), registrytest.Image{Repository: "golden/base", Tag: "other", Labels: map[string]string{"x": "y"}})
				w.must(err)
				digests[amd64] = other
			},
		},
		"inherited from a tag that has moved": {
			signed: []string{index}, run: amd64, rule: webhook.PlatformsInherit,
			change: func(w *w, _ map[string]string) {
				_, err := w.registry.PushImage(w.t.Context(), registrytest.Image{Repository: "golden/base", Tag: "multi"})
				w.must(err)
			},
		},
		"each platform":                      {signed: []string{amd64, arm64}, run: index, rule: webhook.PlatformsEach, valid: amd64},
		"each platform but one":              {signed: []string{amd64}, run: index, rule: webhook.PlatformsEach},
		"each platform, and the index alone": {signed: []string{index}, run: index, rule: webhook.PlatformsEach, valid: index},
		"each platform, and one is run":      {signed: []string{index}, run: amd64, rule: webhook.PlatformsEach},
	}
	for title, test := range tests {
		for _, layout := range []string{"attached", "bundle"} {
			t.Run(title+"/"+layout, func(t *testing.T) {
				w := newReferrersWorld(t)
				platforms := []registrytest.Image{{User: "1000"}, {User: "1000", Arch: arm64}}
				digests := map[string]string{}
				var err error
				digests[index], err = w.registry.PushIndex(t.Context(), "golden/base", "multi", platforms...)
				w.must(err)
				for i, name := range []string{amd64, arm64} {
					platforms[i].Repository = "golden/base"
					digests[name], err = w.registry.PushImage(t.Context(), platforms[i])
					w.must(err)
				}
				for _, name := range test.signed {
					w.digest = digests[name]
					if layout == "attached" {
						w.sign(w.ci, registrytest.SignOptions{})
					} else {
						w.bundle(w.ci, registrytest.BundleOptions{})
					}
				}
				if test.change != nil {
					test.change(w, digests)
				}
				w.rule.Platforms = test.rule
				w.ref = w.parse("golden/base:multi@" + digests[test.run])
				got, err := w.verify()
				w.must(err)
				switch {
				case test.valid == "" && len(got.Valid) > 0:
					t.Errorf("got %+v, want none", got)
				case test.valid != "" && (len(got.Valid) != 1 || got.Valid[0].Digest != digests[test.valid]):
					t.Errorf("got %+v, want one of %s", got, digests[test.valid])
				}
			})
		}
	}
}

// TestInheritNeedsATag: without one, nothing says which index speaks for a platform.
func TestInheritNeedsATag(t *testing.T) {
	w := newReferrersWorld(t)
	w.rule.Platforms = webhook.PlatformsInherit
	w.registry.Reset()
	got, err := w.verify()
	w.want(got, err, nil, 0)
	if n := len(w.registry.Requests()); n != 2 {
		t.Errorf("%d requests: %v", n, w.registry.Requests())
	}
}
