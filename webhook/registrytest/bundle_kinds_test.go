package registrytest_test

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// A bundle can be of a log of the second version, and its signature that of the manifest alone.
func TestBundlesOfOtherKinds(t *testing.T) {
	for _, tc := range []struct {
		name    string
		v2      bool
		message bool
		witness func(*registrytest.Witness)
		refuse  string
	}{
		{name: "statement"},
		{name: "message", message: true},
		{name: "statement in Rekor v2", v2: true},
		{name: "message in Rekor v2", v2: true, message: true},
		{
			name: "forged Rekor v2", v2: true,
			witness: func(w *registrytest.Witness) { w.LogByUnknownKey = true }, refuse: "failed to verify log inclusion",
		},
		{
			name: "unknown Rekor v2", v2: true,
			witness: func(w *registrytest.Witness) { w.UnknownLog = true }, refuse: "not enough verified log entries",
		},
		{
			name: "Rekor v2 without timestamp", v2: true,
			witness: func(w *registrytest.Witness) { w.Timestamp = nil },
			refuse:  "threshold not met for verified signed timestamps",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, registrytest.Config{})
			s.sigstore = newSigstore(t, registrytest.SigstoreConfig{RekorV2: tc.v2})
			var stored []byte
			opts := registrytest.BundleOptions{
				Signer:  registrytest.Signer{Keyless: s.sigstore, Certificate: ci()},
				Witness: registrytest.Witness{Timestamp: s.sigstore}, Message: tc.message,
				Mutate: func(b []byte) []byte { stored = b; return b },
			}
			if tc.witness != nil {
				tc.witness(&opts.Witness)
			}
			// Several, so that the proofs are of trees of several shapes.
			for range 5 {
				s.must(s.registry.SignBundle(t.Context(), "golden/base", s.digest, opts))
				signed := &bundle.Bundle{}
				s.must(signed.UnmarshalJSON(stored))
				digest, err := hex.DecodeString(strings.TrimPrefix(s.digest, "sha256:"))
				s.must(err)
				check := s.check(nil)
				check.UseSignedTimestamps = true
				_, err = cosign.VerifyNewBundle(t.Context(), check, verify.WithArtifactDigest("sha256", digest), signed)
				s.want(err, tc.refuse)
			}
		})
	}
}

// What was signed while the certificate that issued the signer's was not valid is not signed (CVE-2026-24122).
func TestExpiredIntermediate(t *testing.T) {
	s := newStage(t, registrytest.Config{Referrers: true})
	s.sigstore = newSigstore(t, registrytest.SigstoreConfig{
		Intermediate: registrytest.Validity{NotAfter: signedAt().Add(-time.Hour)},
	})
	const expired = "leaf certificate verification failed"
	for _, tc := range []struct {
		at     time.Time
		refuse string
	}{{signedAt(), expired}, {signedAt().Add(-2 * time.Hour), ""}} {
		witness := registrytest.Witness{At: tc.at}
		s.must(s.registry.SignBundle(t.Context(), "golden/base", s.digest, registrytest.BundleOptions{
			Signer: registrytest.Signer{Keyless: s.sigstore, Certificate: ci()}, Witness: witness,
		}))
		_, _, err := cosign.VerifyImageAttestations(t.Context(), s.ref(), s.checkBundles(nil, nil))
		s.want(err, tc.refuse)
		s.must(s.registry.SignKeyless(t.Context(), "golden/base", s.digest, s.sigstore, registrytest.KeylessOptions{
			Certificate: ci(), SignOptions: registrytest.SignOptions{Witness: witness},
		}))
		_, _, err = cosign.VerifyImageSignatures(t.Context(), s.ref(), s.check(nil))
		s.want(err, tc.refuse)
	}
}
