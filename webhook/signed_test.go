package webhook

import (
	"slices"
	"testing"
)

// TestSignedBy: names count only as far as there are as many different signers behind them.
func TestSignedBy(t *testing.T) {
	by := func(signer, key string) Signature { return Signature{Signer: signer, Key: key} }
	identity := func(signer, name string) Signature { return Signature{Signer: signer, Identity: name, Issuer: "i"} }
	for title, c := range map[string]struct {
		anyOf []string
		valid []Signature
		want  []string
	}{
		"nobody":                         {[]string{"a", "b"}, nil, nil},
		"one":                            {[]string{"a", "b"}, []Signature{by("b", "1")}, []string{"b"}},
		"both":                           {[]string{"a", "b"}, []Signature{by("b", "1"), by("a", "2")}, []string{"a", "b"}},
		"twice":                          {[]string{"a", "b"}, []Signature{by("a", "1"), by("a", "1")}, []string{"a"}},
		"one who was not asked":          {[]string{"a"}, []Signature{by("c", "1")}, nil},
		"one key under two names":        {[]string{"a", "b"}, []Signature{by("a", "1"), by("b", "1")}, []string{"a"}},
		"one identity under two names":   {[]string{"a", "b"}, []Signature{identity("a", "x"), identity("b", "x")}, []string{"a"}},
		"the same name elsewhere":        {[]string{"a", "b"}, []Signature{identity("a", "x"), {Signer: "b", Identity: "x", Issuer: "j"}}, []string{"a", "b"}},
		"room is made":                   {[]string{"a", "b"}, []Signature{identity("a", "x"), identity("a", "y"), identity("b", "x")}, []string{"a", "b"}},
		"three names and one in the way": {[]string{"a", "b", "c"}, []Signature{by("a", "1"), by("b", "1"), by("c", "1"), by("a", "2"), by("a", "3")}, []string{"a", "b"}},
		"a name that is asked for twice": {[]string{"a", "a"}, []Signature{by("a", "1"), by("a", "2")}, []string{"a"}},
	} {
		t.Run(title, func(t *testing.T) {
			rule := SignatureRule{AnyOf: c.anyOf, Threshold: 2}
			if got := rule.SignedBy(c.valid); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if rule.Satisfied(c.valid) != (len(c.want) >= 2) {
				t.Errorf("satisfied: %v", rule.Satisfied(c.valid))
			}
		})
	}
}
