package signature_test

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

// A world is a registry with one image, two signers and the verifier that knows them.
type world struct {
	t        testing.TB
	registry *registrytest.Registry
	client   *registry.Client
	ref      webhook.Reference // golden/base by digest
	digest   string
	ci       crypto.Signer // devex-ci
	release  crypto.Signer
	stranger crypto.Signer
	config   signature.Config
	trust    signature.TrustConfig
	rule     webhook.SignatureRule // what rules say besides the signers
}

func newWorld(t testing.TB, interceptor func(http.Handler) http.Handler) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	w.registry, err = registrytest.New(registrytest.Config{Intercept: interceptor})
	w.must(err)
	t.Cleanup(func() { _ = w.registry.Close() })
	w.client, err = registry.New(registry.Config{Hosts: []registry.Host{{Host: w.registry.Host(), CAPEM: w.registry.CAPEM()}}})
	w.must(err)
	t.Cleanup(w.client.Close)
	var ciPEM, releasePEM string
	w.ci, ciPEM, err = registrytest.NewKey()
	w.must(err)
	w.release, releasePEM, err = registrytest.NewKey()
	w.must(err)
	w.stranger, _, err = registrytest.NewKey()
	w.must(err)
	w.config = signature.Config{Fetch: w.client}
	w.trust = signature.TrustConfig{
		Signers: map[string]signature.Signer{"devex-ci": {KeyPEM: ciPEM}, "release": {KeyPEM: releasePEM}}, Now: time.Now,
	}
	w.digest, err = w.registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/base", Tag: "v1", User: "1000"})
	w.must(err)
	w.ref = w.parse("golden/base@" + w.digest)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) parse(name string) webhook.Reference {
	w.t.Helper()
	ref, err := webhook.ParseReference(w.registry.Host() + "/" + name)
	w.must(err)
	return ref
}

func (w *world) sign(key crypto.Signer, opts registrytest.SignOptions) {
	w.t.Helper()
	w.must(w.registry.Sign(w.t.Context(), "golden/base", w.digest, key, opts))
}

func (w *world) attach(signatures ...registrytest.Signature) {
	w.t.Helper()
	w.must(w.registry.Attach(w.t.Context(), "golden/base", w.digest, signatures...))
}

// allOf are rules that demand every signer.
func (w *world) allOf(signers []string) []webhook.SignatureRule {
	rules := make([]webhook.SignatureRule, len(signers))
	for i, name := range signers {
		rules[i] = w.rule
		rules[i].AnyOf, rules[i].Threshold = []string{name}, 1
	}
	return rules
}

// verifier trusts as the world says now.
func (w *world) verifier() *signature.Verifier {
	w.t.Helper()
	trust, err := signature.NewTrust(w.t.Context(), w.trust)
	w.must(err)
	w.t.Cleanup(trust.Close)
	w.config.Trust = trust
	v, err := signature.New(w.config)
	w.must(err)
	return v
}

// verify asks for all of the signers; devex-ci when none is named.
func (w *world) verify(signers ...string) (webhook.Signatures, error) {
	w.t.Helper()
	if signers == nil {
		signers = []string{"devex-ci"}
	}
	return w.verifier().Verify(w.t.Context(), w.ref, w.allOf(signers))
}

// want compares an answer: the names of the valid signers, what was found, and why the rest does not count.
func (w *world) want(got webhook.Signatures, err error, valid []string, found int, rejected ...string) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	want := webhook.Signatures{Found: found, Rejected: rejected}
	for _, name := range valid {
		want.Valid = append(want.Valid, webhook.Signature{Signer: name, Digest: w.digest})
	}
	for i := range got.Valid {
		if (got.Valid[i].Key == "") == (got.Valid[i].Identity == "") {
			w.t.Errorf("the signature is neither by a key nor by an identity, or by both: %+v", got.Valid[i])
		}
		got.Valid[i].Key, got.Valid[i].Identity, got.Valid[i].Issuer, got.Valid[i].At = "", "", "", time.Time{}
	}
	got.Until = time.Time{}
	if !reflect.DeepEqual(got, want) {
		w.t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func (w *world) wantReadError(err error, failure webhook.ReadFailure, reason string) {
	w.t.Helper()
	var read *webhook.ReadError
	if !errors.As(err, &read) {
		w.t.Fatalf("got error %v, want a ReadError %q", err, reason)
	}
	if read.Failure != failure || read.Registry != w.registry.Host() || !strings.Contains(read.Reason, reason) {
		w.t.Errorf("got  %d %q\nwant %d %q", read.Failure, read.Reason, failure, reason)
	}
}

// intercept answers what the path selects with a status, while on is true.
func intercept(match string, on *bool, status int) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if *on && strings.Contains(r.URL.Path, match) {
				w.WriteHeader(status)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// failBlob answers one blob with a status.
func failBlob(digest *string, status int) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if *digest != "" && strings.HasSuffix(r.URL.Path, *digest) {
				w.WriteHeader(status)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// payloadDigest is that of the nth signature.
func (w *world) payloadDigest(n int) string {
	w.t.Helper()
	manifest, err := w.registry.Manifest(w.t.Context(), "golden/base", registrytest.SignatureTag(w.digest))
	w.must(err)
	var body struct{ Layers []struct{ Digest string } }
	w.must(json.Unmarshal(manifest.Body, &body))
	return body.Layers[n].Digest
}

// A fixedManifest is a Fetcher with one manifest.
type fixedManifest struct {
	signature.Fetcher
	manifest webhook.Manifest
}

func (f fixedManifest) Manifest(context.Context, webhook.Reference, int64) (webhook.Manifest, error) {
	return f.manifest, nil
}
