package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// wantOverload wants so much of a kind to have been turned away.
func wantOverload(t *testing.T, m *Metrics, what string, n float64) {
	t.Helper()
	if got := testutil.ToFloat64(m.overload.WithLabelValues(what)); got != n {
		t.Errorf("%v times overloaded by %s, want %v", got, what, n)
	}
}

// TestQueue: a review waits for its turn, the next one is refused at once, and one whose deadline comes gives up.
func TestQueue(t *testing.T) {
	m := NewMetrics()
	turns := newTurns(1, 1, m)
	turns.patience = time.Hour
	first := turns.take(t.Context(), nil)
	if first == nil {
		t.Fatal("the first review did not get its turn")
	}
	second := make(chan *turn)
	go func() { second <- turns.take(t.Context(), nil) }()
	for turns.queued.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if turns.take(t.Context(), nil) != nil {
		t.Error("a third review was let in")
	}
	wantOverload(t, m, "queue", 1)
	turns.end(first)
	got := <-second
	if got == nil {
		t.Fatal("the second review did not get its turn")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if turns.take(gone, nil) != nil {
		t.Error("a review whose time is over was let in")
	}
	turns.end(got)
	if turns.queued.Load() != 0 || turns.slow.Load() != 0 || len(turns.places) != cap(turns.places) {
		t.Errorf("%d wait, %d are slow, and %d of %d places are free", turns.queued.Load(), turns.slow.Load(), len(turns.places), cap(turns.places))
	}
}

// TestSlowReviewsKeepNobodyAway: reviews that hang are as many as they may be, one more is ended, and quick ones are
// decided all the while.
func TestSlowReviewsKeepNobodyAway(t *testing.T) {
	decide := func(ctx context.Context, q *webhook.Request) webhook.Decision {
		if q.Namespace == "slow" {
			<-ctx.Done()
			return webhook.Decision{ID: q.ID(), Outcome: webhook.Undecided, Code: 503, Message: "the registry did not answer in time"}
		}
		return allow(ctx, q)
	}
	r := start(t, only(reviewer{decide, decide}), func(c *Config) { c.Limits, c.Deadline = Limits{InFlight: 4, Queue: 2}, lasting(2*time.Second) })
	slow := servertest.Object{JSON: bytes.ReplaceAll(pod().JSON, []byte(`"team"`), []byte(`"slow"`))}
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			response, err := r.client.Review(t.Context(), "/validate", slow)
			if err != nil || response.Allowed || !strings.Contains(response.Result.Message, "did not answer in time") {
				t.Errorf("a review that hangs got %+v, %v", response, err)
			}
		})
	}
	for r.turns.slow.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	for _, path := range []string{"/mutate", "/validate"} {
		response, err := r.client.Review(t.Context(), path, slow)
		if err != nil || response.Allowed || response.Result.Code != 503 || !strings.Contains(response.Result.Message, "Hallmark is overloaded; try again.") {
			t.Errorf("%s: one more review that hangs got %+v, %v", path, response, err)
		}
	}
	wantOverload(t, r.config.Metrics, "waiting", 2)
	for range 20 {
		if response, err := r.client.Review(t.Context(), "/validate", pod()); err != nil || !response.Allowed {
			t.Errorf("a quick review got %+v, %v", response, err)
		}
	}
	if elapsed := time.Since(began); elapsed > time.Second {
		t.Errorf("they took %v", elapsed)
	}
	group.Wait()
	wantOverload(t, r.config.Metrics, "queue", 0)
	if err := r.turns.stuck(time.Now()); err != nil {
		t.Error(err)
	}
}

// TestStuck: liveness ends when reviews neither end nor leave room for others, and comes back when one ends.
func TestStuck(t *testing.T) {
	turns := newTurns(2, 1, NewMetrics())
	turns.patience = time.Millisecond
	var held []*turn
	for range 2 {
		held = append(held, turns.take(t.Context(), func() {}))
	}
	for turns.full.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := turns.stuck(time.Now().Add(30 * time.Second)); err != nil {
		t.Errorf("after half a minute: %v", err)
	}
	if err := turns.stuck(time.Now().Add(2 * time.Minute)); err == nil || !strings.Contains(err.Error(), "no review has ended for more than 1m0s") {
		t.Errorf("after two minutes: %v", err)
	}
	turns.end(held[0])
	if err := turns.stuck(time.Now().Add(2 * time.Minute)); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// dial makes a connection and sends the beginning of a request.
func (r *running) dial(t *testing.T, text string) *tls.Conn {
	t.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn.(*tls.Conn)
}

// TestLargeBodies: when there is no room for another large body it is not read, the API server is told to try again, and
// small ones are not concerned.
func TestLargeBodies(t *testing.T) {
	r := start(t, only(reviewer{allow, allow}), func(c *Config) { c.Limits.BodyBytes = 1 })
	post := func(size int) string {
		return fmt.Sprintf("POST /validate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", size)
	}
	r.dial(t, post(maxBody))
	chunked := strings.Replace(post(0), "Content-Length: 0", "Transfer-Encoding: chunked", 1)
	r.dial(t, chunked[:len(chunked)-1]+"1\r\n{\r\n") // of unknown length, so as large as the largest
	large := append([]byte(`{"a":"`), bytes.Repeat([]byte("x"), smallBody)...)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+r.Addr().String()+"/validate", nil)
	if err != nil {
		t.Fatal(err)
	}
	for request.Header.Set("Content-Type", "application/json"); ; time.Sleep(time.Millisecond) {
		request.Body = io.NopCloser(bytes.NewReader(large))
		request.ContentLength = int64(len(large))
		status, text, err := r.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if status == http.StatusBadRequest {
			continue // the other two have not come yet
		}
		if status != http.StatusServiceUnavailable || !strings.Contains(string(text), "overloaded by large reviews; try again") {
			t.Errorf("got %d %s", status, text)
		}
		break
	}
	wantOverload(t, r.config.Metrics, "bodies", 1)
	began := time.Now()
	if response, err := r.client.Review(t.Context(), "/validate", pod()); err != nil || !response.Allowed || time.Since(began) > time.Second {
		t.Errorf("a small review got %+v, %v after %v", response, err, time.Since(began))
	}
}

// TestConnections: who holds all connections that there may be keeps nobody away, and who waits for an answer is not cut
// off for it.
func TestConnections(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	r := start(t, only(reviewer{mutate: allow, validate: func(ctx context.Context, q *webhook.Request) webhook.Decision {
		entered <- struct{}{}
		<-release
		return allow(ctx, q)
	}}), func(c *Config) { c.Limits.Connections = 4 })
	var group sync.WaitGroup
	group.Go(func() {
		if response, err := r.client.Review(t.Context(), "/validate", pod()); err != nil || !response.Allowed {
			t.Errorf("the review that was under way got %+v, %v", response, err)
		}
	})
	<-entered
	for _, begin := range []string{"", "POST /mutate HTTP/1.1\r\n", "POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"} {
		for range 3 {
			r.dial(t, begin)
		}
		if response, err := r.client.Review(t.Context(), "/mutate", pod()); err != nil || !response.Allowed {
			t.Errorf("among connections that sent %q: %+v, %v", begin, response, err)
		}
	}
	if n := testutil.ToFloat64(r.config.Metrics.overload.WithLabelValues("connections")); n < 6 {
		t.Errorf("only %v connections were closed", n)
	}
	close(release)
	group.Wait()
}
