package main

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // SPDX 2.3 demands one of every file; nothing rests on it
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// A binary is a program that the go command has built, and what it says of itself.
type binary struct {
	name    string // of the file
	content []byte
	info    *debug.BuildInfo
}

func readBinary(path string) (binary, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return binary{}, fmt.Errorf("read the binary: %w", err)
	}
	return newBinary(filepath.Base(path), content)
}

func newBinary(name string, content []byte) (binary, error) {
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return binary{}, fmt.Errorf("%s does not say what it was built from; build it with go build (%w)", name, err)
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			return binary{}, fmt.Errorf("%s is built with a replacement of %s, of which nobody can say what it is; build it without", name, m.Path)
		}
	}
	slices.SortFunc(info.Deps, func(a, b *debug.Module) int { return strings.Compare(a.Path, b.Path) })
	return binary{name: name, content: content, info: info}, nil
}

// setting is one of those that the go command records, "" when it has not.
func (b binary) setting(key string) string {
	for _, s := range b.info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// platform is what it runs on, as "linux/amd64".
func (b binary) platform() string { return b.setting("GOOS") + "/" + b.setting("GOARCH") }

// checkCommit refuses a binary that was built from anything but that commit: what is signed says that it was.
func (b binary) checkCommit(commit string) error {
	switch built := b.setting("vcs.revision"); {
	case built == "":
		return fmt.Errorf("%s does not say which commit it was built from; build it in a git clone (a worktree does not do), with -buildvcs=true", b.name)
	case built != commit:
		return fmt.Errorf("%s was built from commit %s, and this is a release of %s; build it again", b.name, built, commit)
	case b.setting("vcs.modified") == "true":
		return fmt.Errorf("%s was built from a checkout with changes; commit or stash them and build it again", b.name)
	}
	return nil
}

func sha1Hex(content []byte) string {
	sum := sha1.Sum(content) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}

func sha256Hex(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// dirHash is the hash of a module as in-toto spells it: go.sum's, in hexadecimal and without "h1:".
// https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md#dirhash
func dirHash(sum string) (string, error) {
	encoded, ok := strings.CutPrefix(sum, "h1:")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(raw) != sha256.Size {
		return "", fmt.Errorf("%q is not a module's hash as in go.sum", sum)
	}
	return hex.EncodeToString(raw), nil
}
