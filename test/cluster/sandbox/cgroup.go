package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const cgroupRoot = "/sys/fs/cgroup"

// CgroupParent is the name of the cgroup for what runs in the sandbox of a directory.
func CgroupParent(dir string) string { return "/" + filepath.Base(dir) }

// hierarchies are where cgroups can be made: each of version 1, or the one of version 2.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.procs")); err == nil {
		return []string{cgroupRoot}, nil
	}
	found, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found, nil
}

// createCgroups makes a cgroup in every hierarchy. One of version 1 begins without processors and memory, and gets its
// parent's.
func createCgroups(name string) error {
	tops, err := hierarchies()
	if err != nil {
		return err
	}
	for _, top := range tops {
		if err := os.Mkdir(filepath.Join(top, name), 0o755); err != nil {
			return fmt.Errorf("make a cgroup: %w", err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(top, file))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(top, name, file), value, 0o600)
			}
			if err != nil {
				return fmt.Errorf("give a cgroup its %s: %w", file, err)
			}
		}
	}
	return nil
}

// removeCgroups removes a cgroup from every hierarchy, with all below it.
func removeCgroups(name string) error {
	tops, err := hierarchies()
	errs := []error{err}
	for _, top := range tops {
		errs = append(errs, removeTree(filepath.Join(top, name)))
	}
	return errors.Join(errs...)
}

// removeTree removes directories alone: the files of a cgroup go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("remove the cgroup %s: %w", strings.TrimPrefix(dir, cgroupRoot), err)
	}
	return nil
}
