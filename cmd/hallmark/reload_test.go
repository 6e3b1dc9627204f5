package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/server"
)

// newKey makes the public half of a key.
func newKey(t *testing.T) []byte {
	t.Helper()
	_, public, err := registrytest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(public)
}

// TestFilesOfOneGeneration: a file that changes while a generation is made, and back, leaves nothing in force that the
// file does not hold; and where nothing has changed, nothing is made anew.
func TestFilesOfOneGeneration(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	signers := ""
	for i := range 8 {
		name := fmt.Sprint("key", i)
		write(name, newKey(t))
		signers += fmt.Sprintf("  signer-%d: {keyFile: %q}\n", i, filepath.Join(dir, name))
	}
	write("hallmark.yaml", []byte(`apiVersion: hallmark.dev/v1alpha1
kind: Configuration
registries: [{host: "registry.corp:5000"}]
tags: {allow: [exact]}
signers:
`+signers))
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	l := newLoader(filepath.Join(dir, "hallmark.yaml"), nil, outside{now: time.Now, log: log}, server.NewMetrics())
	load := func() *generation {
		t.Helper()
		if err := l.load(t.Context()); err != nil {
			t.Fatal(err)
		}
		return l.generation.Load()
	}
	first := load()
	for range 20 {
		if load() != first {
			t.Fatal("another generation of the same files")
		}
	}
	old, err := os.ReadFile(filepath.Join(dir, "key3"))
	if err != nil {
		t.Fatal(err)
	}
	write("key3", newKey(t))
	in, err := l.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.fingerprint(in.rules); err != nil {
		t.Fatal(err)
	}
	write("key3", old)
	if err := l.install(t.Context(), in, nil); err != nil {
		t.Fatal(err)
	}
	if l.generation.Load().trust.Hash() == first.trust.Hash() {
		t.Error("the generation has another key than its fingerprint")
	}
	if load().trust.Hash() != first.trust.Hash() {
		t.Error("the key that the file holds is not in force")
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}
