package registrytest_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// The trusted root says what the configuration says, of one authority or of several.
func TestTrustedRoot(t *testing.T) {
	at := signedAt()
	period := func(days int) registrytest.Validity {
		return registrytest.Validity{NotBefore: at.AddDate(0, 0, -days), NotAfter: at.AddDate(0, 0, days)}
	}
	one := newSigstore(t, registrytest.SigstoreConfig{
		Domain: "one.test", Root: period(1), CTLog: period(2), Log: period(3), TSA: period(4),
	})
	other := newSigstore(t, registrytest.SigstoreConfig{Domain: "other.test"})
	trusted := trust(t, one, other)
	for name, got := range map[string]int{
		"authorities": len(trusted.FulcioCertificateAuthorities()), "logs": len(trusted.RekorLogs()),
		"logs of certificates": len(trusted.CTLogs()), "timestamp authorities": len(trusted.TimestampingAuthorities()),
	} {
		if got != 2 {
			t.Errorf("got %d %s, want 2", got, name)
		}
	}
	type service struct {
		URL   string
		Valid registrytest.Validity
	}
	var got []service
	add := func(url string, from, until time.Time) {
		got = append(got, service{url, registrytest.Validity{NotBefore: from, NotAfter: until}})
	}
	trusted = trust(t, one)
	for _, ca := range trusted.FulcioCertificateAuthorities() {
		ca := ca.(*root.FulcioCertificateAuthority)
		add(ca.URI, ca.ValidityPeriodStart, ca.ValidityPeriodEnd)
	}
	for _, logs := range []map[string]*root.TransparencyLog{trusted.CTLogs(), trusted.RekorLogs()} {
		for _, l := range logs {
			add(l.BaseURL, l.ValidityPeriodStart, l.ValidityPeriodEnd)
		}
	}
	for _, tsa := range trusted.TimestampingAuthorities() {
		tsa := tsa.(*root.SigstoreTimestampingAuthority)
		add(tsa.URI, tsa.ValidityPeriodStart, tsa.ValidityPeriodEnd)
	}
	want := []service{
		{"https://fulcio.one.test", period(1)}, {"https://ctfe.one.test", period(2)},
		{"https://rekor.one.test", period(3)}, {"https://timestamp.one.test", period(4)},
	}
	if !cmp.Equal(got, want) {
		t.Error(cmp.Diff(got, want))
	}
}

func TestNewSigstoreReportsAllProblems(t *testing.T) {
	at := signedAt()
	backwards := registrytest.Validity{NotBefore: at, NotAfter: at.Add(-time.Second)}
	_, err := registrytest.NewSigstore(registrytest.SigstoreConfig{Intermediate: backwards, Log: backwards})
	if err == nil || !strings.Contains(err.Error(), "Intermediate ends") || !strings.Contains(err.Error(), "Log ends") {
		t.Errorf("got %v", err)
	}
}

func TestSignerIsOneOfTwo(t *testing.T) {
	s := newStage(t, registrytest.Config{})
	key, _, err := registrytest.NewKey()
	s.must(err)
	for _, signer := range []registrytest.Signer{{}, {Key: key, Keyless: s.sigstore}} {
		err := s.registry.SignBundle(t.Context(), "golden/base", s.digest, registrytest.BundleOptions{Signer: signer})
		s.want(err, "sign either with a key or keyless")
	}
}

// Everything may be signed at the same time.
func TestConcurrentSigning(t *testing.T) {
	s := newStage(t, registrytest.Config{})
	var signing sync.WaitGroup
	for range 8 {
		signing.Go(func() {
			opts := registrytest.KeylessOptions{Certificate: ci()}
			if err := s.registry.SignKeyless(t.Context(), "golden/base", s.digest, s.sigstore, opts); err != nil {
				t.Error(err)
			}
			bundle := registrytest.BundleOptions{Signer: registrytest.Signer{Keyless: s.sigstore, Certificate: ci()}}
			if err := s.registry.SignBundle(t.Context(), "golden/base", s.digest, bundle); err != nil {
				t.Error(err)
			}
		})
	}
	signing.Wait()
	for what, verify := range map[string]func() ([]oci.Signature, bool, error){
		"signatures": func() ([]oci.Signature, bool, error) {
			return cosign.VerifyImageSignatures(t.Context(), s.ref(), s.check(nil))
		},
		"bundles": func() ([]oci.Signature, bool, error) {
			return cosign.VerifyImageAttestations(t.Context(), s.ref(), s.checkBundles(nil, nil))
		},
	} {
		if found, _, err := verify(); err != nil || len(found) != 8 {
			t.Errorf("found %d %s, %v; want 8", len(found), what, err)
		}
	}
}

// What a foreign authority stamps is no timestamp of ours, nor is that of another signature.
func TestTimestamps(t *testing.T) {
	s := newStage(t, registrytest.Config{})
	var stamps [2]registrytest.Signature
	for i, by := range []*registrytest.Sigstore{s.sigstore, s.stranger} {
		opts := registrytest.KeylessOptions{Certificate: ci()}
		opts.Witness = registrytest.Witness{NoLog: true, Timestamp: by, TimestampAt: signedAt().Add(time.Minute)}
		opts.Mutate = func(layer *registrytest.Signature) { stamps[i] = *layer }
		s.must(s.registry.SignKeyless(t.Context(), "golden/base", s.digest, s.sigstore, opts))
	}
	verify := func(stamp, of registrytest.Signature) error {
		var annotation struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(stamp.Annotations[registrytest.TimestampAnnotation]), &annotation); err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(of.Base64)
		if err != nil {
			t.Fatal(err)
		}
		stamped, err := trust(t, s.sigstore).TimestampingAuthorities()[0].Verify(annotation.SignedRFC3161Timestamp, raw)
		if err == nil && !stamped.Time.Equal(signedAt().Add(time.Minute)) {
			t.Errorf("stamped at %s", stamped.Time)
		}
		return err
	}
	s.want(verify(stamps[0], stamps[0]), "")
	s.want(verify(stamps[1], stamps[1]), "does not match the provided TSA certificate")
	s.want(verify(stamps[0], stamps[1]), "hashed messages don't match")
}
