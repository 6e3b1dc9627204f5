package registrytest_test

import (
	"crypto"
	"crypto/elliptic"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	sigoptions "github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const (
	identity = "https://github.com/example/base/.github/workflows/build.yaml@refs/heads/main"
	issuer   = "https://token.actions.githubusercontent.com"
)

// signedAt is long before the tests run, so that nothing is valid by the present time alone.
func signedAt() time.Time { return time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC) }

func ci() registrytest.Certificate {
	return registrytest.Certificate{Identity: identity, Issuer: issuer}
}

// A stage is a registry with an image, an authority that is trusted, and one of the same names that is not.
type stage struct {
	t        *testing.T
	registry *registrytest.Registry
	digest   string
	sigstore *registrytest.Sigstore
	stranger *registrytest.Sigstore
}

func newStage(t *testing.T, config registrytest.Config) *stage {
	t.Helper()
	s := &stage{t: t, registry: serve(t, config)}
	s.digest = push(t, s.registry, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	s.sigstore = newSigstore(t, registrytest.SigstoreConfig{})
	s.stranger = newSigstore(t, registrytest.SigstoreConfig{})
	return s
}

func newSigstore(t *testing.T, config registrytest.SigstoreConfig) *registrytest.Sigstore {
	t.Helper()
	config.Now = signedAt
	s, err := registrytest.NewSigstore(config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func trust(t *testing.T, sigstores ...*registrytest.Sigstore) *root.TrustedRoot {
	t.Helper()
	encoded, err := sigstores[0].TrustedRootJSON(sigstores[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := root.NewTrustedRootFromJSON(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return trusted
}

// check is what a careful admin has cosign check: with a key when there is one, else the identity.
func (s *stage) check(key signature.Verifier) *cosign.CheckOpts {
	s.t.Helper()
	check := &cosign.CheckOpts{
		SigVerifier: key, ClaimVerifier: cosign.SimpleClaimVerifier, Offline: true,
		TrustedMaterial:    trust(s.t, s.sigstore),
		RegistryClientOpts: []ociremote.Option{ociremote.WithRemoteOptions(options(s.t, s.registry)...)},
	}
	if key == nil {
		check.Identities = []cosign.Identity{{Issuer: issuer, Subject: identity}}
	}
	return check
}

func (s *stage) ref() name.Reference {
	s.t.Helper()
	ref, err := name.ParseReference(s.registry.Host() + "/golden/base@" + s.digest)
	if err != nil {
		s.t.Fatal(err)
	}
	return ref
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// want compares a verdict: nil when no problem is wanted, else one that says the problem.
func (s *stage) want(err error, problem string) {
	s.t.Helper()
	switch {
	case problem == "" && err != nil:
		s.t.Errorf("refused: %v", err)
	case problem != "" && err == nil:
		s.t.Errorf("accepted, want %q", problem)
	case problem != "" && !strings.Contains(err.Error(), problem):
		s.t.Errorf("refused for another reason: %v\nwant %q", err, problem)
	}
}

// A keyKind is a kind of key and how it signs. cosign reads only those entries of Rekor that hash with SHA-256, and
// Rekor takes envelopes only of keys that hash with SHA-256 or not at all.
type keyKind struct {
	name              string
	make              func() (crypto.Signer, string, error)
	sha256            bool
	logged, enveloped bool // cosign can verify what is logged of it, alone or in an envelope
}

func keyKinds() []keyKind {
	rsa := func() (crypto.Signer, string, error) { return registrytest.NewRSAKey(2048) }
	p384 := func() (crypto.Signer, string, error) { return registrytest.NewECDSAKey(elliptic.P384()) }
	return []keyKind{
		{name: "ECDSA", make: registrytest.NewKey, logged: true, enveloped: true},
		{name: "RSA", make: rsa, logged: true, enveloped: true},
		{name: "P-384", make: p384},
		{name: "P-384 with SHA-256", make: p384, sha256: true, logged: true, enveloped: true},
		{name: "Ed25519ph", make: registrytest.NewEd25519Key},
		{name: "Ed25519", make: registrytest.NewEd25519Key, sha256: true, enveloped: true},
	}
}

func (k keyKind) verifier(t *testing.T, publicPEM string) signature.Verifier {
	t.Helper()
	public, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(publicPEM))
	if err != nil {
		t.Fatal(err)
	}
	load := func() (signature.Verifier, error) {
		return signature.LoadDefaultVerifier(public, sigoptions.WithED25519ph())
	}
	if k.sha256 {
		load = func() (signature.Verifier, error) { return signature.LoadVerifier(public, crypto.SHA256) }
	}
	loaded, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}
