package config

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watch calls changed after something in one of the directories changed and then nothing more for a moment, until ctx
// ends. It watches directories, not files: an editor replaces a file, and a mounted ConfigMap swaps a symbolic link
// beside it.
func Watch(ctx context.Context, paths []string, changed func()) error {
	const quiet = 100 * time.Millisecond
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch for changes: %w", err)
	}
	defer watcher.Close()
	var dirs []string
	for _, path := range paths {
		if dir := filepath.Clean(path); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
			if err := watcher.Add(dir); err != nil {
				return fmt.Errorf("watch %s for changes: %w", dir, err)
			}
		}
	}
	timer := time.NewTimer(0)
	<-timer.C
	for {
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
