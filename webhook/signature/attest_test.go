package signature_test

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

const (
	provenance = "https://slsa.dev/provenance/v1"
	scan       = "https://cosign.sigstore.dev/attestation/vuln/v1"
)

func (w *world) attest(opts registrytest.AttestOptions) {
	w.t.Helper()
	if opts.Signer.Key == nil && opts.Signer.Keyless == nil {
		opts.Signer.Key = w.ci
	}
	w.must(w.registry.Attest(w.t.Context(), "golden/base", w.digest, opts))
}

func (w *world) attestations(rules ...webhook.AttestationRule) (webhook.Attestations, error) {
	w.t.Helper()
	return w.verifier().Attest(w.t.Context(), w.ref, rules)
}

// TestAttest: which attestations count, in both layouts.
func TestAttest(t *testing.T) {
	type o = registrytest.AttestOptions
	tests := map[string]struct {
		opts     func(w *keylessWorld, o *o)
		anyOf    []string
		found    int
		rejected string // "" counts; "none" is not even found
	}{
		"as cosign attests": {found: 1},
		"by whom nobody named": {
			opts: func(w *keylessWorld, o *o) { o.Signer.Key = w.release }, anyOf: []string{}, found: 1,
		},
		"by another signer": {
			opts: func(w *keylessWorld, o *o) { o.Signer.Key = w.release }, found: 1, rejected: "1 attestation by an unknown key",
		},
		"by a stranger": {opts: func(w *keylessWorld, o *o) { o.Signer.Key = w.stranger }, found: 1, rejected: "1 attestation by an unknown key"},
		"by an identity": {
			opts: func(w *keylessWorld, o *o) {
				o.Signer = registrytest.Signer{Keyless: w.authority, Certificate: certificate()}
			},
			anyOf: []string{"release-workflow"}, found: 1,
		},
		"by another identity": {
			opts: func(w *keylessWorld, o *o) {
				o.Signer = registrytest.Signer{Keyless: w.authority, Certificate: certificate(func(c *registrytest.Certificate) { c.Identity = "https://github.com/evil/x" })}
			},
			anyOf: []string{"release-workflow"}, found: 1, rejected: `identity "https://github.com/evil/x", expected `,
		},
		"without annotation": {opts: func(_ *keylessWorld, o *o) { o.Annotations = unannotatedAttestation() }, found: 1},
		"of another type (SIG-033)": {
			opts: func(_ *keylessWorld, o *o) { o.Statement.PredicateType = scan }, rejected: "none",
		},
		"of another type than it says (SIG-033)": {
			opts:     func(_ *keylessWorld, o *o) { o.Statement.PredicateType, o.PredicateAnnotation = scan, provenance },
			rejected: "none",
		},
		"of the type, though it says another": {
			opts: func(_ *keylessWorld, o *o) { o.PredicateAnnotation = scan }, rejected: "none",
		},
		"of a type that begins alike": {
			opts: func(_ *keylessWorld, o *o) {
				o.Statement.PredicateType, o.PredicateAnnotation = provenance+"0", provenance
			},
			rejected: "none",
		},
		"about another digest": {
			opts:  func(_ *keylessWorld, o *o) { o.Statement.Subject = "sha256:" + strings.Repeat("a", 64) },
			found: 1, rejected: "right key, other digest",
		},
		"about nothing (SIG-036)": {
			opts: func(_ *keylessWorld, o *o) { o.Statement.Raw = statement(provenance, "null") }, found: 1, rejected: "right key, no digest in the attestation",
		},
		"about null (SIG-036)": {
			opts: func(_ *keylessWorld, o *o) { o.Statement.Raw = statement(provenance, "[null]") }, found: 1, rejected: "1 attestation in no valid form",
		},
		"not JSON (SIG-034)": {
			opts: func(_ *keylessWorld, o *o) { o.Statement.Raw = []byte("\xff") }, found: 1, rejected: "1 attestation in no valid form",
		},
		"another payload type": {
			opts: func(_ *keylessWorld, o *o) { o.Statement.PayloadType = "text/plain" }, found: 1, rejected: "1 attestation in no valid form",
		},
	}
	for title, test := range tests {
		for _, bundle := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/bundle %v", title, bundle), func(t *testing.T) {
				w := newKeylessWorld(t, registrytest.SigstoreConfig{})
				w.replaceRegistry(registrytest.Config{Referrers: true})
				w.trust.Signers["release-workflow"] = w.signer
				opts := o{Bundle: bundle, Statement: registrytest.Statement{PredicateType: provenance, Predicate: map[string]any{"builder": "b"}}, Witness: registrytest.Witness{At: w.now}}
				if test.opts != nil {
					test.opts(w, &opts)
				}
				w.attest(opts)
				anyOf := []string{"devex-ci"}
				if test.anyOf != nil {
					anyOf = test.anyOf
				}
				rule := webhook.AttestationRule{PredicateType: provenance, AnyOf: anyOf}
				got, err := w.attestations(rule)
				w.must(err)
				switch test.rejected {
				case "":
					if !rule.Satisfied(got.Valid) || len(got.Valid) != 1 || got.Found != test.found || got.Valid[0].Digest != w.digest {
						t.Fatalf("got %+v", got)
					}
					if text := strings.ReplaceAll(string(got.Valid[0].Predicate.JSON), " ", ""); text != `{"builder":"b"}` {
						t.Errorf("the predicate is %s", text)
					}
				case "none":
					if got.Found != 0 || len(got.Valid) > 0 || len(got.Rejected) > 0 {
						t.Errorf("got %+v", got)
					}
				default:
					if len(got.Valid) > 0 || got.Found != test.found || len(got.Rejected) != 1 || !strings.HasPrefix(got.Rejected[0], test.rejected) {
						t.Errorf("got %+v, want %q", got, test.rejected)
					}
				}
			})
		}
	}
}

func unannotatedAttestation() map[string]string {
	all := unannotated()
	all[registrytest.PredicateAnnotation] = ""
	return all
}

// TestAttestationsOfAType: several are all given, the newest of a signer first, and those of other types are not read.
func TestAttestationsOfAType(t *testing.T) {
	w := newKeylessWorld(t, registrytest.SigstoreConfig{})
	w.replaceRegistry(registrytest.Config{Referrers: true})
	w.trust.Signers["release-workflow"] = w.signer
	for i, age := range []time.Duration{3, 1, 2} {
		at := w.now.Add(-age * 24 * time.Hour)
		w.attest(registrytest.AttestOptions{
			Bundle: i == 1, Signer: registrytest.Signer{Keyless: w.authority, Certificate: certificate()},
			Statement: registrytest.Statement{PredicateType: scan, Predicate: map[string]any{"age": int(age)}}, Witness: registrytest.Witness{At: at},
		})
	}
	for range 3 {
		w.attest(registrytest.AttestOptions{Bundle: true, Statement: registrytest.Statement{PredicateType: "https://spdx.dev/Document", Predicate: map[string]any{"x": strings.Repeat("x", 100_000)}}})
		w.attest(registrytest.AttestOptions{Statement: registrytest.Statement{PredicateType: "https://spdx.dev/Document", Predicate: map[string]any{"x": strings.Repeat("x", 100_000)}}})
	}
	w.registry.Reset()
	got, err := w.attestations(webhook.AttestationRule{PredicateType: scan, AnyOf: []string{"release-workflow"}})
	w.must(err)
	var ages []string
	for _, a := range got.Valid {
		ages = append(ages, strings.ReplaceAll(string(a.Predicate.JSON), " ", ""))
	}
	if want := []string{`{"age":1}`, `{"age":2}`, `{"age":3}`}; !reflect.DeepEqual(ages, want) {
		t.Errorf("got %s, want %s", ages, want)
	}
	// Two lists, two layers, and the manifest and the content of one bundle.
	if n := len(w.registry.Requests()); n != 6 {
		t.Errorf("%d requests: %v", n, w.registry.Requests())
	}
}

// TestAttestationBounds: what is too large or too much is told, and what could not be read is an error.
func TestAttestationBounds(t *testing.T) {
	rule := webhook.AttestationRule{PredicateType: provenance, AnyOf: []string{"devex-ci"}}
	for _, bundle := range []bool{false, true} {
		t.Run(fmt.Sprintf("bundle %v", bundle), func(t *testing.T) {
			w := newReferrersWorld(t)
			w.config.Limits = signature.Limits{Attestations: 3, AttestationBytes: 100_000}
			attest := func(predicate any) {
				w.attest(registrytest.AttestOptions{Bundle: bundle, Statement: registrytest.Statement{PredicateType: provenance, Predicate: predicate}})
			}
			attest(string(bytes.Repeat([]byte("x"), 200_000)))
			attest("small")
			got, err := w.attestations(rule)
			if err != nil || len(got.Valid) != 1 || !reflect.DeepEqual(got.Rejected, []string{"1 attestation too large to be read"}) {
				t.Errorf("got %+v, %v", got, err)
			}
			attest("more")
			attest("much")
			_, err = w.attestations(rule)
			w.wantReadError(err, webhook.Invalid, "has more than 3 attestations for golden/base@"+w.digest[:19])
		})
	}
	for _, fails := range []string{"/referrers/", ".att"} {
		on := true
		w := newWorld(t, nil)
		w.replaceRegistry(registrytest.Config{Referrers: true, Intercept: intercept(fails, &on, http.StatusBadGateway)})
		_, err := w.attestations(rule)
		w.wantReadError(err, webhook.Unavailable, "")
	}
}

// TestLargeAttestation: a bill of materials of megabytes is read, once.
func TestLargeAttestation(t *testing.T) {
	w := newReferrersWorld(t)
	packages := make([]string, 20_000)
	for i := range packages {
		packages[i] = fmt.Sprintf("pkg:deb/debian/package-%d@1.2.3?arch=amd64", i)
	}
	w.attest(registrytest.AttestOptions{Bundle: true, Statement: registrytest.Statement{PredicateType: "https://spdx.dev/Document", Predicate: packages}})
	got, err := w.attestations(webhook.AttestationRule{PredicateType: "https://spdx.dev/Document", AnyOf: []string{"devex-ci"}})
	if err != nil || len(got.Valid) != 1 {
		t.Fatalf("got %+v, %v", got.Rejected, err)
	}
	if n := len(got.Valid[0].Predicate.JSON); n < 800_000 {
		t.Errorf("the predicate has %d bytes", n)
	}
}
