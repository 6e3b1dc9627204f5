package signature_test

import (
	"context"
	"crypto/ecdh"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

// publicPEM encodes a public key of any kind.
func publicPEM(t *testing.T, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// block is a PEM block with nothing in it.
func block(kind string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte{0, 0, 0}}))
}

func TestNewReportsEveryProblem(t *testing.T) {
	_, public, err := registrytest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	_, p224, err := registrytest.NewECDSAKey(elliptic.P224())
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa1024 := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	_, limitErr := signature.New(signature.Config{Limits: signature.Limits{Signatures: 10, SignatureBytes: 10}})
	_, err = signature.NewTrust(t.Context(), signature.TrustConfig{
		Now: time.Now,
		Signers: map[string]signature.Signer{
			"none":        {},
			"both":        {KeyPEM: public, KeyFile: "x"},
			"no file":     {KeyFile: "/does/not/exist/cosign.pub"},
			"no pem":      {KeyPEM: "s3cr3t"},
			"two":         {KeyPEM: public + public},
			"more":        {KeyPEM: public + "s3cr3t"},
			"broken":      {KeyPEM: block("PUBLIC KEY")},
			"broken rsa":  {KeyPEM: block("RSA PUBLIC KEY")},
			"other pem":   {KeyPEM: block("OPENSSH WHATEVER")},
			"private":     {KeyPEM: block("PRIVATE KEY")},
			"encrypted":   {KeyPEM: block("ENCRYPTED SIGSTORE PRIVATE KEY")},
			"certificate": {KeyPEM: block("CERTIFICATE")},
			"rsa":         {KeyPEM: publicPEM(t, rsa1024)},
			"curve":       {KeyPEM: p224},
			"x25519":      {KeyPEM: publicPEM(t, x25519.PublicKey())},
			"fine":        {KeyPEM: "\n" + public + "\n"},
		},
	})
	err = errors.Join(limitErr, err)
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		"Fetch or Trust is missing",
		"signatureBytes leaves nothing for each",
		`signer "none": it has no key`,
		`signer "both": it has more than one of a key, a key file, a KMS key and an identity`,
		`signer "no file": key file: open /does/not/exist/cosign.pub`,
		`signer "no pem": the key is not in PEM`,
		`signer "two": there is more than one key`,
		`signer "more": there is more than one key`,
		`signer "broken": the public key cannot be read`,
		`signer "broken rsa": the RSA public key cannot be read`,
		`signer "other pem": this is no public key`,
		`signer "private": this is a private key; give the public one`,
		`signer "encrypted": this is a private key`,
		`signer "certificate": this is a certificate`,
		`signer "rsa": an RSA key of 1024 bits is too weak; use 2048 or more`,
		`signer "curve": this ECDSA curve is not supported; use P-256`,
		`signer "x25519": this kind of key is not supported`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q", want)
		}
	}
	if strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), `"fine"`) {
		t.Error("the error says too much")
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestKeyFile(t *testing.T) {
	w := newWorld(t, nil)
	path := filepath.Join(t.TempDir(), "cosign.pub")
	w.must(os.WriteFile(path, []byte(w.trust.Signers["devex-ci"].KeyPEM), 0o600))
	w.trust.Signers["devex-ci"] = signature.Signer{KeyFile: path}
	w.sign(w.ci, registrytest.SignOptions{})
	got, err := w.verify()
	w.want(got, err, []string{"devex-ci"}, 1)
}

func TestWrongCalls(t *testing.T) {
	w := newWorld(t, nil)
	if _, err := w.verify("devex-ci", "unheard-of"); err == nil || !strings.Contains(err.Error(), `there is no signer "unheard-of"`) {
		t.Errorf("got %v", err)
	}
	w.ref = w.parse("golden/base:v1")
	if _, err := w.verify(); err == nil || !strings.Contains(err.Error(), "has no digest to verify") {
		t.Errorf("got %v", err)
	}
	if n := len(w.registry.Requests()); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
}

// The budgets of the manifest and of the payloads are apart and add up to the limit.
func TestBudgets(t *testing.T) {
	w := newWorld(t, nil)
	w.sign(w.ci, registrytest.SignOptions{})
	recorded := &recordingFetcher{Fetcher: w.client}
	w.config.Fetch = recorded
	w.config.Limits = signature.Limits{Signatures: 10, SignatureBytes: 40 << 10}
	got, err := w.verify()
	w.want(got, err, []string{"devex-ci"}, 1)
	if recorded.manifest != 20<<10 || recorded.blob != 2<<10 {
		t.Errorf("got %d for the manifest and %d for a payload, want 20 and 2 KiB", recorded.manifest, recorded.blob)
	}
}

type recordingFetcher struct {
	signature.Fetcher
	manifest, blob int64
}

func (f *recordingFetcher) Manifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error) {
	f.manifest = maxBytes
	return f.Fetcher.Manifest(ctx, ref, maxBytes)
}

func (f *recordingFetcher) Blob(ctx context.Context, ref webhook.Reference, digest string, maxBytes int64) ([]byte, error) {
	f.blob = maxBytes
	return f.Fetcher.Blob(ctx, ref, digest, maxBytes)
}
