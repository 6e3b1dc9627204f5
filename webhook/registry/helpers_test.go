package registry_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// serve starts a registry that ends with the test.
func serve(t *testing.T, config registrytest.Config) *registrytest.Registry {
	t.Helper()
	r, err := registrytest.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// connect makes a client of r; tweak may change its configuration.
func connect(t *testing.T, r *registrytest.Registry, tweak func(*registry.Config)) *registry.Client {
	t.Helper()
	config := registry.Config{Hosts: []registry.Host{{Host: r.Host(), CAPEM: r.CAPEM(), PlainHTTP: r.CAPEM() == nil}}}
	if tweak != nil {
		tweak(&config)
	}
	client, err := registry.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func push(t *testing.T, r *registrytest.Registry, image registrytest.Image) (digest string) {
	t.Helper()
	digest, err := r.PushImage(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func parse(t *testing.T, reference string) webhook.Reference {
	t.Helper()
	ref, err := webhook.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// wantReadError wants a ReadError of this kind for this host whose reason has this text.
func wantReadError(t *testing.T, err error, failure webhook.ReadFailure, host, reason string) {
	t.Helper()
	var read *webhook.ReadError
	if !errors.As(err, &read) {
		t.Fatalf("got error %v, want a ReadError %q", err, reason)
	}
	if read.Failure != failure || read.Registry != host || !strings.Contains(read.Reason, reason) {
		t.Errorf("got  %d %s %q\nwant %d %s %q", read.Failure, read.Registry, read.Reason, failure, host, reason)
	}
}

// intercept answers with handle what match selects by its path, and lets everything else through.
func intercept(match string, handle http.HandlerFunc) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, match) {
				handle(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// A spy is a port that counts who connects to it.
type spy struct {
	address  string
	accepted atomic.Int64
}

func newSpy(t *testing.T) *spy {
	t.Helper()
	s := &spy{}
	t.Cleanup(func() { // after hangUp's
		if n := s.accepted.Load(); n > 0 {
			t.Errorf("%d connections to a host that must not be contacted", n)
		}
	})
	s.address = hangUp(t, func() { s.accepted.Add(1) })
	return s
}

// hangUp makes a port that closes every connection as soon as it is there.
func hangUp(t *testing.T, accepted func()) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted()
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String()
}

func (s *spy) port() string { return s.address[strings.LastIndex(s.address, ":"):] }

// writeFile puts a file into a directory of the test.
func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// dialTo connects everything to one address, and notes what was asked for.
func dialTo(address string, asked *[]string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, wanted string) (net.Conn, error) {
		if asked != nil {
			*asked = append(*asked, wanted)
		}
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
}

const shortTimeout = 60 * time.Millisecond

// wantPlatforms wants the platforms of an image by name, or when a reason is given, an error that says it.
func wantPlatforms(t *testing.T, got *webhook.Content, want []string, err error, host, reason string) {
	t.Helper()
	if reason != "" {
		wantReadError(t, err, webhook.Invalid, host, reason)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range got.Platforms {
		names = append(names, p.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}
