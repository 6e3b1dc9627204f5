package attack

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestOutage: with the registry gone, what was proved goes on starting, and the rest is told that it could not be
// checked.
func TestOutage(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, func(text string) string { return text + "cache: {tagTTL: 1ns}\n" })
	allowed().check(t, w.admit(t, w.pod()))
	if err := w.Registry.Close(); err != nil {
		t.Fatal(err)
	}
	a := w.admit(t, w.pod())
	allowed().check(t, a)
	if len(a.Replaced) != 1 || a.Replaced[0].Value != w.Pinned("golden/ws:v1.0.0") {
		t.Errorf("pinned %v", a.Replaced)
	}
	if !strings.Contains(a.Audit["stale"], w.Ref("golden/ws:v1.0.0")) {
		t.Errorf("the audit annotation does not say that the answer is stale: %v", a.Audit)
	}
	want{code: 503, says: []string{"could not be checked: " + w.Registry.Host() + " refused the connection; try again."}}.
		check(t, w.admit(t, w.pod(image(w.Ref("golden/ws:v1.0.1")))))

	t.Run("reload in between", func(t *testing.T) {
		w.configure(t, func(text string) string {
			return text + "cache: {tagTTL: 1ns}\nmessage: {helpURL: \"https://help.example\"}\n"
		})
		bad := w.pod(image("evil.example/x"))
		eventually(t, "the new configuration", func() bool { return strings.Contains(w.admit(t, bad).Message, "help.example") })
		allowed().check(t, w.admit(t, w.pod()))
	})
	t.Run("metric", func(t *testing.T) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.MetricsURL+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, metrics, err := w.Client.Do(request)
		if err != nil || !strings.Contains(string(metrics), `hallmark_cache_requests_total{cache="tag",result="stale"}`) {
			t.Errorf("stale answers are not counted (%v)", err)
		}
	})
}

// TestHangingRegistry: a registry that accepts and says nothing costs an admission less than its deadline, and one that
// was proved nothing.
func TestHangingRegistry(t *testing.T) {
	var hanging atomic.Bool
	w := newWorld(t, registrytest.Config{Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if hanging.Load() {
				<-r.Context().Done()
				panic(http.ErrAbortHandler) // to return would be to answer
			}
			next.ServeHTTP(rw, r)
		})
	}}, nil)
	allowed().check(t, w.admit(t, w.pod()))
	hanging.Store(true)
	start := time.Now()
	want{code: 503, says: []string{"could not be checked", "did not answer within 3s; try again."}}.
		check(t, w.admit(t, w.pod(image(w.Ref("golden/tools:v1.0.0")))))
	if elapsed := time.Since(start); elapsed > 9*time.Second {
		t.Errorf("the answer took %v", elapsed)
	}
	start = time.Now()
	allowed().check(t, w.admit(t, w.pod()))
	if elapsed := time.Since(start); elapsed > 2*time.Second {
		t.Errorf("a proved image took %v", elapsed)
	}
}

// TestRegistryAnswers: what a registry may answer, and what the developer is told. Nothing of it is called unsigned, and
// none of it is remembered.
func TestRegistryAnswers(t *testing.T) {
	for code, c := range map[int]want{
		401: {says: []string{"could not be checked", "refused access to golden/tools (401)"}},
		403: {says: []string{"could not be checked", "refused access to golden/tools (403)"}},
		404: {says: []string{"does not exist", "has no tag v1.0.0 of golden/tools"}},
		429: {code: 503, says: []string{"is limiting requests (429); try again."}},
		500: {code: 503, says: []string{"answered 500; try again."}},
		503: {code: 503, says: []string{"answered 503; try again."}},
		302: {says: []string{"could not be checked"}},
		200: {says: []string{"could not be checked"}},
	} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			var failing atomic.Bool
			w := newWorld(t, registrytest.Config{Intercept: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if failing.Load() && strings.Contains(r.URL.Path, "/golden/tools/") {
						http.Error(rw, "no", code)
						return
					}
					next.ServeHTTP(rw, r)
				})
			}}, nil)
			failing.Store(true)
			pod := w.pod(image(w.Ref("golden/tools:v1.0.0")))
			c.without = []string{"not signed"}
			c.check(t, w.admit(t, pod))
			allowed().check(t, w.admit(t, w.pod())) // the other images go on
			failing.Store(false)
			allowed().check(t, w.admit(t, pod))
		})
	}
}

// TestRestartWithCacheDirectory: a process that was killed needs one request for a tag when it is back, and none
// that is answered in an outage.
func TestRestartWithCacheDirectory(t *testing.T) {
	cache := t.TempDir()
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, func(text string) string {
		return text + fmt.Sprintf("cache: {dir: %q}\n", cache)
	})
	if err != nil {
		t.Fatal(err)
	}
	serve := func(f func(world), fixture *harness.Fixture) {
		t.Helper()
		hook, err := harness.Serve(t.Context(), binary, fixture)
		if err != nil {
			t.Fatal(err)
		}
		f(world{fixture, hook})
		hook.Kill()
		fixture.Registry.Reset()
	}
	serve(func(w world) {
		allowed().check(t, w.admit(t, w.pod()))
		eventually(t, "the index", func() bool {
			index, err := os.ReadFile(filepath.Join(cache, "index.json"))
			return err == nil && strings.Contains(string(index), ".sig")
		})
	}, f)
	serve(func(w world) {
		allowed().check(t, w.admit(t, w.pod()))
		if requests := w.Registry.Requests(); len(requests) != 1 {
			t.Errorf("after a restart the registry was asked %+v", requests)
		}
	}, f)
	if err := f.Registry.Close(); err != nil {
		t.Fatal(err)
	}
	serve(func(w world) {
		allowed().check(t, w.admit(t, w.pod()))
		want{code: 503}.check(t, w.admit(t, w.pod(image(w.Ref("golden/tools:v1.0.0")))))
		want{}.check(t, w.admit(t, w.pod(image(w.Ref("sandbox/evil:v1.0.0")))))
	}, f)
}
