package binaries_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
)

// TestEnsureTakesWhatIsThere shows that a present file is never built again. The files are stand-ins, so nothing is
// compiled; the key is learned from an Ensure of nothing.
func TestEnsureTakesWhatIsThere(t *testing.T) {
	var progress strings.Builder
	cfg := binaries.Config{Cache: t.TempDir(), Progress: &progress}
	dir, err := binaries.Ensure(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{binaries.Etcd, binaries.Kubectl} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	again, err := binaries.Ensure(t.Context(), cfg, binaries.Kubectl, binaries.Etcd)
	if err != nil || again != dir {
		t.Errorf("directory: got %q, %v, want %q", again, err, dir)
	}
	if progress.Len() != 0 {
		t.Errorf("something was built: %s", &progress)
	}
}

// TestEnsureStops shows that a caller who gives up leaves no half-built program and no temporary directory.
func TestEnsureStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cfg := binaries.Config{Cache: t.TempDir(), Progress: cancelOnWrite(cancel)}
	if dir, err := binaries.Ensure(ctx, cfg, binaries.Kwok); err == nil {
		t.Fatalf("built in %s although stopped", dir)
	}
	left, err := filepath.Glob(filepath.Join(cfg.Cache, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		if filepath.Base(path) != ".lock" {
			t.Errorf("left behind: %s", path)
		}
	}
}

func TestEnsureRefusesUnknownPrograms(t *testing.T) {
	_, err := binaries.Ensure(t.Context(), binaries.Config{Cache: t.TempDir()}, "kube-apisrver")
	if err == nil || !strings.Contains(err.Error(), `unknown program "kube-apisrver"`) {
		t.Errorf("error: got %v", err)
	}
}

// cancelOnWrite ends a context with the first line of progress, which comes when a build begins.
type cancelOnWrite context.CancelFunc

func (c cancelOnWrite) Write(p []byte) (int, error) {
	c()
	return len(p), nil
}
