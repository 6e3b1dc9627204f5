package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	classifier "github.com/google/licenseclassifier/v2"
	"github.com/google/licenseclassifier/v2/assets"
)

// noAssertion is what SPDX says of what is not known.
const noAssertion = "NOASSERTION"

// licenses finds out under which licences modules are, from the text that each brings along.
type licenses struct {
	known  *classifier.Classifier
	module string            // directory of a module with a go.sum that has them all
	found  map[string]string // by path@version
}

func newLicenses(module string) (*licenses, error) {
	known, err := assets.DefaultClassifier()
	if err != nil {
		return nil, fmt.Errorf("load the texts of licences: %w", err)
	}
	return &licenses{known: known, module: module, found: map[string]string{}}, nil
}

// read finds the licences of modules. A module that is not in the module cache is fetched, and checked against go.sum: where
// a release is made must not decide what it says.
func (l *licenses) read(ctx context.Context, modules []*debug.Module) error {
	args := []string{"mod", "download", "-json"}
	for _, m := range modules {
		if _, ok := l.found[m.Path+"@"+m.Version]; !ok {
			args = append(args, m.Path+"@"+m.Version)
		}
	}
	if len(args) == 3 {
		return nil
	}
	download := exec.CommandContext(ctx, "go", args...)
	download.Dir = l.module
	download.Env = append(os.Environ(), "GOWORK=off")
	var stderr strings.Builder
	download.Stderr = &stderr
	out, err := download.Output()
	if err != nil {
		return fmt.Errorf("find the modules of the binary in the module cache: go mod download: %w\n%s%s", err, out, stderr.String())
	}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var m struct{ Path, Version, Dir string }
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("go mod download: %w", err)
		}
		if l.found[m.Path+"@"+m.Version], err = l.inDirectory(m.Dir); err != nil {
			return err
		}
	}
}

func (l *licenses) of(m *debug.Module) string {
	if found := l.found[m.Path+"@"+m.Version]; found != "" {
		return found
	}
	return noAssertion
}

var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-._].*)?$`)

// inDirectory gives an SPDX expression for the texts at the top of a module, "" when one of them is not recognised.
func (l *licenses) inDirectory(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var names []string
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !licenseFile.MatchString(entry.Name()) || strings.HasSuffix(entry.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return "", err
		}
		found := l.inText(text)
		if len(found) == 0 {
			return "", nil
		}
		names = append(names, found...)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " AND "), nil
}

// inText names the licences that a text is, by their SPDX identifiers.
func (l *licenses) inText(text []byte) (names []string) {
	for _, match := range l.known.Match(l.known.Normalize(text)).Matches {
		if match.MatchType != "License" || match.Confidence < 0.9 {
			continue
		}
		if !slices.Contains(spdxLicenses(), match.Name) { // the classifier has names of its own, too
			return nil
		}
		names = append(names, match.Name)
	}
	return names
}

// spdxLicenses are the identifiers of https://spdx.org/licenses that Go modules are under.
func spdxLicenses() []string {
	return []string{
		"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "ISC", "MIT", "MPL-2.0",
		"Unlicense", "WTFPL", "Zlib",
	}
}
