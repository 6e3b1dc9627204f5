package registry_test

import (
	"bytes"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// An endless body is cut at the limit, and costs no more memory than a few times the limit.
func TestEndless(t *testing.T) {
	zeros := bytes.Repeat([]byte("0"), 32<<10)
	for _, what := range []string{"/manifests/", "/blobs/"} {
		t.Run(what, func(t *testing.T) {
			var sent atomic.Int64
			ended := make(chan struct{})
			r := serve(t, registrytest.Config{Intercept: intercept(what, func(w http.ResponseWriter, _ *http.Request) {
				defer close(ended)
				w.Header().Set("Content-Type", ociManifest)
				for {
					n, err := w.Write(zeros)
					sent.Add(int64(n))
					if err != nil {
						return
					}
				}
			})})
			push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
			client := connect(t, r, func(c *registry.Config) { c.Limits.ConfigBytes = 4 << 20 })
			var before, after runtime.MemStats
			debug.FreeOSMemory()
			runtime.ReadMemStats(&before)
			_, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			runtime.ReadMemStats(&after)
			<-ended
			wantReadError(t, err, webhook.Invalid, r.Host(), "larger than 4 MiB")
			// What was under way in the sockets' buffers comes on top of the limit.
			if n := sent.Load(); n > 32<<20 {
				t.Errorf("the server could send %d MiB", n>>20)
			}
			// All that was ever allocated, the server's part too: more than was ever held.
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 24<<20 {
				t.Errorf("%d MiB were allocated, want at most 24", allocated>>20)
			}
		})
	}
}

// A server that accepts and then says nothing, not even in TLS, is given up; nothing of it stays behind.
func TestSilentServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	host := listener.Addr().String()
	client, err := registry.New(registry.Config{
		Hosts: []registry.Host{{Host: host}}, Limits: registry.Limits{Timeout: shortTimeout},
	})
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	start := time.Now()
	_, err = client.ReadImage(t.Context(), parse(t, host+"/golden/base:v1"), webhook.WithConfig)
	wantReadError(t, err, webhook.Unavailable, host, "did not answer within 60ms")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	client.Close()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestFlapping(t *testing.T) {
	var n atomic.Int64
	r := serve(t, registrytest.Config{Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1)%2 == 1 {
				w.WriteHeader(500)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	digest := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	client := connect(t, r, nil)
	for i := range 6 {
		got, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.DigestOnly)
		if i%2 == 0 {
			wantReadError(t, err, webhook.Unavailable, r.Host(), "answered 500")
		} else if err != nil || got.Digest != digest {
			t.Errorf("got %+v, %v; want %s", got, err, digest)
		}
	}
	if n.Load() != 6 {
		t.Errorf("%d requests for 6 reads, want no retries", n.Load())
	}
}
