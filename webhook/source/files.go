package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MaxBytes bounds a file. An API server takes objects of up to 3 MiB, so a larger file is a collection, or a mistake.
const MaxBytes = 16 << 20

// Stdin is the path that stands for standard input.
const Stdin = "-"

// Find lists the files that paths name, each once and in the order of the paths: a file is itself, a directory all
// files below it that end in .yaml, .yml or .json. Links to directories are not followed, and .git is passed over. The
// errors are about paths that do not exist, cannot be read, or lead to nothing.
func Find(paths []string) ([]string, []error) {
	var files []string
	var errs []error
	seen := map[string]bool{}
	add := func(file string) {
		if clean := filepath.Clean(file); !seen[clean] {
			seen[clean] = true
			files = append(files, file)
		}
	}
	for _, path := range paths {
		if path == Stdin {
			add(path)
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !info.IsDir():
			add(path)
		default:
			below, err := manifests(path)
			if err == nil && len(below) == 0 {
				err = fmt.Errorf("%s: no file ends in .yaml, .yml or .json below this directory", path)
			}
			if err != nil {
				errs = append(errs, err)
			}
			for _, file := range below {
				add(file)
			}
		}
	}
	return files, errs
}

// manifests lists the files below a directory, as far as it can be read.
func manifests(dir string) ([]string, error) {
	var files []string
	var errs []error
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			errs = append(errs, err)
			return nil
		case entry.IsDir() && entry.Name() == ".git" && name != dir:
			return fs.SkipDir
		case entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(name))):
			return nil
		}
		info, err := os.Stat(name) // of what a link leads to
		if err != nil {
			errs = append(errs, err)
		} else if info.Mode().IsRegular() {
			files = append(files, name)
		}
		return nil
	})
	return files, errors.Join(append(errs, err)...)
}

// Open reads a file, or stdin for the path "-".
func Open(path string, stdin io.Reader) ([]byte, error) {
	from := stdin
	if path != Stdin {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("is larger than %d MiB; split it", MaxBytes>>20)
	}
	return text, nil
}
