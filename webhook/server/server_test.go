package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// reviewer is functions as a Reviewer.
type reviewer struct {
	mutate, validate func(context.Context, *webhook.Request) webhook.Decision
}

func (r reviewer) Mutate(ctx context.Context, q *webhook.Request) webhook.Decision {
	return r.mutate(ctx, q)
}
func (r reviewer) Validate(ctx context.Context, q *webhook.Request) webhook.Decision {
	return r.validate(ctx, q)
}

func allow(_ context.Context, q *webhook.Request) webhook.Decision {
	return webhook.Decision{ID: q.ID(), Outcome: webhook.Allowed}
}

// running is a server under test.
type running struct {
	*Server
	dir    string
	log    *syncBuffer
	client *servertest.Client
	stop   context.CancelFunc
	ended  chan error
}

type syncBuffer struct {
	mutex sync.Mutex
	b     bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.b.String()
}

func writeCertificate(t *testing.T, dir string, now time.Time) []byte {
	t.Helper()
	cert, key, err := servertest.Certificate(now, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"tls.crt": cert, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert
}

// lasting is a deadline that stays.
func lasting(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

func start(t *testing.T, current func() Reviewer, change func(*Config)) *running {
	t.Helper()
	r := &running{dir: t.TempDir(), log: &syncBuffer{}, ended: make(chan error, 1)}
	cert := writeCertificate(t, r.dir, time.Now())
	config := Config{
		Listen: "127.0.0.1:0", MetricsListen: "127.0.0.1:0", CertFile: filepath.Join(r.dir, "tls.crt"), KeyFile: filepath.Join(r.dir, "tls.key"),
		Current: current, Deadline: lasting(5 * time.Second), Log: slog.New(slog.NewJSONHandler(r.log, nil)), Metrics: NewMetrics(),
	}
	if change != nil {
		change(&config)
	}
	var err error
	if r.Server, err = New(config); err != nil {
		t.Fatal(err)
	}
	if r.client, err = servertest.NewClient("https://"+r.Addr().String(), cert); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r.stop = cancel
	go func() { r.ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		r.client.Close()
		cancel()
		if err := <-r.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

func pod() servertest.Object {
	return servertest.Object{JSON: []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"ws","namespace":"team"},"spec":{"containers":[{"name":"dev","image":"r.io/a:v1"}]}}`)}
}

func only(r Reviewer) func() Reviewer { return func() Reviewer { return r } }

// TestPanicIsContained: it denies that review, is counted, and the next one is decided.
func TestPanicIsContained(t *testing.T) {
	first := true
	r := start(t, only(reviewer{mutate: allow, validate: func(ctx context.Context, q *webhook.Request) webhook.Decision {
		if first {
			first = false
			panic("verifier")
		}
		return allow(ctx, q)
	}}), nil)
	response, err := r.client.Review(t.Context(), "/validate", pod())
	if err != nil {
		t.Fatal(err)
	}
	if response.Allowed || response.Result.Code != 500 || strings.Contains(response.Result.Message, "verifier") {
		t.Errorf("got %+v", response)
	}
	if n := testutil.ToFloat64(r.config.Metrics.panics); n != 1 {
		t.Errorf("%v panics counted", n)
	}
	if !strings.Contains(r.log.String(), "panic in a review") {
		t.Error("the panic is not in the log")
	}
	if response, err = r.client.Review(t.Context(), "/validate", pod()); err != nil || !response.Allowed {
		t.Errorf("after the panic: %+v, %v", response, err)
	}
}

// review is one of a pod.
func review(t *testing.T) []byte {
	t.Helper()
	r, err := servertest.NewReview("1", pod())
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestDeadline is the API server's, less a margin, or the configured one, which may change.
func TestDeadline(t *testing.T) {
	var left time.Duration
	configured := 5 * time.Second
	r := start(t, only(reviewer{validate: func(ctx context.Context, q *webhook.Request) webhook.Decision {
		deadline, _ := ctx.Deadline()
		left = time.Until(deadline)
		return allow(ctx, q)
	}}), func(c *Config) { c.Deadline = func() time.Duration { return configured } })
	body := review(t)
	for query, want := range map[string]time.Duration{
		"": 5 * time.Second, "?timeout=2s": 1800 * time.Millisecond, "?timeout=30s": 5 * time.Second, "?timeout=soon": 5 * time.Second,
		"?timeout=-1s": 5 * time.Second,
	} {
		if status, text, err := r.client.Post(t.Context(), "/validate"+query, body); err != nil || status != 200 {
			t.Fatalf("%d %s %v", status, text, err)
		}
		if left > want || left < want-time.Second {
			t.Errorf("%q leaves %v, want %v", query, left, want)
		}
	}
	configured = 20 * time.Second
	if status, text, err := r.client.Post(t.Context(), "/validate", body); err != nil || status != 200 || left < 15*time.Second {
		t.Errorf("with more time in the configuration, %v are left: %d %s %v", left, status, text, err)
	}
}

// TestLongReview: a review may take longer than its request may be on its way.
func TestLongReview(t *testing.T) {
	t.Parallel()
	r := start(t, only(reviewer{validate: func(ctx context.Context, q *webhook.Request) webhook.Decision {
		select {
		case <-ctx.Done():
			return webhook.Decision{Outcome: webhook.Undecided, Code: http.StatusServiceUnavailable}
		case <-time.After(slowest + time.Second):
			return allow(ctx, q)
		}
	}}), func(c *Config) { c.Deadline = lasting(20 * time.Second) })
	body := review(t)
	if status, text, err := r.client.Post(t.Context(), "/validate", body); err != nil || status != 200 || !strings.Contains(string(text), `"allowed":true`) {
		t.Errorf("%d %s %v", status, text, err)
	}
}

// TestReadiness tells the truth about configuration and certificate; liveness does not depend on them.
func TestReadiness(t *testing.T) {
	var current Reviewer
	var mutex sync.Mutex
	r := start(t, func() Reviewer { mutex.Lock(); defer mutex.Unlock(); return current }, nil)
	get := func(path string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.MetricsAddr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		status, text, err := r.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		return status, string(text)
	}
	if status, text := get("/readyz"); status != 503 || !strings.Contains(text, "no valid configuration") {
		t.Errorf("without a configuration: %d %s", status, text)
	}
	if response, err := r.client.Review(t.Context(), "/validate", pod()); err != nil || response.Allowed || response.Result.Code != 503 {
		t.Errorf("without a configuration: %+v, %v", response, err)
	}
	mutex.Lock()
	current = reviewer{allow, allow}
	mutex.Unlock()
	if status, _ := get("/readyz"); status != 200 {
		t.Errorf("with a configuration: %d", status)
	}
	writeCertificate(t, r.dir, time.Now().AddDate(0, 0, -3))
	if _, err := r.certificate.load(); err != nil {
		t.Fatal(err)
	}
	if status, text := get("/readyz"); status != 503 || !strings.Contains(text, "expired") {
		t.Errorf("with an expired certificate: %d %s", status, text)
	}
	if status, _ := get("/livez"); status != 200 {
		t.Errorf("livez: %d", status)
	}
}

// TestCertificateReload: a new pair is served without a restart; a bad pair leaves the old one.
func TestCertificateReload(t *testing.T) {
	r := start(t, only(reviewer{allow, allow}), nil)
	old := r.certificate.current.Load()
	if err := os.WriteFile(filepath.Join(r.dir, "tls.key"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := r.certificate.load(); changed || err == nil || r.certificate.current.Load() != old {
		t.Errorf("a broken key: changed %t, %v", changed, err)
	}
	cert := writeCertificate(t, r.dir, time.Now())
	if changed, err := r.certificate.load(); !changed || err != nil {
		t.Fatalf("a new pair: changed %t, %v", changed, err)
	}
	client, err := servertest.NewClient("https://"+r.Addr().String(), cert)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Review(t.Context(), "/validate", pod()); err != nil {
		t.Errorf("with the new certificate: %v", err)
	}
}

// TestTLS: 1.2 at least, and HTTP/1.1, which is what API servers speak to webhooks.
func TestTLS(t *testing.T) {
	r := start(t, only(reviewer{allow, allow}), nil)
	dial := func(config *tls.Config) (*tls.Conn, error) {
		config.InsecureSkipVerify = true
		dialer := tls.Dialer{Config: config}
		c, err := dialer.DialContext(t.Context(), "tcp", r.Addr().String())
		if err != nil {
			return nil, err
		}
		return c.(*tls.Conn), nil
	}
	if _, err := dial(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	conn, err := dial(&tls.Config{NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("protocol %q", p)
	}
}

// TestSlowClient: who sends headers drop by drop is cut off, and others are served meanwhile.
func TestSlowClient(t *testing.T) {
	r := start(t, only(reviewer{allow, allow}), nil)
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /validate HTTP/1.1\r\nHost: a\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Review(t.Context(), "/validate", pod()); err != nil {
		t.Errorf("another client: %v", err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the slow client was not cut off: %v", err)
	}
}

// TestStop: unready at once, requests of the delay are answered with a request to close, and the last one is waited for.
func TestStop(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := start(t, only(reviewer{mutate: allow, validate: func(ctx context.Context, q *webhook.Request) webhook.Decision {
		close(entered)
		<-release
		return allow(ctx, q)
	}}), func(c *Config) { c.ShutdownDelay = 300 * time.Millisecond })
	var group sync.WaitGroup
	group.Go(func() {
		if response, err := r.client.Review(t.Context(), "/validate", pod()); err != nil || !response.Allowed {
			t.Errorf("the review under way got %+v, %v", response, err)
		}
	})
	<-entered
	r.stop()
	for !r.stopping.Load() {
		time.Sleep(time.Millisecond)
	}
	if err := r.ready(); err == nil {
		t.Error("still ready")
	}
	if response, err := r.client.Review(t.Context(), "/mutate", pod()); err != nil || !response.Allowed {
		t.Errorf("during the delay: %+v, %v", response, err)
	}
	time.AfterFunc(400*time.Millisecond, func() { close(release) })
	group.Wait()
	for {
		c, err := net.DialTimeout("tcp", r.Addr().String(), time.Second)
		if err != nil {
			return
		}
		_ = c.Close()
		time.Sleep(time.Millisecond)
	}
}

// TestResponse is what the API server checks: version, uid, patch with its type, status.
func TestResponse(t *testing.T) {
	request := &webhook.Request{UID: "705ab4f5-6393-11e8-b7cc-42010a800002"}
	for title, c := range map[string]struct {
		decision webhook.Decision
		want     string
	}{
		"allowed": {webhook.Decision{Outcome: webhook.Allowed}, `"response":{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","allowed":true}`},
		"patched": {webhook.Decision{Outcome: webhook.Patched, Patch: []byte("[]")}, `"allowed":true,"patch":"W10=","patchType":"JSONPatch"}`},
		"denied": {webhook.Decision{ID: "705ab4f5", Outcome: webhook.Denied, Code: 403, Message: "no"},
			`"allowed":false,"status":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no","reason":"Forbidden","code":403},"auditAnnotations":{"decision":"denied","id":"705ab4f5"}`},
		"undecided": {webhook.Decision{Outcome: webhook.Undecided, Code: 503}, `"reason":"ServiceUnavailable","code":503`},
	} {
		body, err := encode(request, c.decision)
		if err != nil || !strings.Contains(string(body), c.want) || !strings.HasPrefix(string(body), `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1",`) {
			t.Errorf("%s: %s, %v; want %s", title, body, err, c.want)
		}
	}
}

// TestNew reports a missing certificate and a taken address together.
func TestNew(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = New(Config{
		Listen: taken.Addr().String(), CertFile: filepath.Join(t.TempDir(), "none"), Metrics: NewMetrics(), Log: slog.New(slog.DiscardHandler),
	})
	if err == nil || !strings.Contains(err.Error(), "read serving certificate") || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}
