// Package pinned builds programs of other projects, once, and keeps them: those that the tests hold the product against.
//
// A program comes from the module cache, at the version that a go.mod pins; a fresh machine needs Go and a module proxy. It
// is kept under a key of everything that decides what it contains, outside the checkout, and written whole or not at all; so
// a file that is there is up to date. Deleting the cache is always safe.
package pinned

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

// recipe is part of the key. Raise it when the flags or the environment of the build change.
const recipe = "1"

// A Program is a main package of another project.
type Program struct {
	Cache   string // directory that has one for each key
	Dir     string // of the module that pins it
	Module  string // that it comes from
	Package string // in that module, "cmd/x"
}

// Build gives the path of the program, after building it if it is absent. Progress gets a line when a build begins and ends.
func (p Program) Build(ctx context.Context, progress io.Writer) (string, error) {
	key, err := p.key(ctx)
	if err != nil {
		return "", err
	}
	program := filepath.Join(p.Cache, key, filepath.Base(p.Package))
	if _, err := os.Stat(program); err == nil || !errors.Is(err, os.ErrNotExist) {
		return program, err
	}
	began := time.Now()
	fmt.Fprintf(progress, "build %s/%s into %s (minutes when cold)\n", p.Module, p.Package, program)
	if err := p.build(ctx, program); err != nil {
		return "", fmt.Errorf("build %s/%s: %w", p.Module, p.Package, err)
	}
	fmt.Fprintf(progress, "built in %s\n", time.Since(began).Round(time.Second))
	return program, nil
}

// key is the version of the program and a hash of all that decides what it contains.
func (p Program) key(ctx context.Context) (string, error) {
	version, err := goOutput(ctx, p.Dir, "list", "-m", "-f", "{{.Version}}", p.Module)
	if err != nil {
		return "", err
	}
	toolchain, err := goOutput(ctx, p.Dir, "env", "GOVERSION", "GOOS", "GOARCH")
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "recipe %s\n%s\n", recipe, toolchain)
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(content), content)
	}
	return version + "-" + hex.EncodeToString(h.Sum(nil))[:16], nil
}

// build compiles beside the destination and renames. Two builds at once do the work twice, and harm nothing.
func (p Program) build(ctx context.Context, program string) error {
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(program), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	built := filepath.Join(tmp, filepath.Base(program))
	args := []string{"build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", built, p.Module + "/" + p.Package}
	if _, err := goOutput(ctx, p.Dir, args...); err != nil {
		return err
	}
	return os.Rename(built, program)
}

// CacheDir is the directory that an environment variable names, or hallmark/NAME in the user's cache directory.
func CacheDir(variable, name string) (string, error) {
	if dir := os.Getenv(variable); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache directory (set %s to choose one): %w", variable, err)
	}
	return filepath.Join(dir, "hallmark", name), nil
}

// ModuleDir is the directory of the module that the working directory is in, which has to be the one of that path. The go
// command starts the tests and programs of a module there.
func ModuleDir(ctx context.Context, path string) (string, error) {
	where, err := goOutput(ctx, "", "list", "-m", "-f", "{{.Path}}\n{{.Dir}}")
	if err != nil {
		return "", err
	}
	is, dir, _ := strings.Cut(where, "\n")
	if is != path {
		return "", fmt.Errorf("the working directory is in module %s; run this in %s", is, path)
	}
	return dir, nil
}

// BuildOurs builds a program of the product into a file; its packages are given as go build takes them in the module at dir.
func BuildOurs(ctx context.Context, dir, file string, packages ...string) error {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	_, err = goOutput(ctx, dir, append([]string{"build", "-o", absolute}, packages...)...)
	return err
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
