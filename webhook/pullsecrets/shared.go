package pullsecrets

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Bounds of what is remembered: the answers, and the size of one. A Docker config has some hundred bytes.
const (
	maxAnswers     = 512
	maxAnswerBytes = 32 << 10
)

// shared answers from memory, and lets callers who want the same thing share one request. It runs on a context of its
// own, so that one impatient caller cannot fail the others.
type shared struct {
	read    func(context.Context, object) (answer, error)
	ttl     time.Duration
	timeout time.Duration
	now     func() time.Time
	running sync.WaitGroup

	mutex   sync.Mutex
	known   *simplelru.LRU[object, remembered]
	flights map[object]*flight
	closed  bool // nothing is added to running any more
}

type remembered struct {
	answer answer
	until  time.Time
}

type flight struct {
	done   chan struct{} // closed when answer and err are set
	answer answer
	err    error
}

func newShared(config Config, read func(context.Context, object) (answer, error)) *shared {
	known, err := simplelru.NewLRU[object, remembered](maxAnswers, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &shared{
		read: read, ttl: config.CacheTTL, timeout: config.Timeout, now: config.Now, known: known, flights: map[object]*flight{},
	}
}

// get gives what the API has under a name. Errors are *webhook.PullError.
func (s *shared) get(ctx context.Context, o object) (answer, error) {
	if !isName(o.name) {
		return o.missing("cannot exist: that is no name")
	}
	s.mutex.Lock()
	if last, ok := s.known.Get(o); ok {
		if s.now().Before(last.until) {
			s.mutex.Unlock()
			return last.answer, nil
		}
		s.known.Remove(o)
	}
	f := s.flights[o]
	if f == nil {
		f = &flight{done: make(chan struct{}), err: o.failed("of an internal error", true, errors.New("the request panicked"))}
		s.flights[o] = f
		detached := context.WithoutCancel(ctx)
		if s.closed { // for a request that outlived the client; it ends by itself
			go s.run(detached, o, f)
		} else {
			s.running.Go(func() { s.run(detached, o, f) })
		}
	}
	s.mutex.Unlock()
	select {
	case <-f.done:
		return f.answer, f.err
	case <-ctx.Done():
		return answer{}, o.failed("the Kubernetes API did not answer in time", true, ctx.Err())
	}
}

func (s *shared) run(ctx context.Context, o object, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	f.answer, f.err = s.read(ctx, o)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if f.err == nil && f.answer.note == "" && f.answer.size() <= maxAnswerBytes && s.ttl > 0 {
		s.known.Add(o, remembered{f.answer, s.now().Add(s.ttl)})
	}
	delete(s.flights, o)
	close(f.done)
}

// close waits for the requests under way.
func (s *shared) close() {
	s.mutex.Lock()
	s.closed = true
	s.mutex.Unlock()
	s.running.Wait()
}

// failed words why something is not known.
func (o object) failed(reason string, retry bool, cause error) error {
	return &webhook.PullError{Reason: "the " + o.String() + " could not be read: " + reason, Retry: retry, Err: cause}
}
