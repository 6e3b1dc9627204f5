package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// A service leads new connections to those of its replicas that were ready a moment ago, as a Service does.
type service struct {
	mutex    sync.Mutex
	replicas []*harness.Webhook
	next     int
}

func (s *service) set(replicas ...*harness.Webhook) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.replicas = replicas
}

func (s *service) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	s.mutex.Lock()
	s.next++
	to := s.replicas[s.next%len(s.replicas)]
	s.mutex.Unlock()
	return (&net.Dialer{}).DialContext(ctx, network, strings.TrimPrefix(to.URL, "https://"))
}

// apiServer is a client that keeps its connections, as an API server does.
func apiServer(caPEM []byte, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(caPEM)
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 100,
	}}
}

// ask sends a review and wants it allowed.
func ask(ctx context.Context, client *http.Client, review []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://127.0.0.1/validate?timeout=10s", bytes.NewReader(review))
	if err != nil {
		return err
	}
	request.GetBody = nil // nothing is sent a second time
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && !bytes.Contains(text, []byte(`"allowed":true`)) {
		err = fmt.Errorf("%d %s", response.StatusCode, text)
	}
	return err
}

func (w world) review(t *testing.T) []byte {
	t.Helper()
	review, err := servertest.NewReview("705ab4f5-6393-11e8-b7cc-42010a800002", servertest.Object{JSON: encode(t, w.pod(image(w.Pinned("golden/ws:v1.0.0"))))})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// probe gives what a probe answers.
func probe(t *testing.T, hook *harness.Webhook, path string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, hook.MetricsURL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	status, text, err := hook.Client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return status, string(text)
}

// TestRollingRestart: while one replica after the other is replaced under load, no request fails, neither of those who
// send all the time nor of those who send now and then.
func TestRollingRestart(t *testing.T) {
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Registry.Close()
	begin := func() *harness.Webhook {
		t.Helper()
		hook, err := harness.Serve(context.WithoutCancel(t.Context()), binary, f, "--shutdown-delay", "3s")
		if err != nil {
			t.Fatal(err)
		}
		return hook
	}
	replicas := []*harness.Webhook{begin(), begin()}
	to := &service{}
	to.set(replicas...)
	review := world{f, replicas[0]}.review(t)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var answered, failed atomic.Int64
	load := func(clients int, pause time.Duration) {
		client := apiServer(replicas[0].CAPEM, to.dial)
		for i := range clients {
			group.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					if err := ask(context.WithoutCancel(ctx), client, review); err != nil {
						failed.Add(1)
						t.Errorf("a request failed: %v", err)
					}
					answered.Add(1)
					time.Sleep(pause + time.Duration((i*37+n*61)%100)*pause/100)
				}
			})
		}
	}
	load(10, 30*time.Millisecond)
	// What no delay can help against is a request over a connection that nobody has used in all of it, at the very moment of
	// its end. With these pauses next to none is left.
	load(20, 300*time.Millisecond)
	for i := range 4 {
		old := replicas[i%2]
		if err := old.Terminate(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of readiness", func() bool { status, text := probe(t, old, "/readyz"); return status == 503 && text == "stopping\n" })
		to.set(replicas[1-i%2])
		if status, _ := probe(t, old, "/livez"); status != http.StatusOK {
			t.Errorf("not alive while stopping: %d", status)
		}
		old.Client.Close()
		if err := old.Wait(); err != nil {
			t.Errorf("end: %v\n%s", err, old.Log())
		}
		replicas[i%2] = begin()
		to.set(replicas...)
	}
	stop()
	group.Wait()
	t.Logf("%d of %d requests failed", failed.Load(), answered.Load())
	if answered.Load() < 200 {
		t.Errorf("only %d requests", answered.Load())
	}
	for _, hook := range replicas {
		if err := hook.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestStopWithoutDelay: a request that is sent over an idle connection at the moment of the signal is answered, even when
// nothing is waited for.
func TestStopWithoutDelay(t *testing.T) {
	w := newHook(t, "--shutdown-delay", "0s")
	review := w.review(t)
	clients := make([]*http.Client, 60)
	for i := range clients {
		clients[i] = apiServer(w.CAPEM, func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, strings.TrimPrefix(w.URL, "https://"))
		})
		if err := ask(t.Context(), clients[i], review); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	signal := time.Now().Add(200 * time.Millisecond)
	for i, client := range clients {
		group.Go(func() {
			time.Sleep(time.Until(signal.Add(time.Duration(i-30) * time.Millisecond)))
			if err := ask(context.WithoutCancel(t.Context()), client, review); err != nil {
				t.Errorf("a request %d ms after the signal: %v", i-30, err)
			}
		})
	}
	time.Sleep(time.Until(signal))
	if err := w.Terminate(); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	w.Webhook.Client.Close()
	if err := w.Wait(); err != nil {
		t.Errorf("end: %v\n%s", err, w.Log())
	}
}

// newHook is a world whose webhook the test ends itself.
func newHook(t *testing.T, args ...string) world {
	t.Helper()
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Registry.Close() })
	hook, err := harness.Serve(context.WithoutCancel(t.Context()), binary, f, args...)
	if err != nil {
		t.Fatal(err)
	}
	return world{f, hook}
}

// TestSecondSignal ends the process at once, whatever it waits for.
func TestSecondSignal(t *testing.T) {
	w := newHook(t, "--shutdown-delay", "1h")
	if err := w.Terminate(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of readiness", func() bool { status, _ := probe(t, w.Webhook, "/readyz"); return status == 503 })
	allowed().check(t, w.admit(t, w.pod())) // it serves on
	start := time.Now()
	err := w.Stop()
	if err == nil || !strings.Contains(err.Error(), "terminated") || time.Since(start) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

// TestCertificateDates: a certificate that is not yet valid or has ended is no reason to die, but one to be unready, and
// the log says what to do.
func TestCertificateDates(t *testing.T) {
	w := newHook(t)
	defer func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "the warning of what ends in a day", func() bool { return strings.Contains(w.Log(), "the serving certificate ends soon; renew the files") })
	for want, at := range map[string]time.Time{
		"the serving certificate expired at": time.Now().AddDate(0, 0, -3), "the serving certificate is valid only from": time.Now().AddDate(0, 0, 3),
	} {
		cert, key, err := servertest.Certificate(at, "127.0.0.1")
		if err = errors.Join(err, w.Write("tls.key", key), w.Write("tls.crt", cert)); err != nil {
			t.Fatal(err)
		}
		eventually(t, want, func() bool {
			status, text := probe(t, w.Webhook, "/readyz")
			return status == 503 && strings.Contains(text, want)
		})
		if status, _ := probe(t, w.Webhook, "/livez"); status != http.StatusOK {
			t.Errorf("%s: not alive: %d", want, status)
		}
	}
	cert, key, err := servertest.Certificate(time.Now(), "127.0.0.1")
	if err = errors.Join(err, w.Write("tls.key", key), w.Write("tls.crt", cert)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "readiness", func() bool { status, _ := probe(t, w.Webhook, "/readyz"); return status == 200 })
}
