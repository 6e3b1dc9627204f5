package registrytest_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sigstore/cosign/v2/pkg/cosign"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const tested = "https://example.com/tested/v1"

// cosign accepts what Attest writes in either layout, and refuses for the right reason whatever an option makes wrong.
func TestAttest(t *testing.T) {
	key, publicPEM, err := registrytest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	type options = registrytest.AttestOptions
	for _, tc := range []struct {
		name   string
		change func(*stage, *options)
		check  func(*cosign.CheckOpts)
		refuse string
	}{
		{name: "keyless", change: func(*stage, *options) {}},
		{
			name:   "keyless, stamped",
			change: func(s *stage, o *options) { o.Witness = registrytest.Witness{NoLog: true, Timestamp: s.sigstore} },
			check:  stamped,
		},
		{
			name:   "keyless in a bundle",
			change: func(_ *stage, o *options) { o.Bundle = true },
			check:  func(c *cosign.CheckOpts) { c.NewBundleFormat = true },
		},
		{
			name:   "key",
			change: func(_ *stage, o *options) { o.Signer = registrytest.Signer{Key: key} },
			check:  func(c *cosign.CheckOpts) { c.SigVerifier, c.IgnoreTlog = keyKind{}.verifier(t, publicPEM), true },
		},
		{
			name: "key, logged and stamped",
			change: func(s *stage, o *options) {
				o.Signer, o.Witness = registrytest.Signer{Key: key}, registrytest.Witness{Log: s.sigstore, Timestamp: s.sigstore}
			},
			check: func(c *cosign.CheckOpts) {
				c.SigVerifier, c.UseSignedTimestamps = keyKind{}.verifier(t, publicPEM), true
			},
		},
		{
			name:   "key in a bundle",
			change: func(_ *stage, o *options) { o.Signer, o.Bundle = registrytest.Signer{Key: key}, true },
			check: func(c *cosign.CheckOpts) {
				c.SigVerifier, c.Identities, c.IgnoreTlog, c.NewBundleFormat = keyKind{}.verifier(t, publicPEM), nil, true, true
			},
		},
		{
			name:   "by another key",
			change: func(_ *stage, o *options) { o.Signer = registrytest.Signer{Key: key} },
			check: func(c *cosign.CheckOpts) {
				_, otherPEM, err := registrytest.NewKey()
				if err != nil {
					t.Fatal(err)
				}
				c.SigVerifier, c.IgnoreTlog = keyKind{}.verifier(t, otherPEM), true
			},
			refuse: "accepted signatures do not match threshold",
		},
		{
			name:   "by another",
			change: func(_ *stage, o *options) { o.Signer.Certificate.Identity = "dev@example.com" },
			refuse: "none of the expected identities matched",
		},
		{
			name:   "about another image",
			change: func(_ *stage, o *options) { o.Statement.Subject = "sha256:" + strings.Repeat("a", 64) },
			refuse: "no matching subject digest found",
		},
		{
			name: "changed",
			change: func(_ *stage, o *options) {
				o.Mutate = func(s *registrytest.Signature) {
					s.Payload = bytes.Replace(s.Payload, []byte(`"sig":"ME`), []byte(`"sig":"MF`), 1)
				}
			},
			refuse: "matching bundle to payload",
		},
		{
			name:   "on another image",
			change: func(_ *stage, o *options) { o.AttachTo = "sha256:" + strings.Repeat("a", 64) },
			refuse: "no matching attestations",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, registrytest.Config{Referrers: true})
			opts := options{
				Signer:    registrytest.Signer{Keyless: s.sigstore, Certificate: ci()},
				Statement: registrytest.Statement{PredicateType: tested, Predicate: map[string]any{"passed": true}},
			}
			tc.change(s, &opts)
			s.must(s.registry.Attest(t.Context(), "golden/base", s.digest, opts))
			check := s.check(nil)
			check.ClaimVerifier = cosign.IntotoSubjectClaimVerifier
			if tc.check != nil {
				tc.check(check)
			}
			found, _, err := cosign.VerifyImageAttestations(t.Context(), s.ref(), check)
			s.want(err, tc.refuse)
			for _, attestation := range found {
				payload, err := attestation.Payload()
				s.must(err)
				if got := predicateOf(t, payload); got != tested {
					t.Errorf("got predicate %q, want %q", got, tested)
				}
			}
		})
	}
}

// predicateOf reads the type of the predicate out of an envelope.
func predicateOf(t *testing.T, envelope []byte) string {
	t.Helper()
	var outer struct{ Payload []byte }
	var inner struct {
		PredicateType string `json:"predicateType"`
	}
	if err := json.Unmarshal(envelope, &outer); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(outer.Payload, &inner); err != nil {
		t.Fatal(err)
	}
	return inner.PredicateType
}
