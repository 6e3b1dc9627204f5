package decisionlog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// eventV1 is an event as OPA writes and reads it (open-policy-agent/opa v1.22.0, v1/plugins/logs, EventV1), with the fields
// that can stand in JSON. OPA's own package would bring modules that the product does not have.
type eventV1 struct {
	Labels          map[string]string `json:"labels"`
	DecisionID      string            `json:"decision_id"`
	BatchDecisionID string            `json:"batch_decision_id,omitempty"`
	TraceID         string            `json:"trace_id,omitempty"`
	SpanID          string            `json:"span_id,omitempty"`
	Revision        string            `json:"revision,omitempty"`
	Bundles         map[string]struct {
		Revision string `json:"revision,omitempty"`
	} `json:"bundles,omitempty"`
	Path           string           `json:"path,omitempty"`
	Query          string           `json:"query,omitempty"`
	Input          *any             `json:"input,omitempty"`
	Result         *any             `json:"result,omitempty"`
	MappedResult   *any             `json:"mapped_result,omitempty"`
	NDBuiltinCache *any             `json:"nd_builtin_cache,omitempty"`
	Erased         []string         `json:"erased,omitempty"`
	Masked         []string         `json:"masked,omitempty"`
	RequestedBy    string           `json:"requested_by,omitempty"`
	Timestamp      time.Time        `json:"timestamp"`
	Metrics        map[string]any   `json:"metrics,omitempty"`
	RequestID      uint64           `json:"req_id,omitempty"`
	RuleLabels     []map[string]any `json:"rule_labels,omitempty"`
	Custom         map[string]any   `json:"custom,omitempty"`
}

// A service collects decision logs as OPA's own do.
type service struct {
	*httptest.Server
	mutex  sync.Mutex
	answer func(n int) int // the status of the request of that number, from 0
	events []eventV1
	calls  int
	header http.Header // of the last request
}

func newService(t *testing.T, answer func(n int) int) *service {
	t.Helper()
	s := &service{answer: answer}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	n := s.calls
	s.calls++
	s.header = r.Header.Clone()
	if s.answer != nil {
		if code := s.answer(n); code != http.StatusOK {
			if code >= 300 && code < 400 {
				w.Header().Set("Location", "/elsewhere")
			}
			w.WriteHeader(code)
			return
		}
	}
	unpacked, err := gzip.NewReader(r.Body)
	var events []eventV1
	if err == nil {
		decoder := json.NewDecoder(unpacked)
		decoder.DisallowUnknownFields()
		err = decoder.Decode(&events)
	}
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/logs" {
		http.Error(w, fmt.Sprint(r.Method, r.URL, err), http.StatusTeapot)
		return
	}
	s.events = append(s.events, events...)
}

// seen are the ids of the decisions that arrived.
func (s *service) seen() (ids []string, calls int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, e := range s.events {
		ids = append(ids, e.DecisionID)
	}
	return ids, s.calls
}

// await waits until what has arrived is as it should be.
func (s *service) await(t *testing.T, enough func(ids []string, calls int) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !enough(s.seen()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			ids, calls := s.seen()
			t.Fatalf("after %d requests there are %v", calls, ids)
		}
	}
}

// tally counts what became of events.
type tally struct {
	mutex  sync.Mutex
	counts map[string]int
}

func (c *tally) observe(result string, n int) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.counts[result] += n
}

func (c *tally) want(t *testing.T, sent, dropped int) {
	t.Helper()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.counts["sent"] != sent || c.counts["dropped"] != dropped {
		t.Errorf("counted %v, want %d sent and %d dropped", c.counts, sent, dropped)
	}
}

func newSink(t *testing.T, s *service, change func(*Config)) (*Sink, *tally, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c, log := &tally{counts: map[string]int{}}, &bytes.Buffer{}
	config := Config{
		URL: s.URL + "/logs", TokenFile: write("token", []byte("s3cr3t\n")),
		CAFile: write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})),
		Every:  10 * time.Millisecond, MaxBytes: 1 << 20, Pause: time.Millisecond, Observe: c.observe,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}
	if change != nil {
		change(&config)
	}
	sink, err := New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return sink, c, log
}

// event makes one with an id.
func event(id string) func() (*Event, error) {
	return func() (*Event, error) {
		return &Event{
			Labels: map[string]string{"app": "hallmark", "cluster": "prod"}, DecisionID: id, Path: "hallmark/validate",
			Bundles: map[string]Bundle{"hallmark": {Revision: "3f9c2e1"}},
			Input:   map[string]any{"request": map[string]any{"namespace": "team"}}, Result: map[string]any{"allowed": false},
			Timestamp: time.Date(2027, 3, 31, 12, 0, 0, 0, time.UTC), Metrics: map[string]any{"timer_server_handler_ns": 1200},
		}, nil
	}
}

func (s *Sink) addAll(from, to int) {
	for i := from; i < to; i++ {
		s.Add(100, event(fmt.Sprint(i)))
	}
}

func numbers(from, to int) (ids []string) {
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprint(i))
	}
	return ids
}

func closed(t *testing.T, s *Sink) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
	defer cancel()
	return s.Close(ctx)
}

// TestFormat: OPA's own type reads all that there is of an event, and the token goes along.
func TestFormat(t *testing.T) {
	s := newService(t, nil)
	sink, c, _ := newSink(t, s, nil)
	sink.Add(100, event("705ab4f5-6393-11e8-b7cc-42010a800002"))
	if err := closed(t, sink); err != nil {
		t.Fatal(err)
	}
	c.want(t, 1, 0)
	if len(s.events) != 1 {
		t.Fatalf("%d events arrived", len(s.events))
	}
	e := s.events[0]
	if e.DecisionID != "705ab4f5-6393-11e8-b7cc-42010a800002" || e.Path != "hallmark/validate" || e.Labels["cluster"] != "prod" ||
		e.Bundles["hallmark"].Revision != "3f9c2e1" || !e.Timestamp.Equal(time.Date(2027, 3, 31, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v", e)
	}
	if e.Input == nil || e.Result == nil || fmt.Sprint(*e.Result) != "map[allowed:false]" || fmt.Sprint(e.Metrics["timer_server_handler_ns"]) != "1200" {
		t.Errorf("got %+v", e)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer s3cr3t", "Content-Type": "application/json", "Content-Encoding": "gzip",
	} {
		if got := s.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestRetry: a service that fails gets everything when it is back, in order, and the log says so once.
func TestRetry(t *testing.T) {
	s := newService(t, func(n int) int {
		return append([]int{503, 429, 401, 302, 200}, slices.Repeat([]int{200}, 1000)...)[n]
	})
	sink, c, log := newSink(t, s, nil)
	sink.addAll(0, 10)
	s.await(t, func(ids []string, _ int) bool { return len(ids) == 10 })
	sink.addAll(10, 20)
	if err := closed(t, sink); err != nil {
		t.Fatal(err)
	}
	ids, _ := s.seen()
	if want := numbers(0, 20); !slices.Equal(ids, want) {
		t.Errorf("got %v, want %v", ids, want)
	}
	c.want(t, 20, 0)
	if text := log.String(); strings.Count(text, "could not be sent; it is tried again") != 1 || strings.Count(text, "is taken again") != 1 {
		t.Errorf("log:\n%s", text)
	}
	if strings.Contains(log.String(), "s3cr3t") {
		t.Error("the token stands in the log")
	}
}

// TestRefused: what the service will never take is dropped, and what comes after it is not kept waiting.
func TestRefused(t *testing.T) {
	for _, code := range []int{400, 413, 415, 422} {
		s := newService(t, func(n int) int {
			if n == 0 {
				return code
			}
			return http.StatusOK
		})
		sink, c, _ := newSink(t, s, nil)
		sink.addAll(0, 1)
		s.await(t, func(_ []string, calls int) bool { return calls > 0 })
		sink.addAll(1, 2)
		if err := closed(t, sink); err != nil {
			t.Fatal(err)
		}
		if ids, _ := s.seen(); !slices.Equal(ids, []string{"1"}) {
			t.Errorf("%d: got %v", code, ids)
		}
		c.want(t, 1, 1)
	}
}

// TestBounded: while the service fails the newest are kept, and Close gives up in time and counts what is lost.
func TestBounded(t *testing.T) {
	s := newService(t, func(int) int { return 503 })
	sink, c, _ := newSink(t, s, func(c *Config) { c.MaxBytes = 1000; c.Every = time.Hour })
	sink.addAll(0, 100) // ten fit
	sink.mutex.Lock()
	var first *Event
	if len(sink.waiting) == 10 {
		first, _ = sink.waiting[0].make()
	}
	sink.mutex.Unlock()
	if first == nil || first.DecisionID != "90" {
		t.Errorf("the first that waits is %+v", first)
	}
	c.want(t, 0, 90)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	err := sink.Close(ctx)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
	c.want(t, 0, 100)
	if _, calls := s.seen(); calls == 0 {
		t.Errorf("nothing was tried (%v)", err)
	}
}

// TestLarge: an event that has no room is dropped alone, and many make several requests.
func TestLarge(t *testing.T) {
	s := newService(t, nil)
	sink, c, _ := newSink(t, s, func(c *Config) { c.MaxBytes, c.Every = 8<<20, time.Hour })
	sink.Add(9<<20, event("too large"))
	for i := range 6 {
		sink.Add(batchBytes/2+1, event(fmt.Sprint(i)))
	}
	if err := closed(t, sink); err != nil {
		t.Fatal(err)
	}
	ids, calls := s.seen()
	if !slices.Equal(ids, numbers(0, 6)) || calls != 6 {
		t.Errorf("%d requests with %v", calls, ids)
	}
	c.want(t, 6, 1)
}

// TestBrokenEvent: one that cannot be made costs the others nothing.
func TestBrokenEvent(t *testing.T) {
	s := newService(t, nil)
	sink, c, log := newSink(t, s, func(c *Config) { c.Every = time.Hour })
	sink.Add(1, event("a"))
	sink.Add(1, func() (*Event, error) { return nil, errors.New("no JSON") })
	sink.Add(1, event("b"))
	if err := closed(t, sink); err != nil {
		t.Fatal(err)
	}
	if ids, _ := s.seen(); !slices.Equal(ids, []string{"a", "b"}) {
		t.Errorf("got %v", ids)
	}
	c.want(t, 2, 1)
	if !strings.Contains(log.String(), "no JSON") {
		t.Errorf("log: %s", log)
	}
}

// TestNew: what cannot work is said at once.
func TestNew(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, config := range map[string]Config{
		"ca: open": {CAFile: empty + "no"}, "holds no certificate in PEM": {CAFile: empty}, "holds no bearer token on one line": {TokenFile: empty},
		"credentials: open": {TokenFile: empty + "no"},
	} {
		config.URL, config.Every, config.Log = "https://logs.corp.example/logs", time.Second, slog.New(slog.NewTextHandler(io.Discard, nil))
		if _, err := New(t.Context(), config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
