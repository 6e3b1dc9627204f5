package registrytest_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

func serve(t *testing.T, config registrytest.Config) *registrytest.Registry {
	t.Helper()
	r, err := registrytest.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// options are those of other people's clients.
func options(t *testing.T, r *registrytest.Registry) []remote.Option {
	t.Helper()
	transport := &http.Transport{}
	if r.CAPEM() != nil {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(r.CAPEM())
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	t.Cleanup(transport.CloseIdleConnections)
	return []remote.Option{remote.WithTransport(transport), remote.WithContext(t.Context())}
}

func push(t *testing.T, r *registrytest.Registry, image registrytest.Image) string {
	t.Helper()
	digest, err := r.PushImage(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// What is pushed is a whole image to another implementation, which checks every digest and size.
func TestImagesAreWhole(t *testing.T) {
	for _, config := range []registrytest.Config{{}, {PlainHTTP: true}} {
		for _, docker := range []bool{false, true} {
			r := serve(t, config)
			digest := push(t, r, registrytest.Image{
				Repository: "golden/base", Tag: "v1", User: "1000", Labels: map[string]string{"a": "b"}, Layers: []string{"one", "two"}, Docker: docker,
			})
			ref, err := name.ParseReference(r.Host() + "/golden/base:v1")
			if err != nil {
				t.Fatal(err)
			}
			image, err := remote.Image(ref, options(t, r)...)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(image); err != nil {
				t.Error(err)
			}
			if got, err := image.Digest(); err != nil || got.String() != digest {
				t.Errorf("got %v, %v; want %s", got, err, digest)
			}
			file, err := image.ConfigFile()
			if err != nil || file.Config.User != "1000" || len(file.RootFS.DiffIDs) != 2 {
				t.Errorf("got %+v, %v", file, err)
			}
		}
	}
}

func TestIndexIsWhole(t *testing.T) {
	r := serve(t, registrytest.Config{})
	digest, err := r.PushIndex(t.Context(), "golden/base", "v1", registrytest.Image{}, registrytest.Image{Arch: "arm64", Variant: "v8"})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(r.Host() + "/golden/base:v1")
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref, options(t, r)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	if got, err := index.Digest(); err != nil || got.String() != digest {
		t.Errorf("got %v, %v; want %s", got, err, digest)
	}
}

func TestDigestsDependOnContentAlone(t *testing.T) {
	base := registrytest.Image{Repository: "golden/base", Tag: "v1"}
	first := push(t, serve(t, registrytest.Config{}), base)
	r := serve(t, registrytest.Config{})
	if again := push(t, r, base); again != first {
		t.Errorf("got %s and %s for the same image", first, again)
	}
	seen := map[string]string{first: "the first"}
	for what, image := range map[string]registrytest.Image{
		"tag": {Repository: "golden/base", Tag: "v2"}, "user": {Repository: "golden/base", Tag: "v1", User: "1"},
		"label": {Repository: "golden/base", Tag: "v1", Labels: map[string]string{"a": "b"}},
		"layer": {Repository: "golden/base", Tag: "v1", Layers: []string{"x"}}, "repository": {Repository: "golden/other", Tag: "v1"},
	} {
		digest := push(t, r, image)
		if other, twice := seen[digest]; twice {
			t.Errorf("another %s has the digest of %s", what, other)
		}
		seen[digest] = what
	}
}

// cosign itself accepts what Sign writes, and nothing else.
func TestCosignAcceptsSignatures(t *testing.T) {
	for kind, newKey := range map[string]func() (crypto.Signer, string, error){
		"ECDSA": registrytest.NewKey, "RSA": func() (crypto.Signer, string, error) { return registrytest.NewRSAKey(2048) },
	} {
		t.Run(kind, func(t *testing.T) {
			r := serve(t, registrytest.Config{})
			digest := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
			key, publicPEM, err := newKey()
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := r.Sign(t.Context(), "golden/base", digest, key, registrytest.SignOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if got := cosignVerify(t, r, digest, publicPEM); got != 2 {
				t.Errorf("cosign found %d signatures, want 2", got)
			}
			_, otherPEM, err := registrytest.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			if got := cosignVerify(t, r, digest, otherPEM); got != 0 {
				t.Errorf("cosign found %d signatures by another key", got)
			}
		})
	}
}

func cosignVerify(t *testing.T, r *registrytest.Registry, digest, publicPEM string) int {
	t.Helper()
	public, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(publicPEM))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(r.Host() + "/golden/base@" + digest)
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := cosign.VerifyImageSignatures(t.Context(), ref, &cosign.CheckOpts{
		SigVerifier: verifier, IgnoreTlog: true, ClaimVerifier: cosign.SimpleClaimVerifier,
		RegistryClientOpts: []ociremote.Option{ociremote.WithRemoteOptions(options(t, r)...)},
	})
	if err != nil {
		return 0
	}
	return len(found)
}

// Another implementation logs in both ways.
func TestAuth(t *testing.T) {
	for _, bearer := range []bool{false, true} {
		r := serve(t, registrytest.Config{Auth: &registrytest.Auth{User: "robot", Password: "hunter2", Bearer: bearer}})
		push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
		ref, err := name.ParseReference(r.Host() + "/golden/base:v1")
		if err != nil {
			t.Fatal(err)
		}
		for password, allowed := range map[string]bool{"hunter2": true, "wrong": false} {
			login := remote.WithAuth(&authn.Basic{Username: "robot", Password: password})
			if _, err := remote.Get(ref, append(options(t, r), login)...); (err == nil) != allowed {
				t.Errorf("bearer %v, password %s: got %v", bearer, password, err)
			}
		}
		if _, err := remote.Get(ref, options(t, r)...); err == nil {
			t.Errorf("bearer %v: anybody is let in", bearer)
		}
	}
	if _, err := registrytest.New(registrytest.Config{Auth: &registrytest.Auth{User: "u"}}); err == nil {
		t.Error("an empty password is accepted")
	}
}

func TestRequests(t *testing.T) {
	r := serve(t, registrytest.Config{PlainHTTP: true, Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/teapot"):
				w.WriteHeader(http.StatusTeapot)
			case strings.HasSuffix(r.URL.Path, "/cut"):
				panic(http.ErrAbortHandler)
			default:
				next.ServeHTTP(w, r)
			}
		})
	}})
	push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	for _, path := range []string{"/v2/", "/teapot", "/cut", "/v2/golden/base/manifests/v9"} {
		get(t.Context(), "http://"+r.Host()+path)
	}
	want := []registrytest.Request{
		{Method: "GET", Path: "/v2/", Status: 200}, {Method: "GET", Path: "/teapot", Status: 418},
		{Method: "GET", Path: "/cut"}, {Method: "GET", Path: "/v2/golden/base/manifests/v9", Status: 404},
	}
	if got := r.Requests(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	r.Reset()
	if got := r.Requests(); len(got) != 0 {
		t.Errorf("got %v after Reset", got)
	}
}

func get(ctx context.Context, url string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if response, err := transport.RoundTrip(request); err == nil {
		_ = response.Body.Close()
	}
}

func TestTagAndDelete(t *testing.T) {
	r := serve(t, registrytest.Config{})
	digest := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	if err := r.Tag(t.Context(), "golden/base", "v2", digest); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), "golden/base", "v1"); err != nil {
		t.Fatal(err)
	}
	for reference, there := range map[string]bool{"v1": false, "v2": true, digest: true} {
		if _, err := r.Manifest(t.Context(), "golden/base", reference); (err == nil) != there {
			t.Errorf("%s: got %v", reference, err)
		}
	}
	if err := r.Tag(t.Context(), "golden/base", "v3", "sha256:"+strings.Repeat("a", 64)); err == nil {
		t.Error("a digest that is not there was tagged")
	}
	if err := r.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
