package registry_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// moody is a registry that answers with a status, and counts.
type moody struct {
	status     atomic.Int32
	always     atomic.Pointer[string] // Retry-After of every answer with the status
	retryAfter atomic.Pointer[string]
	asked      atomic.Int32
}

func (m *moody) intercept(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.asked.Add(1)
		if after := m.retryAfter.Swap(nil); after != nil {
			w.Header().Set("Retry-After", *after)
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		if status := int(m.status.Load()); status != 0 {
			if after := m.always.Load(); after != nil {
				w.Header().Set("Retry-After", *after)
			}
			w.WriteHeader(status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// newMoody gives it with an image, a client and the client's clock.
func newMoody(t *testing.T, limits registry.Limits) (*moody, func(context.Context) error, func(time.Duration)) {
	t.Helper()
	m := &moody{}
	r := serve(t, registrytest.Config{Intercept: m.intercept})
	push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1", User: "1000"})
	var mutex sync.Mutex
	now := time.Now()
	client := connect(t, r, func(config *registry.Config) {
		config.Limits = limits
		config.Now = func() time.Time { mutex.Lock(); defer mutex.Unlock(); return now }
	})
	ref := parse(t, r.Host()+"/golden/base:v1")
	read := func(ctx context.Context) error {
		_, err := client.ReadImage(ctx, ref, webhook.DigestOnly)
		return err
	}
	return m, read, func(d time.Duration) { mutex.Lock(); defer mutex.Unlock(); now = now.Add(d) }
}

// A registry that fails is soon left alone, tried now and then, and used again when it is back. Meanwhile callers are
// told at once what the last one was told.
func TestFailingRegistryIsLeftAlone(t *testing.T) {
	m, read, pass := newMoody(t, registry.Limits{})
	m.status.Store(503)
	wantFailure := func() {
		t.Helper()
		var failure *webhook.ReadError
		if err := read(t.Context()); !errors.As(err, &failure) || failure.Failure != webhook.Unavailable || failure.Reason != "answered 503" {
			t.Fatalf("got %v", err)
		}
	}
	for range 100 {
		wantFailure()
	}
	if n := m.asked.Load(); n != 5 {
		t.Errorf("a failing registry was asked %d times", n)
	}
	for range 3 {
		m.asked.Store(0)
		pass(time.Minute)
		for range 20 {
			wantFailure()
		}
		if n := m.asked.Load(); n != 1 {
			t.Errorf("after a pause it was asked %d times", n)
		}
	}
	m.status.Store(0)
	pass(time.Minute)
	for range 10 {
		if err := read(t.Context()); err != nil {
			t.Fatalf("after the outage: %v", err)
		}
	}
}

// What a registry refuses or does not have is an answer, not a failure.
func TestRefusalsDoNotCloseTheGate(t *testing.T) {
	for _, status := range []int32{401, 403, 404} {
		m, read, _ := newMoody(t, registry.Limits{})
		m.status.Store(status)
		for range 20 {
			if err := read(t.Context()); err == nil {
				t.Fatalf("%d: no error", status)
			}
		}
		m.status.Store(0)
		if err := read(t.Context()); err != nil {
			t.Errorf("after %d: %v", status, err)
		}
	}
}

// Callers that go away say nothing about the registry.
func TestImpatientCallersDoNotCloseTheGate(t *testing.T) {
	_, read, _ := newMoody(t, registry.Limits{})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if err := read(gone); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	}
	if err := read(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
}

// Retry-After is waited for when there is time, and otherwise keeps everybody away until then.
func TestRetryAfter(t *testing.T) {
	later := func(s string) *string { return &s }
	t.Run("soon", func(t *testing.T) {
		m, read, pass := newMoody(t, registry.Limits{})
		m.retryAfter.Store(later("1"))
		time.AfterFunc(500*time.Millisecond, func() { pass(time.Second) })
		if err := read(t.Context()); err != nil || m.asked.Load() != 2 {
			t.Errorf("got %v after %d requests", err, m.asked.Load())
		}
	})
	t.Run("again and again", func(t *testing.T) {
		m, read, pass := newMoody(t, registry.Limits{})
		m.always.Store(later("1"))
		m.status.Store(http.StatusTooManyRequests)
		for range 5 {
			hurried, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			if err := read(hurried); err == nil {
				t.Error("no error")
			}
			cancel()
			pass(time.Second)
		}
		if err := read(t.Context()); err == nil || m.asked.Load() != 6 { // tries whether it is better, and is sent away
			t.Errorf("got %v after %d requests", err, m.asked.Load())
		}
		start := time.Now()
		if err := read(t.Context()); err == nil || m.asked.Load() != 6 || time.Since(start) > 900*time.Millisecond {
			t.Errorf("got %v after %d requests and %v", err, m.asked.Load(), time.Since(start))
		}
		pass(time.Second)
		m.status.Store(0)
		for range 2 {
			if err := read(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	for title, after := range map[string]string{"late": "20", "never": "99999999999", "by date": time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)} {
		t.Run(title, func(t *testing.T) {
			m, read, pass := newMoody(t, registry.Limits{})
			m.retryAfter.Store(later(after))
			start := time.Now()
			for range 10 {
				var failure *webhook.ReadError
				if err := read(t.Context()); !errors.As(err, &failure) || failure.Reason != "is limiting requests (429)" {
					t.Fatalf("got %v", err)
				}
			}
			if n := m.asked.Load(); n != 1 || time.Since(start) > time.Second {
				t.Errorf("asked %d times in %v", n, time.Since(start))
			}
			pass(31 * time.Second)
			if err := read(t.Context()); err != nil {
				t.Errorf("after the pause: %v", err)
			}
		})
	}
}

// More than so many requests a second wait, and give up when their deadline does not allow it.
func TestRequestsPerSecond(t *testing.T) {
	m, read, _ := newMoody(t, registry.Limits{RequestsPerSecond: 5})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	refused := 0
	for range 20 {
		var failure *webhook.ReadError
		err := read(ctx)
		if errors.As(err, &failure) && failure.Reason == "is asked for more than 5 things a second from here" {
			refused++
		} else if err != nil && ctx.Err() == nil {
			t.Fatalf("got %v", err)
		}
	}
	if refused == 0 || m.asked.Load() > 12 {
		t.Errorf("%d refused, %d asked", refused, m.asked.Load())
	}
}
