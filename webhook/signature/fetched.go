package signature

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

const (
	minPause = time.Second     // after a first failure; each one more doubles it
	maxPause = 5 * time.Minute // so that what heals is noticed within it
)

// fetching says how something is read from outside.
type fetching struct {
	every   time.Duration // from one success to the next reading; sooner when the value expires before
	timeout time.Duration // of one reading
	now     func() time.Time
	changed func()      // called after every value that was read, by the reading goroutine; may be nil
	report  func(error) // called after every failure likewise; may be nil
}

// A fetched value comes from outside and is read behind the requests that use it. It is used until it expires, however
// long reading it again fails.
type fetched[T any] struct {
	config fetching
	read   func(context.Context) (T, time.Time, error)
	cancel context.CancelFunc
	first  chan struct{} // closed when there is a value or a failure
	done   chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	value   T
	has     bool
	expires time.Time // zero for never
	failure error     // of the last reading; nil when it succeeded
}

// A provisional error comes with a value that is to be used although it may not be the latest one: reading it is tried
// again as after a failure. Without a cause nothing has failed, and nothing is reported.
type provisional struct{ cause error }

func (p *provisional) Error() string {
	if p.cause == nil {
		return "the value may not be the latest one"
	}
	return "using the value from before: " + p.cause.Error()
}

func (p *provisional) Unwrap() error { return p.cause }

var errNotRead = errors.New("it has not been read yet; try again in a moment")

// startFetching reads at once, in the background, and goes on until close. read gives the value with the time at which
// it expires, zero for never, and has to end with its context. ctx is for values, not for the time.
func startFetching[T any](
	ctx context.Context, config fetching, read func(ctx context.Context) (value T, expires time.Time, err error),
) *fetched[T] {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) //nolint:gosec // close calls it
	f := &fetched[T]{
		config: config, read: read, cancel: cancel,
		first: make(chan struct{}), done: make(chan struct{}), failure: errNotRead,
	}
	go f.run(ctx)
	return f
}

// takeOver has the value of another one count until the first reading has succeeded.
func (f *fetched[T]) takeOver(from *fetched[T]) {
	from.mu.Lock()
	value, has, expires := from.value, from.has, from.expires
	from.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.has && has {
		f.value, f.has, f.expires = value, has, expires
	}
}

// get gives the value. It never waits; its error says why there is none, and that it is being tried again.
func (f *fetched[T]) get() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var none T
	expired := f.has && !f.expires.IsZero() && !f.config.now().Before(f.expires)
	switch {
	case f.has && !expired:
		return f.value, nil
	case errors.Is(f.failure, errNotRead):
		return none, f.failure
	case !expired:
		return none, fmt.Errorf("it could not be read, which is tried again: %w", f.failure)
	case f.failure == nil:
		return none, fmt.Errorf("it expired at %s and is being read again", f.expires.UTC().Format(time.RFC3339))
	}
	return none, fmt.Errorf("it expired at %s and could not be read again, which is tried: %w",
		f.expires.UTC().Format(time.RFC3339), f.failure)
}

// wait waits until something was read or could not be, and gives the error that get would.
func (f *fetched[T]) wait(ctx context.Context) error {
	select {
	case <-f.first:
	case <-f.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for the first reading: %w", ctx.Err())
	}
	_, err := f.get()
	return err
}

// close ends the reading and waits for its end. The value stays.
func (f *fetched[T]) close() {
	f.cancel()
	<-f.done
}

func (f *fetched[T]) run(ctx context.Context) {
	defer close(f.done)
	failures := 0
	for first := true; ; first = false {
		value, expires, err := f.readOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		f.keep(value, expires, err)
		if first {
			close(f.first)
		}
		pause := f.untilNext(expires)
		if err != nil {
			pause = afterFailure(failures)
			failures++
		} else {
			failures = 0
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// readOnce reads in the time that it has. What is read comes from others, so a panic over it is a failure.
func (f *fetched[T]) readOnce(ctx context.Context) (value T, expires time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.config.timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reading panicked: %T", p)
		}
	}()
	return f.read(ctx)
}

// keep takes over what was read and tells of it. A failure leaves the value that is there.
func (f *fetched[T]) keep(value T, expires time.Time, err error) {
	var early *provisional
	usable := err == nil || errors.As(err, &early)
	f.mu.Lock()
	f.failure = err
	if usable {
		f.value, f.has, f.expires = value, true, expires
	}
	f.mu.Unlock()
	if usable && f.config.changed != nil {
		f.config.changed()
	}
	if err != nil && f.config.report != nil && (early == nil || early.cause != nil) {
		f.config.report(err)
	}
}

// untilNext is the time from a success to the next reading: what was asked for, or half of what the value has left.
func (f *fetched[T]) untilNext(expires time.Time) time.Duration {
	if expires.IsZero() {
		return f.config.every
	}
	return min(f.config.every, max(expires.Sub(f.config.now())/2, minPause))
}

// afterFailure is the pause after one failure more than n. Up to a quarter is chance, so that replicas that failed
// together do not ask together again.
func afterFailure(n int) time.Duration {
	pause := maxPause
	if n < 9 { // 2^8 s are less than the longest pause
		pause = min(minPause<<n, maxPause)
	}
	return pause - rand.N(pause/4) //nolint:gosec // not a secret
}

// outsideURL accepts what trust may be read from: HTTPS, or plain HTTP on the loopback interface. Credentials in a URL
// would get into logs.
func outsideURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		return nil, errors.New("it is not a URL such as https://host/path")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the URL has to be without credentials, query and fragment")
	case u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()):
		return u, nil
	}
	return nil, errors.New("the URL has to begin with https://; plain http is for the loopback interface alone")
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}
