package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/evidence"
	"github.com/hallmark-admission/hallmark/webhook/policy"
	"github.com/hallmark-admission/hallmark/webhook/server"
)

// A loader keeps the generation in force: it makes a new one when files or bundles change, and keeps the old when the
// new one is bad.
type loader struct {
	configFile string
	policyDirs []string
	outside    outside
	metrics    *server.Metrics
	log        *slog.Logger
	decisions  *decisionLog // nil sends no decisions
	generation atomic.Pointer[generation]
	arrived    chan struct{} // has an element when a bundle has changed

	mutex       sync.Mutex // for what follows
	wanted      *inputs    // as the files are now; nil while they could not be read
	inForce     *inputs    // that the generation was made of; nil while there is none
	following   map[string]*following
	fingerprint string // of everything that made the generation
	told        string // the last trouble with bundles that was logged
	warming     func() // ends the reading of golden images
}

// newLoader makes one that has loaded nothing.
func newLoader(configFile string, policyDirs []string, out outside, metrics *server.Metrics) *loader {
	return &loader{
		configFile: configFile, policyDirs: policyDirs, outside: out, metrics: metrics, log: out.log,
		arrived: make(chan struct{}, 1), following: map[string]*following{},
	}
}

// inputs are everything that a generation is made of.
type inputs struct {
	config   *config.Config
	problems []config.Problem
	rules    policy.Source // shipped ones and those of directories
	bundles  []*following
	files    *files // that the configuration names
}

// load makes a generation from the files as they are now, and gives it the evidence of the ones before. Warnings go to
// the log. An error that is unfinished says that it may become one without another change of files.
func (l *loader) load(ctx context.Context) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	defer l.unfollow()
	in, err := l.read(ctx)
	if err != nil {
		return err
	}
	l.wanted = in
	return l.renew(ctx)
}

// read reads the files, and begins to follow the bundles that the configuration names.
func (l *loader) read(ctx context.Context) (*inputs, error) {
	source, err := shippedPolicies(l.policyDirs)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(l.configFile)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	in := &inputs{rules: source, files: newFiles()}
	if was := l.wanted; was != nil && bytes.Equal(was.config.Text, text) { // another file of the directory has changed
		in.config, in.problems = was.config, was.problems
	} else if in.config, in.problems, err = config.Load(text, l.outside.now()); err != nil {
		return nil, fmt.Errorf("%s:\n%w", l.configFile, err)
	}
	in.bundles, err = l.follow(ctx, in.config, l.outsideOf(in))
	return in, err
}

// outsideOf is the outside with the files of the inputs.
func (l *loader) outsideOf(in *inputs) outside {
	out := l.outside
	out.readFile = in.files.read
	return out
}

// replace puts a generation in force that is made of a source, whose fingerprint is given.
func (l *loader) replace(ctx context.Context, in *inputs, source policy.Source) error {
	if l.outside.store == nil {
		store, err := openStore(in.config, l.cacheBytes(in.config))
		if err != nil {
			return err
		}
		l.outside.store = store
		l.metrics.CacheBytes(store.Bytes)
	}
	next, err := newGeneration(ctx, in.config, source, l.outsideOf(in))
	if err != nil {
		return err
	}
	if l.decisions != nil {
		if err := l.decisions.follow(ctx, next, in.files.read); err != nil {
			next.close()
			return err
		}
	}
	for _, p := range in.problems {
		l.log.Warn("configuration", "file", l.configFile, "problem", p.String())
	}
	l.outside.trust = next.trust
	l.metrics.Policy(next.reviewer.Revision)
	l.metrics.Exemptions(exemptionEnds(in.config))
	if old := l.generation.Swap(next); old != nil {
		old.close()
	}
	l.log.Info("configuration and policies loaded", "policy", next.reviewer.Revision, "rules", len(next.reviewer.Rules))
	l.stopWarming()
	warming, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// What loading needed is garbage now: of a catalogue of 10,000 images ten times what is left of it.
		debug.FreeOSMemory()
		warm(warming, next, l.log)
	}()
	l.warming = func() { stop(); <-done }
	return nil
}

// exemptionEnds gives when each exemption ends.
func exemptionEnds(c *config.Config) map[string]time.Time {
	ends := map[string]time.Time{}
	for _, e := range c.Exemptions {
		if end, err := e.End(); err == nil { // the configuration was checked
			ends[e.Name] = end
		}
	}
	return ends
}

// fingerprint changes with the policies, the configuration, and the content of every file that it names.
func (in *inputs) fingerprint(source policy.Source) (string, error) {
	all := in.config.Text
	for _, file := range in.config.Files() {
		text, err := in.files.read(file)
		if err != nil {
			return "", fmt.Errorf("read a file that the configuration names: %w", err)
		}
		all = fmt.Appendf(all[:len(all):len(all)], "\x00%s %d ", file, len(text))
		all = append(all, text...)
	}
	return source.Revision(all), nil
}

// stopWarming ends the warming of the generation before.
func (l *loader) stopWarming() {
	if l.warming != nil {
		l.warming()
	}
}

// watch loads again when files change, and renews the generation when bundles do, until ctx ends.
func (l *loader) watch(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var bundles sync.WaitGroup
	bundles.Go(func() {
		for {
			select {
			case <-l.arrived:
				l.renewBundles(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	defer bundles.Wait()
	defer stop()
	return config.Watch(ctx, l.dirs, func() {
		err := l.load(ctx)
		if unfinished(err) {
			l.tell(err)
			return
		}
		l.metrics.Reloaded("config", err)
		if err != nil && !errors.Is(err, context.Canceled) {
			l.log.Error("configuration or policies could not be reloaded; the old ones stay in force", "error", err)
		}
	})
}

// dirs are those of the files that matter.
func (l *loader) dirs() []string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	dirs := append([]string{filepath.Dir(l.configFile)}, l.policyDirs...)
	for _, in := range []*inputs{l.wanted, l.inForce} {
		if in == nil {
			continue
		}
		for _, file := range in.config.Files() {
			dirs = append(dirs, filepath.Dir(file))
		}
	}
	return dirs
}

// current is the reviewer in force, nil while there is none.
func (l *loader) current() server.Reviewer {
	if g := l.generation.Load(); g != nil {
		return g.reviewer
	}
	return nil
}

// deadline is that of a review, by the configuration in force.
func (l *loader) deadline() time.Duration {
	if g := l.generation.Load(); g != nil {
		return time.Duration(g.config.Limits.Deadline)
	}
	return time.Second // nothing is decided that would take longer
}

// close ends what the generation in force has open, and waits for the work behind requests.
func (l *loader) close() error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.wanted, l.inForce = nil, nil
	l.unfollow()
	l.stopWarming()
	var err error
	if l.outside.store != nil {
		err = l.outside.store.Close()
	}
	if g := l.generation.Load(); g != nil {
		g.close()
	}
	return err
}

// cacheBytes is what the configuration gives the cache, as far as the memory allows it.
func (l *loader) cacheBytes(c *config.Config) int64 {
	wanted, bound := int64(c.Cache.MaxBytes), l.outside.cacheBytes
	if bound == 0 || wanted <= bound {
		return wanted
	}
	l.log.Warn("cache.maxBytes is more than a quarter of the memory that the process may have, which is what the cache gets", "bytes", bound)
	return bound
}

// openStore makes the memory of the process, over a directory when the configuration names one.
func openStore(c *config.Config, bytes int64) (*evidence.Store, error) {
	limits := evidence.Limits{Bytes: bytes}
	if c.Cache.Dir == "" {
		return evidence.NewStore(limits, nil), nil
	}
	disk, err := evidence.OpenDisk(c.Cache.Dir, int64(c.Cache.DirBytes))
	if err != nil {
		return nil, err
	}
	return evidence.NewStore(limits, disk), nil
}
