package binaries

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The programs that Ensure can build. Each is also the name of the file in the directory that Ensure returns.
const (
	Etcd              = "etcd"
	Helm              = "helm"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Proxy             = "kube-proxy"
	Scheduler         = "kube-scheduler"
	Kubectl           = "kubectl"
	Kubelet           = "kubelet"
	Kwok              = "kwok"
)

// CacheVariable names the environment variable that moves the cache.
const CacheVariable = "HALLMARK_CLUSTER_CACHE"

// Names lists every program that Ensure can build, sorted.
func Names() []string {
	return []string{Etcd, Helm, APIServer, ControllerManager, Proxy, Scheduler, Kubectl, Kubelet, Kwok}
}

// Default lists what a cluster without nodes needs.
func Default() []string { return []string{Etcd, APIServer, Kubectl, ControllerManager} }

// Node lists what a cluster with a node needs, and Helm, which installs charts in it.
func Node() []string { return append(Default(), Scheduler, Kubelet, Proxy, Helm) }

// packagePath returns the main package of a program, or "" for an unknown one. Each must be a tool line in go.mod.
func packagePath(name string) string {
	switch name {
	case Etcd:
		return "go.etcd.io/etcd/server/v3"
	case Helm:
		return "helm.sh/helm/v3/cmd/helm"
	case APIServer, ControllerManager, Proxy, Scheduler, Kubectl, Kubelet:
		return "k8s.io/kubernetes/cmd/" + name
	case Kwok:
		return "sigs.k8s.io/kwok/cmd/kwok"
	}
	return ""
}

// subModule returns the directory, below the module's, of the module that a program is built in. Helm has one of its
// own, since it wants newer versions of libraries than Kubernetes is released with.
func subModule(name string) string {
	if name == Helm {
		return "helm"
	}
	return ""
}

// Config says where Ensure keeps the programs and what it tells meanwhile. The zero value is usable.
type Config struct {
	// Cache is the directory that holds one directory per key. Empty means DefaultCache.
	Cache string
	// Progress receives one line when a build starts, ends or takes long. Nil means silence.
	Progress io.Writer
}

// DefaultCache is $HALLMARK_CLUSTER_CACHE, or hallmark/cluster in the user's cache directory.
func DefaultCache() (string, error) { return CacheDir(CacheVariable, "cluster") }

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

// Ensure returns the absolute path of a directory that holds the named programs, after building those that are absent.
// It must run inside the module test/cluster, which is where the go command starts the module's tests and tools.
//
// When ctx ends, the compiler is stopped and nothing is left but Go's own build cache, so the next call continues there.
func Ensure(ctx context.Context, cfg Config, names ...string) (string, error) {
	for _, name := range names {
		if packagePath(name) == "" {
			return "", fmt.Errorf("unknown program %q: known are %s", name, strings.Join(Names(), ", "))
		}
	}
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	if cfg.Cache == "" {
		cache, err := DefaultCache()
		if err != nil {
			return "", err
		}
		cfg.Cache = cache
	}
	src, err := findSource(ctx)
	if err != nil {
		return "", err
	}
	key, err := src.key()
	if err != nil {
		return "", err
	}
	dir, err := filepath.Abs(filepath.Join(cfg.Cache, key))
	if err != nil {
		return "", fmt.Errorf("locate the cache: %w", err)
	}
	if absent, err := missing(dir, names); err != nil || len(absent) == 0 {
		return dir, err
	}
	return dir, fill(ctx, src, dir, names, cfg.Progress)
}

// fill builds what is absent from dir under the lock. What another run built while this one waited is not built again.
func fill(ctx context.Context, src source, dir string, names []string, progress io.Writer) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create the cache: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(dir, ".lock"), progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()

	absent, err := missing(dir, names)
	if err != nil || len(absent) == 0 {
		return err
	}
	if err := removeLeftovers(dir); err != nil {
		return err
	}
	flags, err := src.linkerFlags(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "build %s into %s (minutes when cold)\n", strings.Join(absent, ", "), dir)
	for _, name := range absent {
		began := time.Now()
		if err := src.build(ctx, name, flags, filepath.Join(dir, name), progress); err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
		fmt.Fprintf(progress, "built %s in %s\n", name, time.Since(began).Round(time.Second))
	}
	return nil
}

// missing returns the names without a file in dir, each once, in the order given.
func missing(dir string, names []string) ([]string, error) {
	var absent []string
	for _, name := range names {
		_, err := os.Stat(filepath.Join(dir, name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			if !slices.Contains(absent, name) {
				absent = append(absent, name)
			}
		case err != nil:
			return nil, fmt.Errorf("look for %s: %w", name, err)
		}
	}
	return absent, nil
}

// removeLeftovers deletes the temporary directories of builds that were killed. The caller holds the lock, so none of
// them is in use.
func removeLeftovers(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, temporaryPrefix+"*"))
	if err != nil {
		return fmt.Errorf("list leftovers: %w", err)
	}
	for _, path := range old {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove leftover: %w", err)
		}
	}
	return nil
}
