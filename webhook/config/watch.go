package config

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watch calls changed once for what changed before it began to watch, and then after something in one of the directories
// changed and nothing more for a moment, or for a second of changes without a moment's rest, until ctx ends. It asks for
// the directories again after each call. It watches directories, not files: an editor replaces a file, and a mounted
// ConfigMap or Secret swaps a symbolic link beside it.
func Watch(ctx context.Context, dirs func() []string, changed func()) error {
	const quiet, patience = 100 * time.Millisecond, time.Second
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch for changes: %w", err)
	}
	defer watcher.Close()
	add := func() error {
		for _, dir := range dirs() {
			// Adding a directory again changes nothing.
			if err := watcher.Add(filepath.Clean(dir)); err != nil {
				return fmt.Errorf("watch %s for changes: %w", dir, err)
			}
		}
		return nil
	}
	if err := add(); err != nil {
		return err
	}
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	var since time.Time // the first change that changed was not called for; zero for none
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
		case err := <-watcher.Errors:
			if err == nil {
				continue
			}
			// Events may be lost: look again.
		case <-timer.C:
			since = time.Time{}
			changed()
			if err := add(); err != nil {
				return err
			}
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		timer.Reset(min(quiet, patience-time.Since(since)))
	}
}
