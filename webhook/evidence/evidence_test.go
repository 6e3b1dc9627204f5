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
	client, err := registry.New(registry.Config{Hosts: []registry.Host{{Host: w.registry.Host(), CAPEM: w.registry.CAPEM()}}})
	must(err)
	t.Cleanup(client.Close)
	config := evidence.Config{
		TagTTL: time.Minute, VerifiedTTL: time.Hour, MaxBytes: 1 << 20, MaxEntries: 100, Timeout: 5 * time.Second, Now: w.clock.Now,
	}
	content := evidence.NewContent(config, client)
	verifier, err := signature.New(signature.Config{Signers: map[string]signature.Signer{"ci": {KeyPEM: pem}, "other": {KeyPEM: pem}}, Fetch: content})
	must(err)
	w.read = evidence.NewReader(config, registry.NewReader(content, registry.Limits{}))
	w.verify = evidence.NewVerifier(config, verifier)
	w.rules = []webhook.SignatureRule{{AnyOf: []string{"ci"}, Threshold: 1}}
	w.ref, err = webhook.ParseReference(w.registry.Host() + "/golden/base:v1")
	must(err)
	return w
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

// TestBounded: a flood of tags and digests keeps memory within its bounds.
func TestBounded(t *testing.T) {
	var calls atomic.Int32
	config := evidence.Config{TagTTL: time.Hour, MaxBytes: 64 << 10, MaxEntries: 1000, Timeout: time.Second, Now: time.Now}
	fetch := fetcher(func(ref webhook.Reference) webhook.Manifest {
		calls.Add(1)
		return webhook.Manifest{Digest: ref.Digest, Body: make([]byte, 1<<10)}
	})
	content := evidence.NewContent(config, fetch)
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
	// Half of 64 KiB is for manifests of a good KiB each.
	if kept := 10_000 - calls.Load(); kept < 20 || kept > 32 {
		t.Errorf("%d manifests were kept", kept)
	}
}

type fetcher func(ref webhook.Reference) webhook.Manifest

func (f fetcher) Manifest(_ context.Context, ref webhook.Reference, _ int64) (webhook.Manifest, error) {
	return f(ref), nil
}

func (f fetcher) Blob(context.Context, webhook.Reference, string, int64) ([]byte, error) {
	return nil, errors.New("no blobs")
}
