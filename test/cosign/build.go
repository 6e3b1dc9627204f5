// Package cosign builds the cosign programs (github.com/sigstore/cosign), once, and keeps them: what they sign is what the
// product has to verify, whatever the other tests take for a signature.
//
// The programs come from the module cache: the modules v2 and v3 beside this file pin one each, since what one is made of
// would change the other. A fresh machine needs Go and a module proxy. Each is kept under a key of everything that decides
// what it contains, outside the checkout, and written whole or not at all; so a file that is there is up to date. Deleting
// the cache is always safe.
package cosign

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
	CacheVariable = "HALLMARK_COSIGN_CACHE"

	modulePath = "github.com/hallmark-admission/hallmark/test/cosign"
	// recipe is part of the key. Raise it when the flags or the environment of the build change.
	recipe = "1"
)

// Programs are the paths of the cosign programs.
type Programs struct{ V2, V3 string }

// Build gives the programs, after building those that are absent. It must run inside this module, which is where the go
// command starts the module's tests and programs. Progress gets a line when a build begins and ends.
func Build(ctx context.Context, progress io.Writer) (Programs, error) {
	cache, err := cacheDir()
	if err != nil {
		return Programs{}, err
	}
	where, err := goOutput(ctx, "", "list", "-m", "-f", "{{.Path}}\n{{.Dir}}")
	if err != nil {
		return Programs{}, err
	}
	path, dir, _ := strings.Cut(where, "\n")
	if path != modulePath {
		return Programs{}, fmt.Errorf("the working directory is not in %s; run this in test/cosign", modulePath)
	}
	var built Programs
	for _, p := range []struct {
		major string
		path  *string
	}{{"v2", &built.V2}, {"v3", &built.V3}} {
		b := builder{cache: cache, dir: filepath.Join(dir, p.major), module: "github.com/sigstore/cosign/" + p.major}
		if *p.path, err = b.program(ctx, progress); err != nil {
			return Programs{}, fmt.Errorf("build cosign %s: %w", p.major, err)
		}
	}
	return built, nil
}

func cacheDir() (string, error) {
	if dir := os.Getenv(CacheVariable); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache directory (set %s to choose one): %w", CacheVariable, err)
	}
	return filepath.Join(dir, "hallmark", "cosign"), nil
}

// A builder makes one program.
type builder struct {
	cache  string
	dir    string // of the module that pins it
	module string // which it comes from
}

func (b builder) program(ctx context.Context, progress io.Writer) (string, error) {
	key, err := b.key(ctx)
	if err != nil {
		return "", err
	}
	program := filepath.Join(b.cache, key, "cosign")
	if _, err := os.Stat(program); err == nil || !errors.Is(err, os.ErrNotExist) {
		return program, err
	}
	began := time.Now()
	fmt.Fprintf(progress, "build %s into %s (minutes when cold)\n", b.module, program)
	if err := b.build(ctx, program); err != nil {
		return "", err
	}
	fmt.Fprintf(progress, "built in %s\n", time.Since(began).Round(time.Second))
	return program, nil
}

// key is the version of the program and a hash of all that decides what it contains.
func (b builder) key(ctx context.Context) (string, error) {
	version, err := goOutput(ctx, b.dir, "list", "-m", "-f", "{{.Version}}", b.module)
	if err != nil {
		return "", err
	}
	toolchain, err := goOutput(ctx, b.dir, "env", "GOVERSION", "GOOS", "GOARCH")
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "recipe %s\n%s\n", recipe, toolchain)
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(b.dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(content), content)
	}
	return version + "-" + hex.EncodeToString(h.Sum(nil))[:16], nil
}

// build compiles beside the destination and renames. Two builds at once do the work twice, and harm nothing.
func (b builder) build(ctx context.Context, program string) error {
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(program), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	built := filepath.Join(tmp, "cosign")
	args := []string{"build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", built, b.module + "/cmd/cosign"}
	if _, err := goOutput(ctx, b.dir, args...); err != nil {
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
