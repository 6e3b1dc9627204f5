package signature_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

const (
	githubIssuer  = "https://token.actions.githubusercontent.com"
	corpWorkflow  = "https://github.com/corp/images/.github/workflows/build.yml@refs/heads/main"
	corpWorkflows = `https://github\.com/corp/images/.*`
)

// A keyless world has an authority beside the keys, and a signer of its identities.
type keylessWorld struct {
	*world
	authority *registrytest.Sigstore
	signer    signature.Signer
	now       time.Time
}

func newKeylessWorld(t testing.TB, config registrytest.SigstoreConfig) *keylessWorld {
	t.Helper()
	w := &keylessWorld{world: newWorld(t, nil), now: time.Now().Truncate(time.Second)}
	config.Now = func() time.Time { return w.now }
	var err error
	w.authority, err = registrytest.NewSigstore(config)
	w.must(err)
	w.signer = signature.Signer{
		Keyless:     &signature.Identity{Issuer: githubIssuer, SubjectPattern: corpWorkflows},
		TrustedRoot: w.rootFile(w.authority),
	}
	w.trust.Now = func() time.Time { return w.now }
	return w
}

func (w *world) rootFile(first *registrytest.Sigstore, others ...*registrytest.Sigstore) string {
	w.t.Helper()
	text, err := first.TrustedRootJSON(others...)
	w.must(err)
	path := filepath.Join(w.t.TempDir(), "trusted_root.json")
	w.must(os.WriteFile(path, text, 0o600))
	return path
}

func certificate(changes ...func(*registrytest.Certificate)) registrytest.Certificate {
	c := registrytest.Certificate{Identity: corpWorkflow, Issuer: githubIssuer}
	for _, change := range changes {
		change(&c)
	}
	return c
}

// signAs signs in one of the layouts, "attached" or "bundle".
func (w *keylessWorld) signAs(layout string, c registrytest.Certificate, witness registrytest.Witness) {
	w.t.Helper()
	if layout == "attached" {
		w.must(w.registry.SignKeyless(w.t.Context(), "golden/base", w.digest, w.authority, registrytest.KeylessOptions{
			Certificate: c, SignOptions: registrytest.SignOptions{Witness: witness},
		}))
		return
	}
	w.must(w.registry.SignBundle(w.t.Context(), "golden/base", w.digest, registrytest.BundleOptions{
		Signer: registrytest.Signer{Keyless: w.authority, Certificate: c}, Witness: witness,
	}))
}

func (w *keylessWorld) verifyRelease() (webhook.Signatures, error) {
	w.t.Helper()
	w.trust.Signers["release"] = w.signer
	return w.verify("release")
}

// TestKeyless: whom an identity's signature counts for, and what is told of one that does not, in both layouts.
func TestKeyless(t *testing.T) {
	type c = registrytest.Certificate
	type w = keylessWorld
	hour := time.Hour
	tests := map[string]struct {
		config   registrytest.SigstoreConfig
		sign     func(w *w, c *c, witness *registrytest.Witness)
		trust    func(w *w, s *signature.Signer)
		rejected string // "" counts
	}{
		"as cosign signs": {},
		"an exact subject": {trust: func(_ *w, s *signature.Signer) {
			s.Keyless = &signature.Identity{Issuer: githubIssuer, Subject: corpWorkflow}
		}},
		"an e-mail address": {
			sign: func(_ *w, c *c, _ *registrytest.Witness) { c.Identity = "release@corp.example" },
			trust: func(_ *w, s *signature.Signer) {
				s.Keyless = &signature.Identity{Issuer: githubIssuer, Subject: "release@corp.example"}
			},
		},
		"long after": {sign: func(w *w, _ *c, _ *registrytest.Witness) { w.now = w.now.Add(90 * 24 * hour) }},
		"another repository's workflow (SIG-019)": {
			sign: func(_ *w, c *c, _ *registrytest.Witness) {
				c.Identity = "https://github.com/evil/images/x.yml@refs/heads/main"
			},
			rejected: `identity "https://github.com/evil/images/x.yml@...", expected https://github\.com/corp/images/.*`,
		},
		"a subject that only begins alike": {
			trust:    func(_ *w, s *signature.Signer) { s.Keyless.SubjectPattern = `https://github\.com/corp/images/\.github` },
			rejected: `identity "https://github.com/corp/images/.githu...", expected`,
		},
		"a subject that only ends alike": {
			sign:     func(_ *w, c *c, _ *registrytest.Witness) { c.Identity = "https://evil.example/?" + corpWorkflow },
			rejected: `identity "https://evil.example/?`,
		},
		"another issuer (SIG-021)": {
			sign:     func(_ *w, c *c, _ *registrytest.Witness) { c.Issuer = "https://evil.example" },
			rejected: `identity by issuer "https://evil.example", expected https://token.actions.githubuserc...`,
		},
		"no issuer": {
			sign:     func(_ *w, c *c, _ *registrytest.Witness) { c.Issuer = "" },
			rejected: `identity by issuer "", expected`,
		},
		"logged after the certificate had expired (SIG-025)": {
			sign:     func(w *w, _ *c, witness *registrytest.Witness) { witness.LogIntegratedTime = w.now.Add(hour) },
			rejected: "1 signature from outside the time of its certificate",
		},
		"logged before the certificate began": {
			sign:     func(w *w, _ *c, witness *registrytest.Witness) { witness.LogIntegratedTime = w.now.Add(-hour) },
			rejected: "1 signature from outside the time of its certificate",
		},
		"not logged (SIG-015)": {
			sign:     func(_ *w, _ *c, witness *registrytest.Witness) { witness.NoLog = true },
			rejected: "1 signature without a transparency log entry",
		},
		"logged by an unknown log": {
			sign:     func(_ *w, _ *c, witness *registrytest.Witness) { witness.UnknownLog = true },
			rejected: "1 signature whose transparency log entry does not hold",
		},
		"logged with another key (SIG-016)": {
			sign:     func(_ *w, _ *c, witness *registrytest.Witness) { witness.LogByUnknownKey = true },
			rejected: "1 signature whose transparency log entry does not hold",
		},
		"the certificate is in no log (SIG-028)": {
			sign:     func(_ *w, c *c, _ *registrytest.Witness) { c.NoSCT = true },
			rejected: "1 signature whose certificate is in no trusted certificate log",
		},
		"the certificate is in an unknown log": {
			sign:     func(_ *w, c *c, _ *registrytest.Witness) { c.SCTByUnknownLog = true },
			rejected: "1 signature whose certificate is in no trusted certificate log",
		},
		"the certificate's log is forged": {
			sign:     func(_ *w, c *c, _ *registrytest.Witness) { c.SCTByUnknownKey = true },
			rejected: "1 signature whose certificate is in no trusted certificate log",
		},
		"nobody asks for the certificate's log": {
			sign:  func(_ *w, c *c, _ *registrytest.Witness) { c.NoSCT = true },
			trust: func(_ *w, s *signature.Signer) { s.SCT = signature.Ignored },
		},
		"stamped instead of logged": {
			sign:  func(w *w, _ *c, witness *registrytest.Witness) { witness.NoLog, witness.Timestamp = true, w.authority },
			trust: func(_ *w, s *signature.Signer) { s.Log, s.Timestamp = signature.Ignored, signature.Required },
		},
		"logged or stamped, and logged": {trust: func(_ *w, s *signature.Signer) { s.Log = signature.Optional }},
		"logged or stamped, and stamped": {
			sign:  func(w *w, _ *c, witness *registrytest.Witness) { witness.NoLog, witness.Timestamp = true, w.authority },
			trust: func(_ *w, s *signature.Signer) { s.Log = signature.Optional },
		},
		"logged or stamped, and neither": {
			sign:     func(_ *w, _ *c, witness *registrytest.Witness) { witness.NoLog = true },
			trust:    func(_ *w, s *signature.Signer) { s.Log = signature.Optional },
			rejected: "1 signature without proof of its time",
		},
		"logged and stamped": {
			sign:  func(w *w, _ *c, witness *registrytest.Witness) { witness.Timestamp = w.authority },
			trust: func(_ *w, s *signature.Signer) { s.Timestamp = signature.Required },
		},
		"logged and not stamped": {
			trust:    func(_ *w, s *signature.Signer) { s.Timestamp = signature.Required },
			rejected: "1 signature without a timestamp",
		},
		"stamped by somebody else (SIG-031)": {
			sign: func(w *w, _ *c, witness *registrytest.Witness) {
				foreign, err := registrytest.NewSigstore(registrytest.SigstoreConfig{})
				w.must(err)
				witness.Timestamp = foreign
			},
			trust:    func(_ *w, s *signature.Signer) { s.Timestamp = signature.Required },
			rejected: "1 signature whose timestamp does not hold",
		},
		"stamped too late": {
			sign: func(w *w, _ *c, witness *registrytest.Witness) {
				witness.NoLog, witness.Timestamp, witness.TimestampAt = true, w.authority, w.now.Add(hour)
			},
			trust:    func(_ *w, s *signature.Signer) { s.Log, s.Timestamp = signature.Ignored, signature.Required },
			rejected: "1 signature from outside the time of its certificate",
		},
		"the authority's intermediate had expired (CVE-2026-24122)": {
			config: registrytest.SigstoreConfig{Intermediate: registrytest.Validity{NotAfter: time.Now().Add(-hour)}},
			// The certificate begins while its authority is valid, and is used after.
			sign: func(w *w, c *c, _ *registrytest.Witness) {
				c.Valid = registrytest.Validity{NotBefore: w.now.Add(-2 * hour), NotAfter: w.now.Add(2 * hour)}
			},
			rejected: "1 signature from when its certificate authority had expired or not begun",
		},
		"the authority is another one of the same name": {
			trust: func(w *w, s *signature.Signer) {
				other, err := registrytest.NewSigstore(registrytest.SigstoreConfig{})
				w.must(err)
				s.TrustedRoot = w.rootFile(other)
			},
			rejected: "1 signature by an authority that is not trusted",
		},
		"two authorities are trusted": {trust: func(w *w, s *signature.Signer) {
			other, err := registrytest.NewSigstore(registrytest.SigstoreConfig{Domain: "other.test"})
			w.must(err)
			s.TrustedRoot = w.rootFile(other, w.authority)
		}},
		"not for signing code": {
			sign: func(_ *w, c *c, _ *registrytest.Witness) {
				c.Template = func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
			},
			rejected: "1 signature from when its certificate authority had expired or not begun",
		},
	}
	for title, test := range tests {
		for _, layout := range []string{"attached", "bundle"} {
			t.Run(title+"/"+layout, func(t *testing.T) {
				w := newKeylessWorld(t, test.config)
				c, witness := certificate(), registrytest.Witness{At: w.now}
				if test.sign != nil {
					test.sign(w, &c, &witness)
				}
				if test.trust != nil {
					test.trust(w, &w.signer)
				}
				w.signAs(layout, c, witness)
				got, err := w.verifyRelease()
				if test.rejected == "" {
					w.must(err)
					if len(got.Valid) == 1 && (got.Valid[0].Identity != c.Identity || got.Valid[0].Issuer != githubIssuer || got.Valid[0].At.IsZero()) {
						t.Errorf("got %+v", got.Valid[0])
					}
					w.want(got, err, []string{"release"}, 1)
					return
				}
				w.must(err)
				if len(got.Valid) > 0 || len(got.Rejected) != 1 || !strings.HasPrefix(got.Rejected[0], test.rejected) {
					t.Errorf("got  %+v\nwant %q", got, test.rejected)
				}
			})
		}
	}
}

// TestRekorV2: entries of the log's second version have no time, so a timestamp has to prove it.
func TestRekorV2(t *testing.T) {
	for _, stamped := range []bool{true, false} {
		w := newKeylessWorld(t, registrytest.SigstoreConfig{RekorV2: true})
		witness := registrytest.Witness{At: w.now}
		if stamped {
			witness.Timestamp = w.authority
		}
		w.signAs("bundle", certificate(), witness)
		got, err := w.verifyRelease()
		if stamped {
			w.want(got, err, []string{"release"}, 1)
		} else {
			w.want(got, err, nil, 1, "1 signature without proof of its time")
		}
	}
}

// TestLongChain (SIG-027): a chain annotation is not read at all; whom a certificate is from the trusted root says.
func TestLongChain(t *testing.T) {
	w := newKeylessWorld(t, registrytest.SigstoreConfig{})
	w.signAs("attached", certificate(), registrytest.Witness{At: w.now})
	chain := strings.Repeat("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", 500)
	foreign, err := registrytest.NewSigstore(registrytest.SigstoreConfig{})
	w.must(err)
	for _, by := range []*registrytest.Sigstore{foreign, w.authority} {
		w.must(w.registry.SignKeyless(t.Context(), "golden/base", w.digest, by, registrytest.KeylessOptions{
			Certificate: certificate(),
			SignOptions: registrytest.SignOptions{Annotations: map[string]string{registrytest.ChainAnnotation: chain}},
		}))
	}
	w.must(w.registry.Delete(t.Context(), "golden/base", registrytest.SignatureTag(w.digest)))
	w.must(w.registry.SignKeyless(t.Context(), "golden/base", w.digest, foreign, registrytest.KeylessOptions{
		Certificate: certificate(),
		SignOptions: registrytest.SignOptions{Annotations: map[string]string{registrytest.ChainAnnotation: chain}},
	}))
	start := time.Now()
	got, err := w.verifyRelease()
	w.want(got, err, nil, 1, "1 signature by an authority that is not trusted")
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

const brokenProofs = "1 signature with a broken certificate, log entry or timestamp"

// TestBrokenProofs: whatever stands in the annotations, the answer is that they do not hold, and nothing panics. A key that
// asks for none of them does not look.
func TestBrokenProofs(t *testing.T) {
	for name, annotations := range map[string]map[string]string{
		"no PEM":             {registrytest.CertificateAnnotation: "certificate"},
		"other PEM":          {registrytest.CertificateAnnotation: "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"},
		"broken certificate": {registrytest.CertificateAnnotation: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"},
		"huge certificate":   {registrytest.CertificateAnnotation: strings.Repeat("x", 70<<10)},
		"log not JSON":       {registrytest.BundleAnnotation: "{"},
		"log body a number":  {registrytest.BundleAnnotation: `{"SignedEntryTimestamp":"AA==","Payload":{"body":1,"integratedTime":1,"logIndex":1,"logID":"aa"}}`},
		"log body an object": {registrytest.BundleAnnotation: `{"SignedEntryTimestamp":"AA==","Payload":{"body":{},"integratedTime":1,"logIndex":1,"logID":"aa"}}`},
		"log body null":      {registrytest.BundleAnnotation: `{"SignedEntryTimestamp":"AA==","Payload":{"body":null,"integratedTime":1,"logIndex":1,"logID":"aa"}}`},
		"log entry unheard":  {registrytest.BundleAnnotation: `{"SignedEntryTimestamp":"AA==","Payload":{"body":"eyJraW5kIjoieCJ9","integratedTime":1,"logIndex":1,"logID":"aa"}}`},
		"timestamp empty":    {registrytest.TimestampAnnotation: `{}`},
		"timestamp broken":   {registrytest.TimestampAnnotation: `{"SignedRFC3161Timestamp":"AAAA"}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newKeylessWorld(t, registrytest.SigstoreConfig{})
			w.signer.Timestamp = signature.Required
			w.must(w.registry.SignKeyless(t.Context(), "golden/base", w.digest, w.authority, registrytest.KeylessOptions{
				Certificate: certificate(),
				SignOptions: registrytest.SignOptions{Annotations: annotations, Witness: registrytest.Witness{At: w.now, Timestamp: w.authority}},
			}))
			got, err := w.verifyRelease()
			if err != nil || len(got.Valid) > 0 || len(got.Rejected) != 1 || got.Rejected[0] != brokenProofs && name != "timestamp broken" {
				t.Errorf("got %+v, %v", got, err)
			}
			w.sign(w.ci, registrytest.SignOptions{Annotations: annotations})
			if got, err := w.verify("devex-ci"); err != nil || len(got.Valid) != 1 {
				t.Errorf("with a key: %+v, %v", got, err)
			}
		})
	}
}

// TestTrustMistakes: a signer that could not be obeyed, or would trust everybody, is refused (SIG-022).
func TestTrustMistakes(t *testing.T) {
	w := newKeylessWorld(t, registrytest.SigstoreConfig{})
	_, public, err := registrytest.NewKey()
	w.must(err)
	good, rooted := signature.Identity{Issuer: githubIssuer, Subject: "x"}, w.signer.TrustedRoot
	broken := filepath.Join(t.TempDir(), "root.json")
	w.must(os.WriteFile(broken, []byte("{}"), 0o600))
	pattern := func(p string) *signature.Identity {
		return &signature.Identity{Issuer: githubIssuer, SubjectPattern: p}
	}
	for says, s := range map[string]signature.Signer{
		"has no issuer":                     {Keyless: &signature.Identity{Subject: "x"}, TrustedRoot: rooted},
		"has to be a URL":                   {Keyless: &signature.Identity{Issuer: "x", Subject: "x"}, TrustedRoot: rooted},
		"has no subject and no pattern":     {Keyless: &signature.Identity{Issuer: githubIssuer}, TrustedRoot: rooted},
		"a subject and a pattern":           {Keyless: &signature.Identity{Issuer: githubIssuer, Subject: "x", SubjectPattern: "x"}, TrustedRoot: rooted},
		"matches everybody":                 {Keyless: pattern(".*"), TrustedRoot: rooted},
		"matches everybody; write":          {Keyless: pattern(".+"), TrustedRoot: rooted},
		"matches everybody; write what":     {Keyless: pattern("(a|)*"), TrustedRoot: rooted},
		"does not compile":                  {Keyless: pattern("("), TrustedRoot: rooted},
		"flags for several lines":           {Keyless: pattern("(?m)^a$"), TrustedRoot: rooted},
		"needs a trusted root":              {Keyless: &good},
		"more than one of":                  {Keyless: &good, KeyPEM: public, TrustedRoot: rooted},
		"no such file":                      {Keyless: &good, TrustedRoot: "/does/not/exist.json"},
		"not in the format":                 {Keyless: &good, TrustedRoot: broken},
		"do not ignore both":                {Keyless: &good, TrustedRoot: rooted, Log: signature.Ignored, Timestamp: signature.Ignored},
		"only against a trusted root":       {KeyPEM: public, Log: signature.Required},
		"want required, optional":           {KeyPEM: public, TrustedRoot: rooted, Log: "yes"},
		"SCT: want required or ignored":     {Keyless: &good, TrustedRoot: rooted, SCT: signature.Optional},
		"is for keys":                       {Keyless: &good, TrustedRoot: rooted, NotAfter: time.Now()},
		"ends to be valid before it begins": {KeyPEM: public, NotBefore: time.Now(), NotAfter: time.Now().Add(-time.Hour)},
	} {
		_, err := signature.NewTrust(t.Context(), signature.TrustConfig{Signers: map[string]signature.Signer{"s": s}, Now: time.Now})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v", says, err)
		}
	}
}

// TestTrustHash: proofs are kept under it, so it changes with whatever decides whether a signature counts (SIG-048).
func TestTrustHash(t *testing.T) {
	w := newKeylessWorld(t, registrytest.SigstoreConfig{})
	other := newKeylessWorld(t, registrytest.SigstoreConfig{})
	_, public, err := registrytest.NewKey()
	w.must(err)
	seen := map[string]int{}
	for i, s := range []signature.Signer{
		{KeyPEM: w.trust.Signers["devex-ci"].KeyPEM}, {KeyPEM: public}, {KeyPEM: public, NotAfter: w.now},
		{KeyPEM: public, TrustedRoot: w.signer.TrustedRoot}, {KeyPEM: public, TrustedRoot: w.signer.TrustedRoot, Log: signature.Required},
		w.signer, other.signer, {Keyless: w.signer.Keyless, TrustedRoot: w.signer.TrustedRoot, SCT: signature.Ignored},
		{Keyless: &signature.Identity{Issuer: githubIssuer, Subject: "x"}, TrustedRoot: w.signer.TrustedRoot},
	} {
		trust, err := signature.NewTrust(t.Context(), signature.TrustConfig{Signers: map[string]signature.Signer{"s": s}, Now: time.Now})
		w.must(err)
		hash := trust.Hash()
		if was, known := seen[hash]; known {
			t.Errorf("signers %d and %d have the same hash", was, i)
		}
		seen[hash] = i
		if trust.Hash() != hash {
			t.Error("the hash changes by itself")
		}
	}
}
