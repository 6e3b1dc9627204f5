package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// TestAttestedTypes: Hallmark reads what types a rule has read off the rule.
func TestAttestedTypes(t *testing.T) {
	const a = `"https://slsa.dev/provenance/v1"`
	for title, c := range map[string]struct {
		rego string
		want []string
	}{
		"compared":       {`deny contains {"message": "no"} if { some i in input.images; some a in i.attestations; a.predicateType == ` + a + ` }`, []string{"https://slsa.dev/provenance/v1"}},
		"in a set":       {`deny contains {"message": "no"} if { some i in input.images; some a in i.attestations; a.predicateType in {"cosign.sigstore.dev/attestation/v1", ` + a + `} }`, []string{"cosign.sigstore.dev/attestation/v1", "https://slsa.dev/provenance/v1"}},
		"in a function":  {"deny contains {\"message\": \"no\"} if { some i in input.images; _has(i) }\n_has(i) if i.attestations[_].predicateType == " + a, []string{"https://slsa.dev/provenance/v1"}},
		"in a constant":  {"_t := " + a + "\ndeny contains {\"message\": \"no\"} if { some i in input.images; i.attestations[_].predicateType == _t }", []string{"https://slsa.dev/provenance/v1"}},
		"of whoever":     {`deny contains {"message": "no"} if { some i in input.images; count(i.attestations) > 3 }`, nil},
		"no attestation": {`deny contains {"message": "no"} if input.images[_].repository == "a/b"`, nil},
	} {
		t.Run(title, func(t *testing.T) {
			e, err := engine(t, c.rego)
			if err != nil {
				t.Fatal(err)
			}
			rules := e.Rules()
			i := slices.IndexFunc(rules, func(r webhook.Rule) bool { return r.Name == "x" })
			if got := rules[i].Attested; !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			needs := rules[i].Needs&webhook.FactAttestations != 0
			if needs != strings.Contains(c.rego, "attestations") {
				t.Errorf("needs attestations: %v", needs)
			}
		})
	}
}

// TestAttestationsInInput: a rule sees predicates, who made them and when, and by whom the image is signed and attested.
func TestAttestationsInInput(t *testing.T) {
	e, err := engine(t, `deny contains {"message": "{all}", "args": {"all": [a.predicate.builder, a.signer, a.signedAt, a.identity, input.request.time]}} if {
	some i in input.images
	some a in i.attestations
	a.predicateType == "a/b"
	i.signedBy[0].signed == ["ci"]
	i.attestedBy[0].attested
	i.attestationsFound == 2
}`)
	if err != nil {
		t.Fatal(err)
	}
	in := input(1)
	in.Time = time.Date(2027, 3, 31, 12, 0, 0, 0, time.UTC)
	predicate := &webhook.Predicate{JSON: []byte(`{"builder":"b"}`)}
	in.Images[0].Entry.Attested = []webhook.AttestationRule{{PredicateType: "a/b", AnyOf: []string{"release"}}}
	in.Images[0].Attested = &webhook.Attestations{Found: 2, Valid: []webhook.Attestation{{
		PredicateType: "a/b", Predicate: predicate, Signer: "release", Identity: "who", At: in.Time.Add(-time.Hour),
	}}}
	for range 2 {
		findings, err := e.Judge(t.Context(), webhook.LatePhase, in)
		if err != nil || len(findings) != 1 || findings[0].Message != "b, release, 2027-03-31T11:00:00Z and 2 more" {
			t.Fatalf("got %+v, %v", findings, err)
		}
	}
	converted, err := predicate.Converted(func([]byte) (any, error) {
		t.Error("the predicate is converted again")
		return nil, nil
	})
	if err != nil || converted == nil {
		t.Errorf("got %v, %v", converted, err)
	}
}

// TestBrokenPredicate: what cannot be converted is no admission.
func TestBrokenPredicate(t *testing.T) {
	e, err := engine(t, `deny contains {"message": "no"} if input.images[_].attestations[_].predicate.x`)
	if err != nil {
		t.Fatal(err)
	}
	in := input(1)
	in.Images[0].Attested = &webhook.Attestations{Valid: []webhook.Attestation{{
		PredicateType: "a/b", Signer: "ci", Predicate: &webhook.Predicate{JSON: []byte(strings.Repeat("[", 20_000))},
	}}}
	if findings, err := e.Judge(t.Context(), webhook.LatePhase, in); err == nil {
		t.Errorf("got %+v, want an error", findings)
	}
	in.Images[0].Attested.Valid[0].Predicate = &webhook.Predicate{} // a statement may have none
	if findings, err := e.Judge(t.Context(), webhook.LatePhase, in); err != nil || len(findings) != 0 {
		t.Errorf("got %+v, %v", findings, err)
	}
}
