package signature_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

func TestKinds(t *testing.T) {
	type newKey = func() (crypto.Signer, string, error)
	ecdsa := func(curve elliptic.Curve) newKey {
		return func() (crypto.Signer, string, error) { return registrytest.NewECDSAKey(curve) }
	}
	rsa := func(bits int) newKey {
		return func() (crypto.Signer, string, error) { return registrytest.NewRSAKey(bits) }
	}
	for name, make := range map[string]newKey{
		"P-256": ecdsa(elliptic.P256()), "P-384": ecdsa(elliptic.P384()), "P-521": ecdsa(elliptic.P521()),
		"RSA 2048": rsa(2048), "RSA 3072": rsa(3072), "Ed25519": registrytest.NewEd25519Key,
	} {
		for _, sha256 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, earlier cosign %v", name, sha256), func(t *testing.T) {
				w := newWorld(t, nil)
				key, public, err := make()
				w.must(err)
				w.trust.Signers["other"] = signature.Signer{KeyPEM: public}
				w.sign(key, registrytest.SignOptions{SHA256: sha256})
				got, err := w.verify("other")
				w.want(got, err, []string{"other"}, 1)
				got, err = w.verify("devex-ci")
				w.want(got, err, nil, 1, "1 signature by other")
			})
		}
	}
}

// A signed image that nobody has asked for yet costs four requests: manifest, config, signature manifest, payload.
func TestColdImageIsFourRequests(t *testing.T) {
	w := newWorld(t, nil)
	w.sign(w.ci, registrytest.SignOptions{})
	content, err := w.client.ReadImage(t.Context(), w.parse("golden/base:v1"), webhook.WithConfig)
	w.must(err)
	if content.Digest != w.digest || content.Platforms[0].User != "1000" {
		t.Errorf("got %+v", content)
	}
	got, err := w.verify()
	w.want(got, err, []string{"devex-ci"}, 1)
	if requests := w.registry.Requests(); len(requests) != 4 {
		t.Errorf("got %d requests, want 4: %v", len(requests), requests)
	}
}

func TestUnsigned(t *testing.T) {
	w := newWorld(t, nil)
	got, err := w.verify()
	w.want(got, err, nil, 0)
	// The tag, the referrers API, which this registry does not have, and the tag that stands in for it.
	if requests := w.registry.Requests(); len(requests) != 3 {
		t.Errorf("got requests %v, want three", requests)
	}
}

func TestWhoSigned(t *testing.T) {
	tests := []struct {
		name     string
		keys     func(*world) []crypto.Signer
		asked    []string
		valid    []string
		found    int
		rejected []string
	}{
		{"both, both asked", func(w *world) []crypto.Signer { return []crypto.Signer{w.release, w.ci} }, []string{"release", "devex-ci", "release"}, []string{"devex-ci", "release"}, 2, nil},
		{"both, one asked", func(w *world) []crypto.Signer { return []crypto.Signer{w.release, w.ci} }, []string{"release"}, []string{"release"}, 2, nil},
		{"one, both asked", func(w *world) []crypto.Signer { return []crypto.Signer{w.ci} }, []string{"devex-ci", "release"}, []string{"devex-ci"}, 1, nil},
		{"the other one", func(w *world) []crypto.Signer { return []crypto.Signer{w.release, w.stranger} }, []string{"devex-ci"}, nil, 2, []string{"1 signature by release", "1 signature by an unknown key"}},
		{"twice", func(w *world) []crypto.Signer { return []crypto.Signer{w.ci, w.ci} }, []string{"devex-ci", "release"}, []string{"devex-ci"}, 2, nil},
		{"strangers", func(w *world) []crypto.Signer { return []crypto.Signer{w.stranger, w.stranger} }, []string{"devex-ci"}, nil, 2, []string{"2 signatures by an unknown key"}},
		{"nobody asked", func(w *world) []crypto.Signer { return []crypto.Signer{w.ci} }, []string{}, nil, 1, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, nil)
			for _, key := range test.keys(w) {
				w.sign(key, registrytest.SignOptions{})
			}
			got, err := w.verify(test.asked...)
			w.want(got, err, test.valid, test.found, test.rejected...)
			// All of them signed the same payload. Bundles are looked for only when somebody is missing.
			most := 2
			if len(test.valid) < len(test.asked) || len(test.asked) == 0 {
				most += 2
			}
			if n := len(w.registry.Requests()); n > most {
				t.Errorf("got %d requests, want at most %d", n, most)
			}
		})
	}
}

// A signature of one image is attached to another one, in the same repository and from elsewhere.
func TestReplay(t *testing.T) {
	w := newWorld(t, nil)
	signed, err := w.registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/base", Tag: "v0"})
	w.must(err)
	w.must(w.registry.Sign(t.Context(), "golden/base", signed, w.ci, registrytest.SignOptions{AttachTo: w.digest}))
	got, err := w.verify()
	w.want(got, err, nil, 1, "right key, other digest")

	same, err := w.registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/copy", Tag: "v1", User: "1000", Layers: []string{"golden/base:v1 linux/amd64"}})
	w.must(err)
	if same != w.digest {
		t.Fatalf("the copy has the digest %s, want %s", same, w.digest)
	}
	w.sign(w.ci, registrytest.SignOptions{})
	manifest, err := w.registry.Manifest(t.Context(), "golden/base", registrytest.SignatureTag(w.digest))
	w.must(err)
	_, err = w.registry.PushManifest(t.Context(), "golden/copy", registrytest.SignatureTag(w.digest), manifest)
	w.must(err)
	w.ref = w.parse("golden/copy@" + w.digest)
	got, err = w.verify()
	w.want(got, err, nil, 2, "right key, other digest", fmt.Sprintf("right key, other repository %q", w.registry.Host()+"/golden/base"))
}

func TestIndexAndItsPlatforms(t *testing.T) {
	w := newWorld(t, nil)
	var err error
	w.digest, err = w.registry.PushIndex(t.Context(), "golden/base", "v2", registrytest.Image{}, registrytest.Image{Arch: "arm64"})
	w.must(err)
	w.ref = w.parse("golden/base@" + w.digest)
	w.sign(w.ci, registrytest.SignOptions{})
	got, err := w.verify()
	w.want(got, err, []string{"devex-ci"}, 1)
	content, err := w.client.ReadImage(t.Context(), w.ref, webhook.WithConfig)
	w.must(err)
	w.ref = w.ref.WithDigest(content.Platforms[0].Digest)
	got, err = w.verify()
	w.want(got, err, nil, 0)
}

// Annotations on which cosign's own parsers panic, or that make it look for a log, are not looked at.
func TestOtherAnnotations(t *testing.T) {
	for name, annotations := range map[string]map[string]string{
		"Rekor body is a number":  {"dev.sigstore.cosign/bundle": `{"SignedEntryTimestamp":"AA==","Payload":{"body":1,"integratedTime":1,"logIndex":1,"logID":"00"}}`},
		"Rekor body is an object": {"dev.sigstore.cosign/bundle": `{"SignedEntryTimestamp":"AA==","Payload":{"body":{},"integratedTime":-1}}`},
		"bundle is garbage":       {"dev.sigstore.cosign/bundle": "}{"},
		"certificate is garbage":  {"dev.sigstore.cosign/certificate": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "dev.sigstore.cosign/chain": "x"},
		"timestamp is garbage":    {"dev.sigstore.cosign/rfc3161timestamp": `{"SignedRFC3161Timestamp":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.sign(w.ci, registrytest.SignOptions{Annotations: annotations})
			got, err := w.verify()
			w.want(got, err, []string{"devex-ci"}, 1)
		})
	}
}

func garbage(n int) []registrytest.Signature {
	all := make([]registrytest.Signature, n)
	for i := range all {
		all[i] = registrytest.Signature{
			Payload: fmt.Appendf(nil, "payload %d", i),
			Base64:  base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "signature %d", i)),
		}
	}
	return all
}

func TestOneGoodAmongGarbage(t *testing.T) {
	for _, before := range []int{0, 50, 99} {
		t.Run(fmt.Sprint(before, " before"), func(t *testing.T) {
			w := newWorld(t, nil)
			w.attach(garbage(before)...)
			w.sign(w.ci, registrytest.SignOptions{})
			w.attach(garbage(99)[before:]...)
			start := time.Now()
			got, err := w.verify()
			w.want(got, err, []string{"devex-ci"}, 100)
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	w := newWorld(t, nil)
	w.attach(garbage(99)...)
	got, err := w.verify()
	w.want(got, err, nil, 99, "99 signatures by an unknown key")
}

func TestTooManySignatures(t *testing.T) {
	for _, n := range []int{101, 1001} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, nil)
			w.attach(garbage(n - 1)...)
			w.sign(w.ci, registrytest.SignOptions{})
			start := time.Now()
			_, err := w.verify()
			w.wantReadError(err, webhook.Invalid, "has more than 100 signatures for golden/base@"+w.digest[:19])
			if took := time.Since(start); took > time.Second {
				t.Errorf("it took %v", took)
			}
			if requests := w.registry.Requests(); len(requests) != 3 {
				t.Errorf("got %d requests, want the list and two for bundles", len(requests))
			}
		})
	}
}

func TestGivenUp(t *testing.T) {
	entered := make(chan struct{}, 1)
	w := newWorld(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				entered <- struct{}{}
				<-r.Context().Done()
				panic(http.ErrAbortHandler) // to return would be to answer
			}
			next.ServeHTTP(w, r)
		})
	})
	w.sign(w.ci, registrytest.SignOptions{})
	v := w.verifier()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := v.Verify(ctx, w.ref, w.allOf([]string{"devex-ci"})); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the error of the context", err)
	}
}

func TestHang(t *testing.T) {
	w := newWorld(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				<-r.Context().Done()
				panic(http.ErrAbortHandler) // to return would be to answer
			}
			next.ServeHTTP(w, r)
		})
	})
	w.sign(w.ci, registrytest.SignOptions{})
	client, err := registry.New(registry.Config{
		Hosts:  []registry.Host{{Host: w.registry.Host(), CAPEM: w.registry.CAPEM()}},
		Limits: registry.Limits{Timeout: 100 * time.Millisecond},
	})
	w.must(err)
	defer client.Close()
	w.config.Fetch = client
	_, err = w.verify()
	w.wantReadError(err, webhook.Unavailable, "did not answer within 100ms")
}
