package decisionlog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// An Event is one decision, as OPA's EventV1 has it.
type Event struct {
	Labels     map[string]string `json:"labels"`
	DecisionID string            `json:"decision_id"`
	Bundles    map[string]Bundle `json:"bundles,omitempty"`
	Path       string            `json:"path"`
	Input      any               `json:"input,omitempty"`
	Result     any               `json:"result"`
	Timestamp  time.Time         `json:"timestamp"`
	Metrics    map[string]any    `json:"metrics,omitempty"`
}

// A Bundle says what was in force.
type Bundle struct {
	Revision string `json:"revision"`
}

// Config of a Sink.
type Config struct {
	URL       string        // where arrays of events are posted; https, or http on the loopback interface
	CAFile    string        // PEM; the server's certificate must come from one of these. "" is the system's
	TokenFile string        // a bearer token, read for every request; "" is none
	Every     time.Duration // an event waits no longer before it is sent the first time
	MaxBytes  int64         // of events that wait; the oldest are dropped for more
	Pause     time.Duration // after the first failure, doubled with each further one; 0 is a second

	ReadFile func(name string) ([]byte, error) // reads CAFile; nil is os.ReadFile

	Observe func(result string, events int) // told what became of events: sent or dropped; nil tells nobody
	Log     *slog.Logger
}

const (
	batchBytes   = 1 << 20 // of events in one request, before they are compressed, about
	longestPause = time.Minute
)

// A Sink sends events behind its callers.
type Sink struct {
	config Config
	client *client

	wake    chan struct{} // has an element when there is a batch
	closing chan struct{}
	done    chan struct{}
	stop    context.CancelFunc // ends the sending

	mutex   sync.Mutex
	waiting []entry
	bytes   int64
}

// An entry is an event that is not made yet.
type entry struct {
	size int64
	make func() (*Event, error)
}

// New checks the configuration, and contacts nobody.
func New(ctx context.Context, config Config) (*Sink, error) {
	client, err := newClient(config)
	if err != nil {
		return nil, fmt.Errorf("decision log %s: %w", config.URL, err)
	}
	if config.Pause <= 0 {
		config.Pause = time.Second
	}
	if config.Observe == nil {
		config.Observe = func(string, int) {}
	}
	s := &Sink{
		config: config, client: client,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go s.run(sending)
	return s, nil
}

// Add has an event sent, some time later. What it is made of must not change any more; size is about how many bytes that
// keeps.
func (s *Sink) Add(size int64, event func() (*Event, error)) {
	s.mutex.Lock()
	s.waiting = append(s.waiting, entry{size, event})
	s.bytes += size
	dropped := 0
	for s.bytes > s.config.MaxBytes && len(s.waiting) > 0 {
		s.bytes -= s.waiting[0].size
		s.waiting[0] = entry{}
		s.waiting = s.waiting[1:]
		dropped++
	}
	full := s.bytes >= batchBytes
	s.mutex.Unlock()
	if dropped > 0 {
		s.config.Observe("dropped", dropped)
	}
	if full {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Close sends what waits, until ctx ends, and says how much could not be sent.
func (s *Sink) Close(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.stop)()
	close(s.closing)
	<-s.done
	s.stop()
	s.client.close()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if n := len(s.waiting); n > 0 {
		s.config.Observe("dropped", n)
		return fmt.Errorf("decision log %s: the last %d decisions could not be sent", s.config.URL, n)
	}
	return nil
}

func (s *Sink) run(ctx context.Context) {
	defer close(s.done)
	ticker := time.NewTicker(s.config.Every)
	defer ticker.Stop()
	for {
		last := false
		select {
		case <-s.wake:
		case <-ticker.C:
		case <-s.closing:
			last = true
		}
		for ctx.Err() == nil {
			batch := s.take()
			if len(batch) == 0 {
				break
			}
			s.send(ctx, batch)
		}
		if last {
			return
		}
	}
}

// take removes a batch from the buffer.
func (s *Sink) take() []entry {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	n, bytes := 0, int64(0)
	for n < len(s.waiting) && (n == 0 || bytes+s.waiting[n].size <= batchBytes) {
		bytes += s.waiting[n].size
		n++
	}
	batch := s.waiting[:n:n]
	s.waiting = s.waiting[n:]
	s.bytes -= bytes
	return batch
}

// send tries until the batch is taken, the service says that it never will be, or Close gives up.
func (s *Sink) send(ctx context.Context, batch []entry) {
	body, n, err := encode(batch)
	if err != nil {
		s.config.Log.Error("a decision could not be encoded for the decision log", "error", err)
		s.config.Observe("dropped", len(batch)-n)
	}
	if n == 0 {
		return
	}
	for failures := 0; ; failures++ {
		err := s.client.post(ctx, body)
		switch {
		case err == nil:
			s.config.Observe("sent", n)
			if failures > 0 {
				s.config.Log.Info("the decision log is taken again", "url", s.config.URL)
			}
			return
		case errors.Is(err, errRefused), ctx.Err() != nil:
			s.config.Observe("dropped", n)
			s.config.Log.Error("decisions are lost for the decision log", "url", s.config.URL, "decisions", n, "error", err)
			return
		case failures == 0:
			s.config.Log.Warn("the decision log could not be sent; it is tried again", "url", s.config.URL, "error", err)
		}
		pause := min(s.config.Pause<<min(failures, 16), longestPause)
		select {
		case <-time.After(pause/2 + rand.N(pause/2)): //nolint:gosec // so that replicas do not all come at once
		case <-ctx.Done():
		}
	}
}

// encode makes one array of the events, and says how many are in it. An error is about those that are not.
func encode(batch []entry) (body []byte, n int, err error) {
	var b bytes.Buffer
	packed := gzip.NewWriter(&b)
	separator := []byte{'['}
	for _, e := range batch {
		event, failed := e.make()
		var text []byte
		if failed == nil {
			text, failed = json.Marshal(event)
		}
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		_, _ = packed.Write(append(separator, text...)) // into memory
		separator = []byte{','}
		n++
	}
	_, _ = packed.Write([]byte{']'})
	err = errors.Join(err, packed.Close())
	return b.Bytes(), n, err
}
