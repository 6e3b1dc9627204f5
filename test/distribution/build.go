// Package distribution builds CNCF's registry (github.com/distribution/distribution), once, and keeps it: an honest
// registry of another make than the one that the other tests use.
//
// The program comes from the module cache: go.mod beside this file pins it as a tool, so a fresh machine needs Go and a
// module proxy. It is kept under a key of everything that decides what it contains, outside the checkout, and written
// whole or not at all; so a file that is there is up to date. Deleting the cache is always safe.
package distribution

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// CacheVariable names the environment variable that moves the cache.
	CacheVariable = "HALLMARK_DISTRIBUTION_CACHE"

	modulePath  = "github.com/hallmark-admission/hallmark/test/distribution"
	programPath = "github.com/distribution/distribution/v3/cmd/registry"
	// recipe is part of the key. Raise it when the flags or the environment of the build change.
	recipe = "1"
)

// Program gives the path of the registry program, after building it if it is absent. It must run inside this module,
// which is where the go command starts the module's tests and programs. Progress gets a line when a build begins and ends.
func Program(ctx context.Context, progress io.Writer) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	where, err := goOutput(ctx, "", "list", "-m", "-f", "{{.Path}}\n{{.Dir}}")
	if err != nil {
		return "", err
	}
	path, dir, _ := strings.Cut(where, "\n")
	if path != modulePath {
		return "", fmt.Errorf("the working directory is not in %s; run this in test/distribution", modulePath)
	}
	key, err := keyOf(ctx, dir)
	if err != nil {
		return "", err
	}
	program := filepath.Join(cache, key, "registry")
	if _, err := os.Stat(program); err == nil || !errors.Is(err, os.ErrNotExist) {
		return program, err
	}
	began := time.Now()
	fmt.Fprintf(progress, "build %s into %s (minutes when cold)\n", programPath, program)
	if err := build(ctx, dir, program); err != nil {
		return "", fmt.Errorf("build %s: %w", programPath, err)
	}
	fmt.Fprintf(progress, "built in %s\n", time.Since(began).Round(time.Second))
	return program, nil
}

func cacheDir() (string, error) {
	if dir := os.Getenv(CacheVariable); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache directory (set %s to choose one): %w", CacheVariable, err)
	}
	return filepath.Join(dir, "hallmark", "distribution"), nil
}

// keyOf is the version of the program and a hash of all that decides what it contains.
func keyOf(ctx context.Context, dir string) (string, error) {
	version, err := goOutput(ctx, dir, "list", "-m", "-f", "{{.Version}}", "github.com/distribution/distribution/v3")
	if err != nil {
		return "", err
	}
	toolchain, err := goOutput(ctx, dir, "env", "GOVERSION", "GOOS", "GOARCH")
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "recipe %s\n%s\n", recipe, toolchain)
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(content), content)
	}
	return version + "-" + hex.EncodeToString(h.Sum(nil))[:16], nil
}

// build compiles beside the destination and renames. Two builds at once do the work twice, and harm nothing.
func build(ctx context.Context, dir, program string) error {
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(program), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	built := filepath.Join(tmp, "registry")
	if _, err := goOutput(ctx, dir, "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", built, programPath); err != nil {
		return err
	}
	return os.Rename(built, program)
}

// goOutput runs a go command without the go.work file that may be around the checkout.
func goOutput(ctx context.Context, dir string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 10 * time.Second
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], errors.Join(context.Cause(ctx), err), strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}
