package config

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWatchIsPatient: a directory that never comes to rest, since somebody logs into it, does not put off a reload for ever.
func TestWatchIsPatient(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	dir := t.TempDir()
	changed := make(chan struct{}, 100)
	watched := make(chan error, 1)
	go func() {
		watched <- Watch(ctx, func() []string { return []string{dir} }, func() { changed <- struct{}{} })
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for calls := 0; calls < 3; {
		select {
		case <-tick.C:
			if err := os.WriteFile(filepath.Join(dir, "log"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		case <-changed:
			calls++
		case <-ctx.Done():
			t.Fatalf("called %d times within 30s", calls)
		}
	}
	stop()
	if err := <-watched; err != nil {
		t.Error(err)
	}
}
