package server

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"
)

// turns bounds how many reviews are decided at the same time, and how many wait for that.
//
// Most reviews need a fraction of a millisecond of a processor and nothing else, so there are few places, and a short
// queue before them. A review that has its place for longer waits for a registry. It goes on without one, among so many
// others that do: a registry that hangs never keeps away the reviews that need none. When there are too many of those
// that wait, the next one is ended instead.
type turns struct {
	places   chan *turn
	patience time.Duration // how long a review may keep a place
	maxQueue int64
	maxSlow  int64
	metrics  *Metrics

	queued atomic.Int64 // reviews that wait for a place
	slow   atomic.Int64 // reviews that have lost theirs
	full   atomic.Int64 // since when too many are slow and none has ended, in nanoseconds since 1970; 0 is not now
}

// A turn is a place. It stays with the review that was slow in it, and another one takes its part.
type turn struct {
	timer  *time.Timer
	cancel context.CancelFunc // ends the review that has it
	ended  atomic.Bool        // … which was done, since too many wait
}

const (
	placesPerCPU = 16                    // few enough for short turns, and enough for a registry that answers within patience
	patience     = 10 * time.Millisecond // several times what the largest pod needs when everything about it is known
	stuckAfter   = time.Minute           // more than twice the longest deadline
)

// newTurns divides inFlight into places and those that may be slow.
func newTurns(inFlight, queue int, metrics *Metrics) *turns {
	places := max(1, min(placesPerCPU*runtime.GOMAXPROCS(0), inFlight/4))
	t := &turns{
		places: make(chan *turn, places), patience: patience, maxQueue: int64(queue), maxSlow: int64(inFlight - places), metrics: metrics,
	}
	for range places {
		t.places <- t.newTurn()
	}
	return t
}

func (t *turns) newTurn() *turn {
	one := &turn{}
	one.timer = time.AfterFunc(time.Hour, func() { t.late(one) })
	one.timer.Stop()
	return one
}

// take gives a place when it is the review's turn, or nil: at once when too many wait already, or when ctx ends. cancel
// ends ctx.
func (t *turns) take(ctx context.Context, cancel context.CancelFunc) *turn {
	select {
	case one := <-t.places:
		return t.begin(one, cancel)
	default:
	}
	if t.queued.Add(1) > t.maxQueue {
		t.queued.Add(-1)
		t.metrics.overloaded("queue")
		return nil
	}
	t.metrics.queued.Inc()
	defer func() {
		t.queued.Add(-1)
		t.metrics.queued.Dec()
	}()
	select {
	case one := <-t.places:
		return t.begin(one, cancel)
	case <-ctx.Done():
		t.metrics.overloaded("queue")
		return nil
	}
}

func (t *turns) begin(one *turn, cancel context.CancelFunc) *turn {
	one.cancel = cancel
	one.timer.Reset(t.patience)
	return one
}

// late gives the place of a review on.
func (t *turns) late(one *turn) {
	if t.slow.Add(1) > t.maxSlow {
		t.full.CompareAndSwap(0, time.Now().UnixNano())
		t.metrics.overloaded("waiting")
		one.ended.Store(true)
		one.cancel()
	}
	t.places <- t.newTurn() // there is room: the review's own does not come back
}

// end gives the place back, if the review still has one.
func (t *turns) end(one *turn) {
	if t.full.Load() != 0 {
		t.full.Store(0)
	}
	if one.timer.Stop() {
		t.places <- one
		return
	}
	t.slow.Add(-1)
}

// stuck says that reviews neither end nor leave room for others. Each has a deadline, so they never will.
func (t *turns) stuck(now time.Time) error {
	if since := t.full.Load(); since != 0 && now.Sub(time.Unix(0, since)) > stuckAfter {
		return errors.New("no review has ended for more than " + stuckAfter.String())
	}
	return nil
}
