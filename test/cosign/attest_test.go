package cosign

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// A kind of attestation, by the program's name of it: what is given to the program, and what has to come out.
type kind struct {
	name, predicateType, predicate string
}

func kinds() []kind {
	return []kind{
		{"slsaprovenance1", "https://slsa.dev/provenance/v1",
			`{"buildDefinition":{"buildType":"https://b.example/t","externalParameters":{"ref":"main"}},` +
				`"runDetails":{"builder":{"id":"https://b.example"}}}`},
		{"spdxjson", "https://spdx.dev/Document", `{"SPDXID":"SPDXRef-DOCUMENT","name":"ws","spdxVersion":"SPDX-2.3"}`},
		{"cyclonedx", "https://cyclonedx.org/bom", `{"bomFormat":"CycloneDX","specVersion":"1.5","version":1}`},
		{"vuln", "https://cosign.sigstore.dev/attestation/vuln/v1",
			`{"invocation":{"parameters":null,"uri":"","event_id":"","builder.id":""},` +
				`"scanner":{"uri":"s","version":"1","db":{"uri":"","version":""},"result":{"found":0}},` +
				`"metadata":{"scanStartedOn":"2026-11-20T10:00:00Z","scanFinishedOn":"2026-11-20T10:01:00Z"}}`},
		{"openvex", "https://openvex.dev/ns",
			`{"@context":"https://openvex.dev/ns/v0.2.0","@id":"i","author":"a","timestamp":"2026-11-20T10:00:00Z","version":1,` +
				`"statements":[{"vulnerability":{"name":"CVE-2026-1"},"products":[{"@id":"p"}],"status":"fixed"}]}`},
		{"custom", "https://cosign.sigstore.dev/attestation/v1", `{"hello":"world"}`},
		{"https://corp.example/approved/v1", "https://corp.example/approved/v1", `{"by":"security"}`},
	}
}

// holds says whether a predicate says all that the program was given. It wraps what is custom in a text of its own.
func (k kind) holds(t *testing.T, predicate []byte) bool {
	t.Helper()
	var got, want any
	must(t, json.Unmarshal([]byte(k.predicate), &want))
	if err := json.Unmarshal(predicate, &got); err != nil {
		return false
	}
	if fields, ok := got.(map[string]any); ok && k.name == "custom" {
		text, _ := fields["Data"].(string)
		return strings.TrimSpace(text) == k.predicate
	}
	return includes(got, want)
}

// includes says whether got has all that want has: the programs add fields of the format that were not there.
func includes(got, want any) bool {
	fields, ok := want.(map[string]any)
	if !ok {
		return reflect.DeepEqual(got, want)
	}
	has, _ := got.(map[string]any)
	for name, value := range fields {
		if !includes(has[name], value) {
			return false
		}
	}
	return true
}

// TestAttest: of every type what was attested comes out, whichever program wrote it in which layout, and nothing else.
func TestAttest(t *testing.T) {
	for name, flags := range registries() {
		t.Run(name, func(t *testing.T) {
			s := startStand(t, flags...)
			d := newDesk(t, s.caFile)
			signers := map[string]trusted{"ci": d.key("ci"), "release": d.key("release")}
			image, other := s.push("golden/ws", false), s.push("golden/other", false)
			d.sign(layouts()[0], "ci", image)
			d.sign(layouts()[3], "ci", image)
			for i, k := range kinds() {
				t.Run(k.name, func(t *testing.T) {
					s, d := s.in(t), d.in(t)
					for n, in := range layouts() {
						if i > 0 && in.name == "v3 without config" {
							continue // it is enough to see once that it is v3
						}
						d.attest(in, image, k.name, k.predicate)
						byCI := []attestationRule{{k.predicateType, []string{"ci"}}}
						got := s.ask(question{Image: image, Signers: signers, Attestations: byCI})
						wantAttested(t, got, attested{k, "ci", n + 1})
						none := s.ask(question{Image: other, Signers: signers, Attestations: byCI})
						if none.Error != "" || none.Attestations.Found != 0 {
							t.Errorf("another image: got %+v, error %q", none.Attestations, none.Error)
						}
					}
					byRelease := []attestationRule{{k.predicateType, []string{"release"}}}
					got := s.ask(question{Image: image, Signers: signers, Attestations: byRelease}).Attestations
					if len(got.Valid) != 0 || !strings.Contains(fmt.Sprint(got.Rejected), "attestations by an unknown key") {
						t.Errorf("asked for another signer: got %+v", got)
					}
				})
			}
			got := s.ask(question{Image: image, Signers: signers, Signatures: []rule{{AnyOf: []string{"release"}, Threshold: 1}}})
			if got.Signatures.Found != 2 {
				t.Errorf("attestations count as signatures: %+v", got.Signatures)
			}
		})
	}
}

// An attested image has so many attestations by a signer.
type attested struct {
	kind   kind
	signer string
	times  int
}

// wantAttested wants them, and that they say what was given to the program.
func wantAttested(t *testing.T, got answer, want attested) {
	t.Helper()
	k, signer, times := want.kind, want.signer, want.times
	if got.Error != "" || len(got.Attestations.Valid) != times || got.Attestations.Found != times {
		t.Errorf("got %+v, error %q, want %d attestations", got.Attestations, got.Error, times)
	}
	for _, a := range got.Attestations.Valid {
		if a.PredicateType != k.predicateType || a.Signer != signer || !k.holds(t, a.Predicate.JSON) {
			t.Errorf("got %s of %s by %s, want %s of %s", a.Predicate.JSON, a.PredicateType, a.Signer, k.predicate, k.predicateType)
		}
	}
}
