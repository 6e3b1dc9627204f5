package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/evidence"
	"github.com/hallmark-admission/hallmark/webhook/policy"
	"github.com/hallmark-admission/hallmark/webhook/server"
)

// A loader keeps the generation in force: it makes a new one when files change, and keeps the old when the new one is
// bad.
type loader struct {
	configFile string
	policyDirs []string
	outside    outside
	metrics    *server.Metrics
	log        *slog.Logger
	generation atomic.Pointer[generation]
	warming    func() // ends the reading of golden images

	fingerprint string // of everything that made the generation
}

// load makes a generation from the files as they are now, and gives it the evidence of the ones before. Warnings go to
// the log.
func (l *loader) load(ctx context.Context) error {
	source, err := shippedPolicies(l.policyDirs)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(l.configFile)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	c, problems, err := config.Load(text, l.outside.now())
	if err != nil {
		return fmt.Errorf("%s:\n%w", l.configFile, err)
	}
	fingerprint, err := fingerprint(source, c)
	if err != nil || fingerprint == l.fingerprint {
		return err
	}
	if l.outside.store == nil {
		store, err := openStore(c)
		if err != nil {
			return err
		}
		l.outside.store = store
		l.metrics.CacheBytes(store.Bytes)
	}
	next, err := newGeneration(ctx, c, source, l.outside)
	if err != nil {
		return err
	}
	for _, p := range problems {
		l.log.Warn("configuration", "file", l.configFile, "problem", p.String())
	}
	l.fingerprint = fingerprint
	l.outside.trust = next.trust
	l.metrics.Policy(next.reviewer.Revision)
	l.metrics.Exemptions(exemptionEnds(c))
	if old := l.generation.Swap(next); old != nil {
		old.close()
	}
	l.log.Info("configuration and policies loaded", "policy", next.reviewer.Revision, "rules", len(next.reviewer.Rules))
	l.stopWarming()
	warming, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
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
func fingerprint(source policy.Source, c *config.Config) (string, error) {
	all := c.Text
	for _, file := range c.Files() {
		text, err := os.ReadFile(file)
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

// watch loads again when files change, until ctx ends.
func (l *loader) watch(ctx context.Context) error {
	dirs := func() []string {
		dirs := append([]string{filepath.Dir(l.configFile)}, l.policyDirs...)
		for _, file := range l.generation.Load().config.Files() {
			dirs = append(dirs, filepath.Dir(file))
		}
		return dirs
	}
	return config.Watch(ctx, dirs, func() {
		err := l.load(ctx)
		l.metrics.Reloaded("config", err)
		if err != nil && !errors.Is(err, context.Canceled) {
			l.log.Error("configuration or policies could not be reloaded; the old ones stay in force", "error", err)
		}
	})
}

// current is the reviewer in force, nil while there is none.
func (l *loader) current() server.Reviewer {
	if g := l.generation.Load(); g != nil {
		return g.reviewer
	}
	return nil
}

// close ends what the generation in force has open, and waits for the work behind requests.
func (l *loader) close() error {
	l.stopWarming()
	err := l.outside.store.Close()
	l.generation.Load().close()
	return err
}

// openStore makes the memory of the process, over a directory when the configuration names one.
func openStore(c *config.Config) (*evidence.Store, error) {
	limits := evidence.Limits{Bytes: int64(c.Cache.MaxBytes)}
	if c.Cache.Dir == "" {
		return evidence.NewStore(limits, nil), nil
	}
	disk, err := evidence.OpenDisk(c.Cache.Dir, int64(c.Cache.DirBytes))
	if err != nil {
		return nil, err
	}
	return evidence.NewStore(limits, disk), nil
}
