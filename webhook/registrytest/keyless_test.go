package registrytest_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/sigstore/cosign/v2/pkg/cosign"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// A keyless is what SignKeyless is given; a test begins with a good one.
type keyless struct {
	by *registrytest.Sigstore
	registrytest.KeylessOptions
}

// cosign accepts what SignKeyless writes, and refuses for the right reason whatever an option makes wrong.
func TestKeyless(t *testing.T) {
	at := signedAt()
	for _, tc := range []struct {
		name   string
		change func(*stage, *keyless)
		check  func(*cosign.CheckOpts)
		refuse string
	}{
		{name: "as cosign does", change: func(*stage, *keyless) {}},
		{
			name:   "by e-mail",
			change: func(_ *stage, k *keyless) { k.Certificate.Identity = "dev@example.com" },
			check:  func(c *cosign.CheckOpts) { c.Identities[0].Subject = "dev@example.com" },
		},
		{
			name:   "stamped",
			change: func(s *stage, k *keyless) { k.Witness = registrytest.Witness{NoLog: true, Timestamp: s.sigstore} },
			check:  stamped,
		},
		{
			name:   "logged and stamped",
			change: func(s *stage, k *keyless) { k.Witness.Timestamp = s.sigstore },
			check:  func(c *cosign.CheckOpts) { c.UseSignedTimestamps = true },
		},
		{name: "another time", change: func(_ *stage, k *keyless) { k.Witness.At = at.Add(time.Hour) }},
		{
			name:   "another identity",
			change: func(_ *stage, k *keyless) { k.Certificate.Identity = "dev@example.com" },
			refuse: "none of the expected identities matched",
		},
		{
			name:   "another issuer",
			change: func(_ *stage, k *keyless) { k.Certificate.Issuer = "https://evil.example" },
			refuse: "none of the expected identities matched",
		},
		{
			name:   "neither identity nor issuer",
			change: func(_ *stage, k *keyless) { k.Certificate = registrytest.Certificate{} },
			refuse: "none of the expected identities matched",
		},
		{
			name:   "no SCT",
			change: func(_ *stage, k *keyless) { k.Certificate.NoSCT = true },
			refuse: "does not include required embedded SCT",
		},
		{
			name:   "SCT of an unknown log",
			change: func(_ *stage, k *keyless) { k.Certificate.SCTByUnknownLog = true },
			refuse: "only able to verify 0 SCT entries",
		},
		{
			name:   "forged SCT",
			change: func(_ *stage, k *keyless) { k.Certificate.SCTByUnknownKey = true },
			refuse: "only able to verify 0 SCT entries",
		},
		{
			name: "certificate expired when signed",
			change: func(_ *stage, k *keyless) {
				k.Certificate.Valid = registrytest.Validity{NotBefore: at.Add(-time.Hour), NotAfter: at.Add(-time.Minute)}
			},
			refuse: "certificate expired before signatures were entered in log",
		},
		{
			name: "no right to sign code",
			change: func(_ *stage, k *keyless) {
				k.Certificate.Template = func(c *x509.Certificate) {
					c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
				}
			},
			refuse: "leaf certificate verification failed",
		},
		{
			name:   "authority that nobody knows",
			change: func(s *stage, k *keyless) { k.by, k.Witness.Log = s.stranger, s.sigstore },
			refuse: "leaf certificate verification failed",
		},
		{
			name:   "no log",
			change: func(_ *stage, k *keyless) { k.Witness.NoLog = true },
			refuse: "offline verification failed",
		},
		{
			name:   "log with a key that nobody knows",
			change: func(_ *stage, k *keyless) { k.Witness.LogByUnknownKey = true },
			refuse: "unable to verify SET",
		},
		{
			name:   "log that nobody knows",
			change: func(_ *stage, k *keyless) { k.Witness.UnknownLog = true },
			refuse: "rekor log public key not found",
		},
		{
			name:   "log of another",
			change: func(s *stage, k *keyless) { k.Witness.Log = s.stranger },
			refuse: "rekor log public key not found",
		},
		{
			name:   "logged too late",
			change: func(_ *stage, k *keyless) { k.Witness.LogIntegratedTime = at.Add(time.Hour) },
			refuse: "certificate expired before signatures were entered in log",
		},
		{
			name: "stamped too late",
			change: func(s *stage, k *keyless) {
				k.Witness = registrytest.Witness{NoLog: true, Timestamp: s.sigstore, TimestampAt: at.Add(time.Hour)}
			},
			check:  stamped,
			refuse: "certificate expired before signatures were entered in log",
		},
		{
			name: "payload of another",
			change: func(_ *stage, k *keyless) {
				k.Mutate = func(s *registrytest.Signature) { s.Payload = []byte("{}") }
			},
			refuse: "matching bundle to payload",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t, registrytest.Config{})
			k := keyless{by: s.sigstore, KeylessOptions: registrytest.KeylessOptions{Certificate: ci()}}
			tc.change(s, &k)
			s.must(s.registry.SignKeyless(t.Context(), "golden/base", s.digest, k.by, k.KeylessOptions))
			check := s.check(nil)
			if tc.check != nil {
				tc.check(check)
			}
			_, _, err := cosign.VerifyImageSignatures(t.Context(), s.ref(), check)
			s.want(err, tc.refuse)
		})
	}
}

// A key's signature can be logged and stamped as well.
func TestKeyWithWitnesses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		with   func(*stage) registrytest.Witness
		check  func(*cosign.CheckOpts)
		refuse string
	}{
		{name: "logged", with: func(s *stage) registrytest.Witness { return registrytest.Witness{Log: s.sigstore} }},
		{
			name: "logged and stamped",
			with: func(s *stage) registrytest.Witness {
				return registrytest.Witness{Log: s.sigstore, Timestamp: s.sigstore}
			},
			check: func(c *cosign.CheckOpts) { c.UseSignedTimestamps = true },
		},
		{
			name:   "nobody",
			with:   func(*stage) registrytest.Witness { return registrytest.Witness{} },
			refuse: "offline verification failed",
		},
		{
			name:   "another log",
			with:   func(s *stage) registrytest.Witness { return registrytest.Witness{Log: s.stranger} },
			refuse: "rekor log public key not found",
		},
	} {
		for _, kind := range keyKinds() {
			if !kind.logged {
				continue
			}
			t.Run(tc.name+" "+kind.name, func(t *testing.T) {
				s := newStage(t, registrytest.Config{})
				key, publicPEM, err := kind.make()
				s.must(err)
				opts := registrytest.SignOptions{Witness: tc.with(s), SHA256: kind.sha256}
				s.must(s.registry.Sign(t.Context(), "golden/base", s.digest, key, opts))
				check := s.check(kind.verifier(t, publicPEM))
				if tc.check != nil {
					tc.check(check)
				}
				_, _, err = cosign.VerifyImageSignatures(t.Context(), s.ref(), check)
				s.want(err, tc.refuse)
			})
		}
	}
}
