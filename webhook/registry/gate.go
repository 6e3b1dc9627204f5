package registry

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hallmark-admission/hallmark/webhook"
)

// How a gate treats a registry that fails.
const (
	tolerated    = 5                      // failures in a row before it is left alone
	firstPause   = 500 * time.Millisecond // doubled with every further failure
	longestPause = 5 * time.Second        // one request in that time is no burden, and its recovery is soon seen
	longestAsked = 30 * time.Second       // of a Retry-After
	longestWait  = 2 * time.Second        // that a request stands before the gate for a Retry-After
)

// A gate stands before one registry. It lets through so many requests a second, none while the registry has asked to be
// left alone, and after several failures in a row only one now and then, so that an outage costs an admission nothing but
// a look at the gate. What it refuses fails with the reason of the last failure.
type gate struct {
	limiter *rate.Limiter
	now     func() time.Time

	mutex    sync.Mutex
	failures int       // in a row
	closed   time.Time // until when
	asked    bool      // … because the registry asked for it
	probing  bool      // the one request that tries whether it is back is under way
	reason   string    // of the last failure
}

func newGate(perSecond int, now func() time.Time) *gate {
	return &gate{limiter: rate.NewLimiter(rate.Limit(perSecond), 2*perSecond), now: now}
}

// enter waits for a turn. It refuses what could not be asked within its deadline, with a reason that continues the name
// of the registry.
func (g *gate) enter(ctx context.Context) (refused string, err error) {
	for waited := time.Duration(0); ; { // others who waited may have been sent away again
		pause, refused := g.look()
		if refused != "" {
			return refused, nil
		}
		if pause == 0 {
			break
		}
		waited += pause
		if deadline, ok := ctx.Deadline(); waited > longestWait || ok && time.Until(deadline) < pause {
			return g.lastReason(), nil
		}
		if err := wait(ctx, pause); err != nil {
			return "", err
		}
	}
	if err := g.limiter.Wait(ctx); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return fmt.Sprintf("is asked for more than %.0f things a second from here", float64(g.limiter.Limit())), nil
	}
	return "", nil
}

func wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// look gives how long to wait, or why to give up at once: a registry that goes on asking to be left alone is no better to
// wait for than one that is down.
func (g *gate) look() (pause time.Duration, refused string) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	now := g.now()
	switch {
	case now.Before(g.closed) && g.asked && g.failures < tolerated:
		return g.closed.Sub(now), ""
	case now.Before(g.closed), g.failures >= tolerated && g.probing:
		return 0, g.reason
	case g.failures >= tolerated:
		g.probing = true
	}
	return 0, ""
}

func (g *gate) lastReason() string {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	return g.reason
}

// leave takes note of how a request went. failure is nil for any answer, also for a refusal; gone says that the caller
// went away before there was one.
func (g *gate) leave(failure *webhook.ReadError, header http.Header, gone bool) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.probing = false
	switch {
	case gone:
		return
	case failure == nil:
		g.failures, g.asked = 0, false
		return
	}
	g.failures++
	g.reason = failure.Reason
	if wait := retryAfter(header, g.now()); wait > 0 {
		g.closed, g.asked = g.now().Add(min(wait, longestAsked)), true
	} else if over := g.failures - tolerated; over >= 0 {
		g.closed, g.asked = g.now().Add(min(firstPause<<min(over, 10), longestPause)), false
	}
}

// retryAfter reads the header of that name: seconds, or a date (RFC 9110, section 10.2.3).
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 {
		return min(time.Duration(seconds), 3600) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return date.Sub(now)
	}
	return 0
}
