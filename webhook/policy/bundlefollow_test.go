package policy

import (
	"context"
	"crypto/elliptic"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// answers is a place that gives one answer after the other, and then the last one again.
type answers struct {
	mutex sync.Mutex
	list  []answer
	asked []string // versions
	at    []time.Duration
	start time.Time
}

// readings is how often it was asked.
func (a *answers) readings() int {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return len(a.asked)
}

type answer struct {
	archive []byte
	version string
	err     error
	hangs   bool
}

func (a *answers) fetch(ctx context.Context, version string) ([]byte, string, error) {
	a.mutex.Lock()
	a.asked, a.at = append(a.asked, version), append(a.at, time.Since(a.start))
	now := a.list[0]
	if len(a.list) > 1 {
		a.list = a.list[1:]
	}
	a.mutex.Unlock()
	if now.hangs {
		<-ctx.Done()
		return nil, "", ctx.Err()
	}
	return now.archive, now.version, now.err
}

// TestFollow: the last good bundle counts, changes are told once, and so is each kind of failure.
func TestFollow(t *testing.T) {
	s := ecSigner(t, elliptic.P256(), "ES256")
	first, second := s.signed(t, host()), s.signed(t, content{files: map[string]string{"b.rego": "package b\n"}})
	bad := ecSigner(t, elliptic.P256(), "ES256").signed(t, host())
	reader := newReader(t, BundleConfig{KeyPEM: []byte(s.public)})
	down := errors.New("down")
	for name, c := range map[string]struct {
		known     [][]byte
		answers   []answer
		readings  int
		want      []byte // nil for no bundle
		changes   int
		reported  []string
		versions  []string
		pauses    []time.Duration // at most, to the tenth
		beginning []byte          // before anything was read
	}{
		"fresh, the same, another": {
			answers:  []answer{{archive: first, version: "1"}, {version: "1"}, {archive: second, version: "2"}},
			readings: 4, want: second, changes: 2, versions: []string{"", "1", "1", "2"},
			pauses: []time.Duration{time.Minute, time.Minute, time.Minute},
		},
		"the same archive without a version": {
			answers: []answer{{archive: first}}, readings: 3, want: first, changes: 1, versions: []string{"", "", ""},
		},
		"down at first": {
			answers:  []answer{{err: down}, {err: down}, {err: down}, {archive: first, version: "1"}},
			readings: 5, want: first, changes: 1, reported: []string{"down"}, versions: []string{"", "", "", "", "1"},
			pauses: []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, time.Minute},
		},
		"down later": {
			answers:  []answer{{archive: first, version: "1"}, {err: down}, {err: errors.New("worse")}, {err: down}, {version: "1"}, {err: down}},
			readings: 6, want: first, changes: 1, reported: []string{"down", "worse", "down"},
			versions: []string{"", "1", "1", "1", "1", "1"},
		},
		"by another key": {
			answers:  []answer{{archive: first, version: "1"}, {archive: bad, version: "2"}, {archive: bad, version: "2"}, {archive: second, version: "2"}},
			readings: 4, want: second, changes: 2, reported: []string{"failed to verify JWT signature"}, versions: []string{"", "1", "1", "1"},
		},
		"known and offline":         {known: [][]byte{first}, answers: []answer{{err: down}}, readings: 2, want: first, beginning: first, reported: []string{"down"}},
		"known and the same":        {known: [][]byte{first}, answers: []answer{{archive: first, version: "1"}}, readings: 1, want: first, beginning: first},
		"known and another":         {known: [][]byte{first}, answers: []answer{{archive: second}}, readings: 1, want: second, beginning: first, changes: 1},
		"known by another key":      {known: [][]byte{bad, []byte("x"), second}, answers: []answer{{err: down}}, readings: 1, want: second, beginning: second, reported: []string{"down"}},
		"known, and none is good":   {known: [][]byte{bad}, answers: []answer{{err: down}}, readings: 1, reported: []string{"down"}},
		"a server that never ends":  {answers: []answer{{hangs: true}, {archive: first}}, readings: 2, want: first, changes: 1, reported: []string{"no answer within 30s"}},
		"different all of the time": {answers: manyFailures(), readings: 30, reported: slices.Repeat([]string{"failure"}, maxReported)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				changes, reported := 0, []string(nil)
				place := &answers{list: c.answers, start: time.Now()}
				f := NewFollower(FollowConfig{
					Reader: reader, Fetch: place.fetch, Every: time.Minute, Known: c.known,
					Changed: func() { changes++ }, Report: func(err error) { reported = append(reported, err.Error()) },
				})
				if !isBundle(f.Latest(), c.beginning) {
					t.Errorf("begins with %+v", f.Latest())
				}
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); f.Run(ctx) }()
				synctest.Wait()
				for place.readings() < c.readings || c.answers[0].hangs && time.Since(place.start) < 32*time.Second {
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
				}
				stop()
				<-done
				if !isBundle(f.Latest(), c.want) || changes != c.changes {
					t.Errorf("%d changes, want %d; now %+v", changes, c.changes, f.Latest())
				}
				if !slices.EqualFunc(reported, c.reported, strings.Contains) {
					t.Errorf("reported %q, want %q", reported, c.reported)
				}
				if c.versions != nil && !slices.Equal(place.asked, c.versions) {
					t.Errorf("asked with versions %q, want %q", place.asked, c.versions)
				}
				for i, most := range c.pauses {
					if pause := place.at[i+1] - place.at[i]; pause > most || pause < most-most/10-1 {
						t.Errorf("pause %d is %v, want %v less a tenth", i, pause, most)
					}
				}
			})
		})
	}
}

func isBundle(b *Bundle, archive []byte) bool {
	if archive == nil || b == nil {
		return archive == nil && b == nil
	}
	return slices.Equal(b.Archive, archive)
}

func manyFailures() (list []answer) {
	for i := range 40 {
		list = append(list, answer{err: errors.New("failure " + strings.Repeat("x", i))})
	}
	return list
}
