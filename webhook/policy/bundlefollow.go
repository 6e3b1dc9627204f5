package policy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	fetchTimeout = 30 * time.Second // of one reading
	minPause     = time.Second      // after a first failure; each one more doubles it, up to the usual pause
	maxReported  = 20               // different failures in a row that are told of
)

// FollowConfig says how a bundle is followed.
type FollowConfig struct {
	Reader *BundleReader
	Fetch  Fetch
	Every  time.Duration // from one reading to the next
	Known  [][]byte      // archives from before: the first that can be read counts until another one was fetched

	// Run calls these, one at a time; nil tells nobody.
	Changed func()      // there is another bundle
	Report  func(error) // a reading failed in another way than those since the last success
}

// A Follower reads a bundle again and again, behind requests. What was read last counts, however long reading fails.
type Follower struct {
	config   FollowConfig
	version  string          // of the last bundle; "" when it was not fetched
	failures int             // in a row
	reported map[string]bool // their texts

	mutex  sync.Mutex
	latest *Bundle // nil while there is none
}

// NewFollower looks at what is known from before. It fetches nothing; that is for Read, or Run.
func NewFollower(config FollowConfig) *Follower {
	f := &Follower{config: config, reported: map[string]bool{}}
	for _, archive := range config.Known {
		// What does not hold, any more or at all, is as good as not there: it is about to be fetched.
		if b, err := config.Reader.Read(archive); err == nil {
			f.latest = b
			break
		}
	}
	return f
}

// Latest is the last bundle that could be read, nil while there is none.
func (f *Follower) Latest() *Bundle {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.latest
}

// Read reads once and says whether there is another bundle. It is not for use beside Run.
func (f *Follower) Read(ctx context.Context) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	archive, version, err := f.config.Fetch(ctx, f.version)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return false, fmt.Errorf("fetch bundle %s: no answer within %v", f.config.Reader.name, fetchTimeout)
	case err != nil:
		return false, fmt.Errorf("fetch bundle %s: %w", f.config.Reader.name, err)
	case archive == nil:
		return false, nil
	}
	b, err := f.config.Reader.Read(archive)
	if err != nil {
		return false, err // and its version is not remembered: what is served under it may become good
	}
	f.version = version
	f.mutex.Lock()
	defer f.mutex.Unlock()
	changed = f.latest == nil || f.latest.Digest != b.Digest
	if changed {
		f.latest = b
	}
	return changed, nil
}

// Run reads at once and then as often as configured, until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	for {
		changed, err := f.Read(ctx)
		if ctx.Err() != nil {
			return
		}
		f.tell(changed, err)
		timer := time.NewTimer(f.pause())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// tell counts failures in a row, and tells of each kind once.
func (f *Follower) tell(changed bool, err error) {
	if err == nil {
		f.failures = 0
		clear(f.reported)
		if changed && f.config.Changed != nil {
			f.config.Changed()
		}
		return
	}
	f.failures++
	if text := err.Error(); !f.reported[text] && len(f.reported) < maxReported {
		f.reported[text] = true
		if f.config.Report != nil {
			f.config.Report(err)
		}
	}
}

// pause is the time to the next reading. Up to a tenth is chance, so that replicas that began together do not always
// ask together.
func (f *Follower) pause() time.Duration {
	pause := f.config.Every
	if n := f.failures; n > 0 && n < 20 { // 2^20 s are more than anybody's pause
		pause = min(pause, minPause<<(n-1))
	}
	return pause - rand.N(pause/10+1) //nolint:gosec // not a secret
}
