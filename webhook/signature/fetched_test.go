package signature

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A script is what reading gives, one answer after the other; the last one for ever.
type script struct {
	answers []answer
	took    time.Duration // of each reading

	mu       sync.Mutex
	readings []time.Time
	changed  int
	reported []string
}

type answer struct {
	value   string
	lives   time.Duration // zero for ever
	err     error
	panics  bool
	forever bool // until the context ends
}

func (s *script) read(ctx context.Context) (string, time.Time, error) {
	s.mu.Lock()
	a := s.answers[min(len(s.readings), len(s.answers)-1)]
	s.readings = append(s.readings, time.Now())
	s.mu.Unlock()
	if a.panics {
		panic("hostile")
	}
	if a.forever {
		<-ctx.Done()
		return "", time.Time{}, ctx.Err()
	}
	time.Sleep(s.took) // of the bubble's clock
	if a.lives == 0 {
		return a.value, time.Time{}, a.err
	}
	return a.value, time.Now().Add(a.lives), a.err
}

func (s *script) start(t *testing.T) *fetched[string] {
	f := startFetching(t.Context(), fetching{
		every: time.Hour, timeout: time.Minute, now: time.Now,
		changed: func() { s.changed++ },
		report:  func(err error) { s.reported = append(s.reported, err.Error()) },
	}, s.read)
	return f
}

// gaps are the times between readings.
func (s *script) gaps() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var gaps []time.Duration
	for i := 1; i < len(s.readings); i++ {
		gaps = append(gaps, s.readings[i].Sub(s.readings[i-1]))
	}
	return gaps
}

// says tells whether an error contains a text, or there is none for "".
func says(err error, want string) bool {
	if want == "" || err == nil {
		return want == "" && err == nil
	}
	return strings.Contains(err.Error(), want)
}

var errDown = errors.New("it is down")

func TestFetched(t *testing.T) {
	for _, tc := range []struct {
		name     string
		answers  []answer
		after    time.Duration
		want     string
		wantErr  string
		readings int
		changed  int
		reported []string
	}{
		{name: "a value", answers: []answer{{value: "a"}}, want: "a", readings: 1, changed: 1},
		{name: "read again", answers: []answer{{value: "a"}, {value: "b"}}, after: time.Hour,
			want: "b", readings: 2, changed: 2},
		{name: "a failure", answers: []answer{{err: errDown}}, readings: 1,
			wantErr: "it could not be read, which is tried again: it is down", reported: []string{"it is down"}},
		{name: "healed", answers: []answer{{err: errDown}, {value: "a"}}, after: time.Second, want: "a",
			readings: 2, changed: 1, reported: []string{"it is down"}},
		{name: "failure after a value that never expires", answers: []answer{{value: "a"}, {err: errDown}},
			after: time.Hour, want: "a", readings: 2, changed: 1, reported: []string{"it is down"}},
		{name: "failure after a value that has not expired",
			answers: []answer{{value: "a", lives: 90 * time.Minute}, {err: errDown}},
			after:   45 * time.Minute, want: "a", readings: 2, changed: 1, reported: []string{"it is down"}},
		{name: "sooner for what expires", answers: []answer{{value: "a", lives: 20 * time.Minute}, {value: "b"}},
			after: 10 * time.Minute, want: "b", readings: 2, changed: 2},
		{name: "already expired", answers: []answer{{value: "a", lives: -time.Hour}},
			wantErr: "it expired at 1999-12-31T23:00:00Z and is being read again", readings: 1, changed: 1},
		{name: "provisional", answers: []answer{{value: "a", err: &provisional{errDown}}, {value: "b"}}, want: "a",
			readings: 1, changed: 1, reported: []string{"using the value from before: it is down"}},
		{name: "after provisional", answers: []answer{{value: "a", err: &provisional{}}, {value: "b"}}, after: time.Second,
			want: "b", readings: 2, changed: 2},
		{name: "panic", answers: []answer{{panics: true}}, wantErr: "reading panicked: string",
			readings: 1, reported: []string{"reading panicked: string"}},
		{name: "no answer", answers: []answer{{forever: true}}, after: time.Minute, wantErr: "context deadline exceeded",
			readings: 1, reported: []string{"context deadline exceeded"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: tc.answers}
				f := s.start(t)
				time.Sleep(tc.after)
				synctest.Wait()
				got, err := f.get()
				f.close()
				if got != tc.want {
					t.Errorf("got %q, want %q", got, tc.want)
				}
				if !says(err, tc.wantErr) {
					t.Errorf("got error %v, want %q", err, tc.wantErr)
				}
				if len(s.readings) != tc.readings || s.changed != tc.changed || !slices.Equal(s.reported, tc.reported) {
					t.Errorf("got %d readings, %d changes, reports %q; want %d, %d, %q",
						len(s.readings), s.changed, s.reported, tc.readings, tc.changed, tc.reported)
				}
			})
		})
	}
}

// A value is used until the moment at which it expires, and reading is tried all that time.
func TestFetchedUntilExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{value: "a", lives: 24 * time.Hour}, {err: errDown}}}
		f := s.start(t)
		defer f.close()
		time.Sleep(24*time.Hour - time.Nanosecond)
		if got, err := f.get(); got != "a" {
			t.Errorf("before: got %q, %v", got, err)
		}
		time.Sleep(time.Nanosecond)
		const want = "it expired at 2000-01-02T00:00:00Z and could not be read again, which is tried: it is down"
		if got, err := f.get(); got != "" || err == nil || err.Error() != want {
			t.Errorf("after: got %q, %v\nwant %s", got, err, want)
		}
		if !errors.Is(f.wait(t.Context()), errDown) {
			t.Error("the cause is lost")
		}
	})
}

func TestFetchedPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{err: errDown}}}
		f := s.start(t)
		time.Sleep(30 * time.Minute)
		f.close()
		gaps := s.gaps()
		if len(gaps) < 12 {
			t.Fatalf("%d readings in half an hour", len(gaps))
		}
		for i, gap := range gaps {
			longest := min(time.Second<<i, 5*time.Minute)
			if gap > longest || gap < longest*3/4 {
				t.Errorf("pause %d is %s, want 3/4 to all of %s", i, gap, longest)
			}
		}
	})
}

// A success in between begins the pauses anew.
func TestFetchedPausesAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{err: errDown}, {err: errDown}, {err: errDown}, {value: "a"}, {err: errDown}}}
		f := s.start(t)
		time.Sleep(time.Hour + 10*time.Second)
		f.close()
		if gaps := s.gaps(); len(gaps) < 5 || gaps[3] != time.Hour || gaps[4] > time.Second {
			t.Errorf("got %v, want an hour after the success and a second after the failure", gaps)
		}
	})
}

// get answers while the first reading goes on, wait waits for it, and close ends it.
func TestFetchedWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []answer{{value: "a"}}, took: 10 * time.Second}
		f := s.start(t)
		defer f.close()
		if _, err := f.get(); !errors.Is(err, errNotRead) {
			t.Errorf("got %v", err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.wait(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		before := time.Now()
		if err := f.wait(t.Context()); err != nil || time.Since(before) != 9*time.Second {
			t.Errorf("got %v after %s, want none after the other 9 s", err, time.Since(before))
		}
	})
}

func TestFetchedClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner, cancel := context.WithCancel(t.Context())
		s := &script{answers: []answer{{forever: true}}}
		f := startFetching(owner, fetching{every: time.Hour, timeout: time.Hour, now: time.Now}, s.read)
		cancel() // the owner's context is over when it has started
		synctest.Wait()
		if _, err := f.get(); !errors.Is(err, errNotRead) {
			t.Errorf("got %v, want it to go on", err)
		}
		before := time.Now()
		f.close()
		if !before.Equal(time.Now()) {
			t.Error("closing waited for the reading's own end")
		}
		if err := f.wait(t.Context()); !errors.Is(err, errNotRead) {
			t.Errorf("got %v", err)
		}
		f.close()
	})
}

func TestOutsideURL(t *testing.T) {
	for text, want := range map[string]string{
		"https://tuf.example.com/root":   "",
		"http://127.0.0.1:8080":          "",
		"http://[::1]:8080":              "",
		"http://localhost":               "",
		"http://tuf.example.com":         "has to begin with https://",
		"http://127.0.0.1.example.com":   "has to begin with https://",
		"http://localhost.example.com":   "has to begin with https://",
		"ftp://tuf.example.com":          "has to begin with https://",
		"https://u:s3cr3t@example.com":   "without credentials",
		"https://example.com?a=s3cr3t":   "without credentials",
		"tuf.example.com":                "not a URL",
		"https://s3cr3t:bad port/":       "not a URL",
		"https://example.com/\x7fs3cr3t": "not a URL",
		"":                               "not a URL",
	} {
		_, err := outsideURL(text)
		if !says(err, want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%q: the error says too much", text)
		}
	}
}
