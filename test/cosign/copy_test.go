package cosign

import (
	"slices"
	"strings"
	"testing"
)

// TestIndex: a signature of an index speaks for the index, and for its platforms only where they are signed themselves or
// a rule lets them inherit it.
func TestIndex(t *testing.T) {
	s := startStand(t, "-referrers")
	d := newDesk(t, s.caFile)
	signers := map[string]trusted{"ci": d.key("ci")}
	for _, in := range layouts() {
		for _, recursive := range []bool{false, true} {
			repository := "golden/" + strings.ReplaceAll(in.name, " ", "-")
			var more []string
			if recursive {
				repository += "-recursive"
				more = []string{"-r"}
			}
			t.Run(strings.TrimPrefix(repository, "golden/"), func(t *testing.T) {
				s, d := s.in(t), d.in(t)
				index := s.push(repository, true)
				d.sign(in, "ci", index, more...)
				ask := func(image, platforms string) answer {
					byCI := []rule{{AnyOf: []string{"ci"}, Threshold: 1, Platforms: platforms}}
					return s.ask(question{Image: image, Signers: signers, Signatures: byCI})
				}
				wantSigned(t, ask(index, ""), signed{"ci", index, 1})
				platforms := s.platforms(index)
				if len(platforms) != 2 {
					t.Fatalf("platforms: %v", platforms)
				}
				for _, platform := range platforms {
					if recursive {
						wantSigned(t, ask(platform, ""), signed{"ci", platform, 1})
						continue
					}
					wantUnsigned(t, ask(platform, ""), "")
					// A tag says which index: the one that was signed.
					tagged := strings.Replace(platform, "@", ":v1@", 1)
					wantSigned(t, ask(tagged, "inherit"), signed{"ci", index, 1})
				}
			})
		}
	}
}

// TestCopy: what the programs copy to another repository counts there when a rule allows for the repository from which it
// comes, and they leave bundles behind. They also give the copy a tag sha256-<hex>, at which clients look for the list of
// bundles where the registry has no API for it: that is no list, and hides nothing.
func TestCopy(t *testing.T) {
	for name, flags := range registries() {
		t.Run(name, func(t *testing.T) {
			s := startStand(t, flags...)
			d := newDesk(t, s.caFile)
			signers := map[string]trusted{"ci": d.key("ci"), "release": d.key("release")}
			for _, in := range layouts()[:4] {
				for version, program := range map[string]string{"v2": programs.V2, "v3": programs.V3} {
					for _, what := range []string{"image", "index"} {
						t.Run(what+" by "+in.name+" copied by "+version, func(t *testing.T) {
							s, d := s.in(t), d.in(t)
							c := copied{s: s, signers: signers, bundle: in.bundle}
							c.from = "golden/" + strings.ReplaceAll(what+"-"+in.name, " ", "-") + "-" + version
							to := strings.Replace(c.from, "golden", "mirror", 1)
							image := s.push(c.from, what == "index")
							c.image = strings.Replace(image, c.from, to, 1)
							d.sign(in, "ci", image)
							d.attest(in, image, approved().name, approved().predicate)
							d.run(program, slices.Concat([]string{"copy"}, d.registry, []string{image, s.host + "/" + to + ":v1"})...)
							c.check(t)
						})
					}
				}
			}
		})
	}
}

// approved is what is attested where it does not matter.
func approved() kind { return kinds()[len(kinds())-1] }

// A copied image, and the repository that it comes from.
type copied struct {
	s           *stand
	signers     map[string]trusted
	image, from string
	bundle      bool
}

func (c copied) check(t *testing.T) {
	t.Helper()
	ask := func(r rule) answer {
		if r.Threshold = 1; r.AnyOf == nil {
			r.AnyOf = []string{"ci"}
		}
		return c.s.ask(question{Image: c.image, Signers: c.signers, Signatures: []rule{r}})
	}
	byCI := []attestationRule{{approved().predicateType, []string{"ci"}}}
	got := c.s.ask(question{Image: c.image, Signers: c.signers, Attestations: byCI})
	if c.bundle {
		wantAttested(t, got, attested{approved(), "ci", 0})
		wantUnsigned(t, ask(rule{}), "")
		wantUnsigned(t, ask(rule{Repository: "any"}), "")
		return
	}
	wantAttested(t, got, attested{approved(), "ci", 1})
	source := c.s.host + "/" + c.from
	wantUnsigned(t, ask(rule{}), "right key, other repository \""+source+"\"")
	wantUnsigned(t, ask(rule{Names: []string{source + "-else"}}), "right key, other repository \""+source+"\"")
	wantUnsigned(t, ask(rule{AnyOf: []string{"release"}, Repository: "any"}), "1 signature by ci")
	wantSigned(t, ask(rule{Repository: "any"}), signed{"ci", c.image, 1})
	wantSigned(t, ask(rule{Names: []string{source}}), signed{"ci", c.image, 1})
}

// TestClean: what the programs take away does not count any longer, and what they leave does: v2 leaves bundles.
func TestClean(t *testing.T) {
	for name, flags := range registries() {
		t.Run(name, func(t *testing.T) {
			s := startStand(t, flags...)
			d := newDesk(t, s.caFile)
			signers := map[string]trusted{"ci": d.key("ci")}
			for _, in := range layouts() {
				for version, program := range map[string]string{"v2": programs.V2, "v3": programs.V3} {
					t.Run(in.name+" cleaned by "+version, func(t *testing.T) {
						s, d := s.in(t), d.in(t)
						image := s.push("golden/"+strings.ReplaceAll(in.name, " ", "-")+"-"+version, false)
						byCI := question{Image: image, Signers: signers, Signatures: []rule{{AnyOf: []string{"ci"}, Threshold: 1}}}
						d.sign(in, "ci", image)
						wantSigned(t, s.ask(byCI), signed{"ci", image, 1})
						d.run(program, slices.Concat([]string{"clean", "--force"}, d.registry, []string{image})...)
						got := s.ask(byCI)
						if in.bundle && version == "v2" {
							wantSigned(t, got, signed{"ci", image, 1})
							return
						}
						if len(got.Signatures.Valid) > 0 || got.Error != "" {
							t.Errorf("got %+v, error %q, want no signature", got.Signatures, got.Error)
						}
					})
				}
			}
		})
	}
}
