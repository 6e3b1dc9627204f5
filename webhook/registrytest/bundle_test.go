package registrytest_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// cosign finds what SignBundle writes, over the referrers API and in the list that clients keep; it accepts
// what is good, and refuses for the right reason whatever an option makes wrong.
func TestBundles(t *testing.T) {
	at := signedAt()
	type options = registrytest.BundleOptions
	for _, tc := range []struct {
		name   string
		change func(*stage, *options)
		check  func(*cosign.CheckOpts)
		refuse string
	}{
		{name: "as cosign does", change: func(*stage, *options) {}},
		{
			name:   "stamped",
			change: func(s *stage, o *options) { o.Witness = registrytest.Witness{NoLog: true, Timestamp: s.sigstore} },
			check:  stamped,
		},
		{
			name:   "logged and stamped",
			change: func(s *stage, o *options) { o.Witness.Timestamp = s.sigstore },
			check:  func(c *cosign.CheckOpts) { c.UseSignedTimestamps = true },
		},
		{
			name: "another statement, which cosign lets pass",
			change: func(_ *stage, o *options) {
				o.Statement.PredicateType, o.Statement.Predicate = "https://example.com/tested/v1", map[string]any{"passed": true}
			},
		},
		{
			name:   "another type of artifact, which it finds by the layer",
			change: func(_ *stage, o *options) { o.ArtifactType = "text/plain" },
		},
		{
			name:   "another media type",
			change: func(_ *stage, o *options) { o.MediaType = "text/plain" },
			refuse: "no valid bundles exist",
		},
		{
			name:   "on another image",
			change: func(_ *stage, o *options) { o.AttachTo = "sha256:" + strings.Repeat("a", 64) },
			refuse: "no valid bundles exist",
		},
		{
			name:   "without inclusion proof",
			change: func(_ *stage, o *options) { o.Witness.NoProof = true },
			refuse: "no valid bundles exist",
		},
		{
			name:   "without inclusion promise",
			change: func(_ *stage, o *options) { o.Witness.NoPromise = true },
			refuse: "threshold not met for verified log entry integrated timestamps",
		},
		{
			name: "no subject",
			change: func(_ *stage, o *options) {
				o.Statement.Raw = []byte(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"x"}`)
			},
			refuse: "does not match digests in statement",
		},
		{
			name:   "another subject",
			change: func(_ *stage, o *options) { o.Statement.Subject = "sha256:" + strings.Repeat("a", 64) },
			refuse: "does not match any digest in statement",
		},
		{
			name:   "another payload type",
			change: func(_ *stage, o *options) { o.Statement.PayloadType = "text/plain" },
			refuse: "unsupported DSSE payload type",
		},
		{
			name: "changed",
			change: func(_ *stage, o *options) {
				o.Mutate = func(b []byte) []byte { return bytes.Replace(b, []byte(`"sig":"ME`), []byte(`"sig":"MF`), 1) }
			},
			refuse: "transparency log signature does not match",
		},
		{
			name:   "a message, which cosign does not look for",
			change: func(_ *stage, o *options) { o.Message = true },
			refuse: "does not contain a DSSE envelope",
		},
		{
			name:   "another identity",
			change: func(_ *stage, o *options) { o.Signer.Certificate.Identity = "dev@example.com" },
			refuse: "no matching CertificateIdentity found",
		},
		{
			name:   "no SCT",
			change: func(_ *stage, o *options) { o.Signer.Certificate.NoSCT = true },
			refuse: "only able to verify 0 SCT entries",
		},
		{
			name:   "SCT of an unknown log",
			change: func(_ *stage, o *options) { o.Signer.Certificate.SCTByUnknownLog = true },
			refuse: "only able to verify 0 SCT entries",
		},
		{
			name:   "forged SCT",
			change: func(_ *stage, o *options) { o.Signer.Certificate.SCTByUnknownKey = true },
			refuse: "only able to verify 0 SCT entries",
		},
		{
			name:   "authority that nobody knows",
			change: func(s *stage, o *options) { o.Signer.Keyless, o.Witness.Log = s.stranger, s.sigstore },
			refuse: "leaf certificate verification failed",
		},
		{
			name:   "no log",
			change: func(_ *stage, o *options) { o.Witness.NoLog = true },
			refuse: "not enough verified log entries",
		},
		{
			name:   "log with a key that nobody knows",
			change: func(_ *stage, o *options) { o.Witness.LogByUnknownKey = true },
			refuse: "not enough verified log entries",
		},
		{
			name:   "log that nobody knows",
			change: func(_ *stage, o *options) { o.Witness.UnknownLog = true },
			refuse: "not enough verified log entries",
		},
		{
			name:   "log of another",
			change: func(s *stage, o *options) { o.Witness.Log = s.stranger },
			refuse: "not enough verified log entries",
		},
		{
			name:   "logged too late",
			change: func(_ *stage, o *options) { o.Witness.LogIntegratedTime = at.Add(time.Hour) },
			refuse: "integrated time outside certificate validity",
		},
		{
			name:   "stamped by another",
			change: func(s *stage, o *options) { o.Witness = registrytest.Witness{NoLog: true, Timestamp: s.stranger} },
			check:  stamped,
			refuse: "does not match the provided TSA certificate",
		},
		{
			name: "stamped too late",
			change: func(s *stage, o *options) {
				o.Witness = registrytest.Witness{NoLog: true, Timestamp: s.sigstore, TimestampAt: at.Add(time.Hour)}
			},
			check:  stamped,
			refuse: "leaf certificate verification failed",
		},
	} {
		for how, api := range map[string]bool{"API": true, "list": false} {
			t.Run(tc.name+" "+how, func(t *testing.T) {
				s := newStage(t, registrytest.Config{Referrers: api})
				opts := options{Signer: registrytest.Signer{Keyless: s.sigstore, Certificate: ci()}}
				tc.change(s, &opts)
				s.must(s.registry.SignBundle(t.Context(), "golden/base", s.digest, opts))
				_, _, err := cosign.VerifyImageAttestations(t.Context(), s.ref(), s.checkBundles(nil, tc.check))
				s.want(err, tc.refuse)
			})
		}
	}
}

func stamped(c *cosign.CheckOpts) { c.IgnoreTlog, c.UseSignedTimestamps = true, true }

func (s *stage) checkBundles(key signature.Verifier, change func(*cosign.CheckOpts)) *cosign.CheckOpts {
	s.t.Helper()
	check := s.check(key)
	check.ClaimVerifier, check.NewBundleFormat = cosign.IntotoSubjectClaimVerifier, true
	if change != nil {
		change(check)
	}
	return check
}

// Keys of all kinds sign bundles, with and without witnesses.
func TestBundlesByKey(t *testing.T) {
	for _, tc := range []struct {
		name   string
		with   func(*stage) registrytest.Witness
		check  func(*cosign.CheckOpts)
		refuse string
	}{
		{
			name:  "alone",
			with:  func(*stage) registrytest.Witness { return registrytest.Witness{} },
			check: func(c *cosign.CheckOpts) { c.IgnoreTlog = true },
		},
		{name: "logged", with: func(s *stage) registrytest.Witness { return registrytest.Witness{Log: s.sigstore} }},
		{
			name: "logged and stamped",
			with: func(s *stage) registrytest.Witness {
				return registrytest.Witness{Log: s.sigstore, Timestamp: s.sigstore}
			},
			check: func(c *cosign.CheckOpts) { c.UseSignedTimestamps = true },
		},
		{
			name:   "not logged",
			with:   func(*stage) registrytest.Witness { return registrytest.Witness{} },
			refuse: "not enough verified log entries",
		},
	} {
		for _, kind := range keyKinds() {
			if !kind.enveloped && tc.name != "alone" {
				continue
			}
			t.Run(tc.name+" "+kind.name, func(t *testing.T) {
				s := newStage(t, registrytest.Config{Referrers: true})
				key, publicPEM, err := kind.make()
				s.must(err)
				s.must(s.registry.SignBundle(t.Context(), "golden/base", s.digest, registrytest.BundleOptions{
					Signer: registrytest.Signer{Key: key, SHA256: kind.sha256}, Witness: tc.with(s),
				}))
				check := s.checkBundles(kind.verifier(t, publicPEM), tc.check)
				_, _, err = cosign.VerifyImageAttestations(t.Context(), s.ref(), check)
				s.want(err, tc.refuse)
				_, otherPEM, err := kind.make()
				s.must(err)
				check = s.checkBundles(kind.verifier(t, otherPEM), tc.check)
				if _, _, err = cosign.VerifyImageAttestations(t.Context(), s.ref(), check); err == nil {
					t.Error("another key is accepted")
				}
			})
		}
	}
}
