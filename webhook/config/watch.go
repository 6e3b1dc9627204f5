package config

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watch calls changed once for what changed before it began to watch, and then after something in one of the directories
// changed and nothing more for a moment, until ctx ends. It asks for the directories again after each change. It watches directories, not files: an editor replaces a
// file, and a mounted ConfigMap or Secret swaps a symbolic link beside it.
func Watch(ctx context.Context, dirs func() []string, changed func()) error {
	const quiet = 100 * time.Millisecond
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch for changes: %w", err)
	}
	defer watcher.Close()
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		for _, dir := range dirs() {
			// Adding a directory again changes nothing.
			if err := watcher.Add(filepath.Clean(dir)); err != nil {
				return fmt.Errorf("watch %s for changes: %w", dir, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			timer.Reset(quiet)
		case err := <-watcher.Errors:
			if err != nil {
				timer.Reset(quiet) // events may be lost: look again
			}
		case <-timer.C:
			changed()
		}
	}
}
