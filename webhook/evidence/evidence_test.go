package evidence_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/evidence"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

// world is a registry with one signed image, and everything that reads it, wired as serve does.
type world struct {
	registry *registrytest.Registry
	ref      webhook.Reference
	digest   string
	rules    []webhook.SignatureRule
	read     *evidence.Reader
	verify   *evidence.Verifier
	clock    *clock
	store    *evidence.Store
	pem      string
	config   evidence.Config
	status   atomic.Int32 // what the registry answers instead, when not 0
	hold     chan struct{}
}

type clock struct {
	mutex sync.Mutex
	now   time.Time
}

func (c *clock) Now() time.Time { c.mutex.Lock(); defer c.mutex.Unlock(); return c.now }
func (c *clock) add(d time.Duration) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.now = c.now.Add(d)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{clock: &clock{now: time.Now()}, hold: make(chan struct{})}
	close(w.hold)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	w.registry, err = registrytest.New(registrytest.Config{Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			<-w.hold
			if status := w.status.Load(); status != 0 {
				http.Error(rw, "no", int(status))
				return
			}
			next.ServeHTTP(rw, r)
		})
	}})
	must(err)
	t.Cleanup(func() { _ = w.registry.Close() })
	w.digest, err = w.registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/base", Tag: "v1", User: "1000"})
	must(err)
	key, pem, err := registrytest.NewKey()
	must(err)
	must(w.registry.Sign(t.Context(), "golden/base", w.digest, key, registrytest.SignOptions{}))
	w.pem = pem
	w.config = evidence.Config{
		TagTTL: time.Minute, StaleIfError: 24 * time.Hour, VerifiedTTL: time.Hour, Timeout: 5 * time.Second, Now: w.clock.Now,
	}
	w.store = evidence.NewStore(evidence.Limits{Bytes: 1 << 20, Entries: 100}, nil)
	w.wire(t)
	t.Cleanup(func() { w.store.Wait() })
	w.rules = []webhook.SignatureRule{{AnyOf: []string{"ci"}, Threshold: 1}}
	w.ref, err = webhook.ParseReference(w.registry.Host() + "/golden/base:v1")
	must(err)
	return w
}

// wire connects everything over the world's store, as serve does.
func (w *world) wire(t *testing.T) {
	t.Helper()
	client, err := registry.New(registry.Config{Hosts: []registry.Host{{Host: w.registry.Host(), CAPEM: w.registry.CAPEM()}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	content := evidence.NewContent(w.store, w.config, client)
	trust, err := signature.NewTrust(t.Context(), signature.TrustConfig{
		Signers: map[string]signature.Signer{"ci": {KeyPEM: w.pem}}, Now: w.clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trust.Close)
	verifier := func(fetch signature.Fetcher) evidence.Proofs {
		v, err := signature.New(signature.Config{Trust: trust, Fetch: fetch})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	w.read = evidence.NewReader(w.store, w.config, registry.NewReader(content, registry.Limits{}))
	w.verify = evidence.NewVerifier(w.store, w.config, verifier(content), verifier(content.Known()))
}

// admit reads and verifies as an admission does: the tag's digest, then config and signatures.
func (w *world) admit(ctx context.Context) error {
	content, err := w.read.ReadImage(ctx, w.ref, webhook.DigestOnly)
	if err != nil {
		return err
	}
	pinned := w.ref.WithDigest(content.Digest)
	if content, err = w.read.ReadImage(ctx, pinned, webhook.WithConfig); err != nil {
		return err
	}
	if content.Digest != w.digest || content.Platforms[0].User != "1000" {
		return fmt.Errorf("read %+v", content)
	}
	found, err := w.verify.Verify(ctx, pinned, w.rules)
	if err == nil && !w.rules[0].Satisfied(found.Valid) {
		err = fmt.Errorf("found %+v", found)
	}
	return err
}

func (w *world) wantRequests(t *testing.T, want int, what string) {
	t.Helper()
	if got := w.registry.Requests(); len(got) != want {
		t.Errorf("%s: %d requests, want %d: %+v", what, len(got), want, got)
	}
	w.registry.Reset()
}

// TestRequests: a cold image costs four requests, a warm one none, and one whose tag is to be looked up again one.
func TestRequests(t *testing.T) {
	w := newWorld(t)
	for _, step := range []struct {
		what   string
		before func()
		want   int
	}{
		{"cold", func() {}, 4},
		{"warm", func() {}, 0},
		{"tag expired", func() { w.clock.add(2 * time.Minute) }, 1},
		{"proof expired", func() { w.clock.add(2 * time.Hour) }, 2}, // tag and signature manifest; the rest is known by digest
		{"registry down, all known", func() { w.status.Store(503) }, 0},
		{"registry down, tag expired", func() { w.clock.add(2 * time.Minute) }, 1},
		{"registry down, proof expired", func() { w.clock.add(2 * time.Hour) }, 2}, // proved again from what is there
	} {
		step.before()
		if err := w.admit(t.Context()); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		w.wantRequests(t, step.want, step.what)
	}
}

// TestOneReadForAll: five hundred who want the same new image at once cost the requests of one.
func TestOneReadForAll(t *testing.T) {
	w := newWorld(t)
	w.hold = make(chan struct{})
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 500 {
		group.Go(func() {
			if err := w.admit(t.Context()); err != nil {
				failed.Store(&err)
			}
		})
	}
	close(w.hold)
	group.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	w.wantRequests(t, 4, "500 at once")
}

// TestImpatientCaller: one who goes away does not fail those who wait for the same.
func TestImpatientCaller(t *testing.T) {
	w := newWorld(t)
	w.hold = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	impatient, patient := make(chan error), make(chan error)
	go func() { impatient <- w.admit(ctx) }()
	go func() { patient <- w.admit(t.Context()) }()
	cancel()
	if err := <-impatient; !errors.Is(err, context.Canceled) {
		t.Errorf("the impatient caller got %v", err)
	}
	close(w.hold)
	if err := <-patient; err != nil {
		t.Errorf("the patient caller got %v", err)
	}
}

// TestFailuresAreNotRemembered: whatever went wrong, the next caller asks again.
func TestFailuresAreNotRemembered(t *testing.T) {
	for _, status := range []int32{401, 404, 429, 500, 503} {
		w := newWorld(t)
		w.status.Store(status)
		if err := w.admit(t.Context()); err == nil {
			t.Errorf("%d: no error", status)
		}
		w.status.Store(0)
		if err := w.admit(t.Context()); err != nil {
			t.Errorf("after %d: %v", status, err)
		}
	}
}

// TestMissingSignatureIsNotRemembered: who signs and tries again is let in at once.
func TestMissingSignatureIsNotRemembered(t *testing.T) {
	w := newWorld(t)
	digest, err := w.registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/base", Tag: "v2", User: "1000", Layers: []string{"v2"}})
	if err != nil {
		t.Fatal(err)
	}
	w.ref, w.digest = w.ref.WithTag("v2"), digest
	if err := w.admit(t.Context()); err == nil || !strings.Contains(err.Error(), "found") {
		t.Fatalf("unsigned: %v", err)
	}
	key, _, err := registrytest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.registry.Sign(t.Context(), "golden/base", digest, key, registrytest.SignOptions{}); err != nil {
		t.Fatal(err)
	}
	w.registry.Reset()
	if err := w.admit(t.Context()); err == nil {
		t.Error("signed by another key, and admitted")
	}
	if len(w.registry.Requests()) == 0 {
		t.Error("nobody looked for the new signature")
	}
}

// TestTagMoves: what a tag names is looked up again after its time, and a proof belongs to its digest alone.
func TestTagMoves(t *testing.T) {
	w := newWorld(t)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/base", Tag: "v1", User: "0", Layers: []string{"evil"}}); err != nil {
		t.Fatal(err)
	}
	w.clock.add(2 * time.Minute)
	if err := w.admit(t.Context()); err == nil {
		t.Error("the moved tag was admitted")
	}
}

// TestStale: in an outage the last answer is marked; a refusal is an answer, and the last one is too old some day.
func TestStale(t *testing.T) {
	for title, c := range map[string]struct {
		status int32
		after  time.Duration
		stale  bool
	}{
		"outage":           {503, 2 * time.Minute, true},
		"rate limit":       {429, 2 * time.Minute, true},
		"access revoked":   {403, 2 * time.Minute, false},
		"tag deleted":      {404, 2 * time.Minute, false},
		"outage of a day":  {503, 25 * time.Hour, false},
		"within its time":  {503, 10 * time.Second, false},
		"refreshed behind": {503, 50 * time.Second, false},
	} {
		t.Run(title, func(t *testing.T) {
			w := newWorld(t)
			if err := w.admit(t.Context()); err != nil {
				t.Fatal(err)
			}
			read := w.clock.Now()
			w.status.Store(c.status)
			w.clock.add(c.after)
			content, err := w.read.ReadImage(t.Context(), w.ref, webhook.WithConfig)
			switch {
			case c.stale && (err != nil || !content.Stale.Equal(read) || content.Platforms == nil):
				t.Errorf("got %+v, %v; want the answer of %v", content, err, read)
			case !c.stale && c.after > time.Minute && err == nil:
				t.Errorf("got %+v, want an error", content)
			case !c.stale && c.after < time.Minute && (err != nil || !content.Stale.IsZero()):
				t.Errorf("got %+v, %v", content, err)
			}
		})
	}
}

// TestHangingRegistry: who has a last answer gives it well before its own deadline.
func TestHangingRegistry(t *testing.T) {
	w := newWorld(t)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.clock.add(2 * time.Minute)
	w.hold = make(chan struct{})
	defer close(w.hold)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	content, err := w.read.ReadImage(ctx, w.ref, webhook.DigestOnly)
	if err != nil || content.Stale.IsZero() || ctx.Err() != nil {
		t.Errorf("got %+v, %v, %v", content, err, ctx.Err())
	}
}

// TestRefreshBehind: in the last quarter of its time a tag is read again, and nobody waits for it.
func TestRefreshBehind(t *testing.T) {
	w := newWorld(t)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.registry.Reset()
	w.clock.add(50 * time.Second)
	for range 3 {
		if err := w.admit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.store.Wait()
	requests := len(w.registry.Requests())
	if requests < 1 || requests > 3 {
		t.Errorf("%d requests behind", requests)
	}
	w.registry.Reset()
	w.clock.add(40 * time.Second)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantRequests(t, 0, "after a refresh")
}

// TestMovedTag: what a tag named until a moment ago is known for a TTL more, since another replica may still pin to it.
func TestMovedTag(t *testing.T) {
	clock := &clock{now: time.Now()}
	store := evidence.NewStore(evidence.Limits{Bytes: 1 << 20}, nil)
	config := evidence.Config{TagTTL: time.Minute, Timeout: time.Second, Now: clock.Now}
	names := "sha256:" + strings.Repeat("a", 64)
	content := evidence.NewContent(store, config, fetcher(func(webhook.Reference) webhook.Manifest { return webhook.Manifest{Digest: names} }))
	read := evidence.NewReader(store, config, webhook.ImageReaderFunc(
		func(ctx context.Context, ref webhook.Reference, _ webhook.Depth) (*webhook.Content, error) {
			m, err := content.Manifest(ctx, ref, 0)
			return &webhook.Content{Digest: m.Digest}, err
		}))
	ref := webhook.Reference{Registry: "r.io", Repository: "a", Tag: "v1"}
	ask := func(title, digest, before string) {
		t.Helper()
		got, err := read.ReadImage(t.Context(), ref, webhook.DigestOnly)
		if err != nil || got.Digest != digest || got.Before != before {
			t.Errorf("%s: got %+v, %v; want %s, before %q", title, got, err, digest, before)
		}
	}
	first, second := names, "sha256:"+strings.Repeat("b", 64)
	ask("new", first, "")
	names = second
	ask("within the TTL", first, "")
	clock.add(61 * time.Second)
	ask("read again", second, first)
	clock.add(30 * time.Second)
	ask("a moment later", second, first)
	clock.add(31 * time.Second)
	ask("a TTL later", second, "")
	clock.add(61 * time.Second)
	ask("read again, and still the same", second, "")
}

// TestTrustAndScope: another set of keys or another way to be known to a registry starts from nothing, but for the bytes.
// proofs are a verifier and an attester as one.
type proofs struct {
	webhook.Verifier
	webhook.Attester
}

func TestTrustAndScope(t *testing.T) {
	w := newWorld(t)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.registry.Reset()
	config := w.config
	config.Trust = func() string { return "other keys" }
	calls := 0
	verify := evidence.NewVerifier(w.store, config, proofs{webhook.VerifierFunc(
		func(context.Context, webhook.Reference, []webhook.SignatureRule) (webhook.Signatures, error) {
			calls++
			return webhook.Signatures{}, nil
		}), nil}, nil)
	if found, err := verify.Verify(t.Context(), w.ref.WithDigest(w.digest), w.rules); err != nil || len(found.Valid) > 0 || calls != 1 {
		t.Errorf("under other keys: %+v, %v, %d calls", found, err, calls)
	}
	config.Scope = func(string) string { return "other credentials" }
	read := evidence.NewReader(w.store, config, webhook.ImageReaderFunc(
		func(context.Context, webhook.Reference, webhook.Depth) (*webhook.Content, error) {
			return nil, &webhook.ReadError{Failure: webhook.Unauthorized, Registry: "r", Reason: "refused"}
		}))
	for _, ref := range []webhook.Reference{w.ref, w.ref.WithDigest(w.digest)} {
		if content, err := read.ReadImage(t.Context(), ref, webhook.WithConfig); err == nil {
			t.Errorf("with other credentials: %+v", content)
		}
	}
}

// TestBounded: a flood of tags and digests keeps memory within its bounds.
func TestBounded(t *testing.T) {
	var calls atomic.Int32
	store := evidence.NewStore(evidence.Limits{Bytes: 320 << 10, Entries: 1000}, nil)
	fetch := fetcher(func(ref webhook.Reference) webhook.Manifest {
		calls.Add(1)
		return webhook.Manifest{Digest: ref.Digest, Body: make([]byte, 1<<10)}
	})
	content := evidence.NewContent(store, evidence.Config{TagTTL: time.Hour, Timeout: time.Second, Now: time.Now}, fetch)
	digest := func(i int) webhook.Reference {
		return webhook.Reference{Registry: "r.io", Repository: "a", Digest: fmt.Sprintf("sha256:%064x", i)}
	}
	for i := range 10_000 {
		if _, err := content.Manifest(t.Context(), digest(i), 0); err != nil {
			t.Fatal(err)
		}
	}
	calls.Store(0)
	for i := range 10_000 {
		if _, err := content.Manifest(t.Context(), digest(9_999-i), 0); err != nil {
			t.Fatal(err)
		}
	}
	// A quarter of 64 KiB, which is a fifth of all, is for manifests of a good KiB each.
	if kept := 10_000 - calls.Load(); kept < 10 || kept > 16 {
		t.Errorf("%d manifests were kept", kept)
	}
	for name, bytes := range store.Bytes() {
		if bytes > 64<<10 {
			t.Errorf("%s holds %d bytes", name, bytes)
		}
	}
}

type fetcher func(ref webhook.Reference) webhook.Manifest

func (f fetcher) Manifest(_ context.Context, ref webhook.Reference, _ int64) (webhook.Manifest, error) {
	return f(ref), nil
}

func (f fetcher) Referrers(_ context.Context, ref webhook.Reference, _ int64) (webhook.Manifest, error) {
	return f(ref), nil
}

func (f fetcher) Blob(context.Context, webhook.Reference, string, int64) ([]byte, error) {
	return nil, errors.New("no blobs")
}
