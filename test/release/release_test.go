package main

import (
	"crypto/elliptic"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// TestSameReleaseTwice: signatures included with the same key, and SHA256SUMS without any.
func TestSameReleaseTwice(t *testing.T) {
	w := open(t)
	signer := newKey(t, "P-256")
	_, first := w.release(t, "-key", signer)
	_, second := w.release(t, "-key", signer)
	_, unsigned := w.release(t)
	for name, content := range first {
		if second[name] != content {
			t.Errorf("%s is another file the second time", name)
		}
	}
	want := []string{
		"SHA256SUMS", "SHA256SUMS.sig", "SHA256SUMS.sigstore.json", "hallmark-1.2.3.tgz", "hallmark-image.json", "hallmark-image.spdx.json",
		"hallmark-image.tar", "hallmark-linux-amd64", "hallmark-linux-amd64.spdx.json", "hallmark-linux-arm64", "hallmark-linux-arm64.spdx.json",
		"hallmark.pub", "provenance.json", "provenance.sigstore.json",
	}
	if got := slices.Sorted(keys(first)); !slices.Equal(got, want) {
		t.Errorf("files:\n got %q\nwant %q", got, want)
	}
	if unsigned["SHA256SUMS"] != first["SHA256SUMS"] {
		t.Errorf("SHA256SUMS without a key:\n got %s\nwant %s", unsigned["SHA256SUMS"], first["SHA256SUMS"])
	}
	for line := range strings.Lines(first["SHA256SUMS"]) {
		hash, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if content, ok := first[name]; !ok || sha256Hex([]byte(content)) != hash {
			t.Errorf("SHA256SUMS has %s for %s, which is not its hash", hash, name)
		}
	}
	for _, name := range []string{"hallmark.pub", "SHA256SUMS.sig", "provenance.sigstore.json"} {
		if _, ok := unsigned[name]; ok {
			t.Errorf("without a key there is %s", name)
		}
	}
}

func keys(files map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for name := range files {
			if !yield(name) {
				return
			}
		}
	}
}

// TestOpenSSL: the command of SECURITY.md.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	dir, _ := open(t).release(t, "-key", newKey(t, "P-256"))
	const verify = "base64 -d SHA256SUMS.sig | openssl dgst -sha256 -verify hallmark.pub -signature /dev/stdin SHA256SUMS"
	if got, err := output(dir, nil, "sh", "-c", verify); err != nil || got != "Verified OK" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := output(dir, nil, "sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"); err != nil {
		t.Error(err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte("else\n"), 0o600))
	if _, err := output(dir, nil, "sh", "-c", verify); err == nil {
		t.Error("another file is verified, too")
	}
}

// TestMistakes: what is not right is not released, and the error says what to do.
func TestMistakes(t *testing.T) {
	w := open(t)
	good := newKey(t, "P-256")
	plain := filepath.Join(w.dir, "plain")
	_, err := output(filepath.Join(w.dir, "source"), []string{"CGO_ENABLED=0", "GOFLAGS="}, "go", "build", "-buildvcs=false", "-o", plain, ".")
	must(t, err)
	precious := filepath.Dir(write(t, "precious", nil))
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"another commit", []string{"-revision", strings.Repeat("0", 40)}, "build it again"},
		{"no commit", []string{"-revision", "main"}, `"main" is not a whole commit`},
		{"without a stamp", []string{"-binary", plain}, "does not say which commit it was built from"},
		{"no program", []string{"-binary", good}, "build it with go build"},
		{"another version", []string{"-version", "v1.2.4"}, `has org.opencontainers.image.version="v1.2.3", and the release "v1.2.4"`},
		{"no tag", []string{"-version", "a b"}, `"a b" cannot be the tag of an image`},
		{"no image", []string{"-image", precious}, "which make image writes"},
		{"no key", []string{"-key", filepath.Join(w.dir, "none")}, "read the key"},
		{"another curve", []string{"-key", newKey(t, "P-384")}, "ECDSA on P-256"},
		{"not the key that users know", []string{"-key", good, "-public", publicOf(t, newKey(t, "P-256"))}, "is not the one of"},
		{"a public key alone", []string{"-public", good}, "there is no -key"},
		{"a chart that cannot be stamped", []string{"-chart", "testdata/unstampable"}, "it has no image.digest to stamp"},
		{"a directory of something else", []string{"-out", precious}, "something other than a release"},
		{"an argument", []string{"extra"}, `unexpected argument "extra"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := runMake(t.Context(), w.args(filepath.Join(t.TempDir(), "out"), tc.args...), io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error:\n got %v\nwant %q in it", err, tc.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(precious, "precious")); err != nil {
		t.Error(err)
	}
}

// TestPassword: a key as cosign makes it opens with its password alone.
func TestPassword(t *testing.T) {
	private, public, err := cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P256(), cryptoutils.StaticPasswordFunc([]byte("open sesame")))
	must(t, err)
	path := write(t, "cosign.key", private)
	t.Setenv(passwordVariable, "open sesame")
	opened, err := readKey(path)
	must(t, err)
	if string(opened.public) != string(public) {
		t.Errorf("public half:\n got %s\nwant %s", opened.public, public)
	}
	t.Setenv(passwordVariable, "sesame")
	if _, err := readKey(path); err == nil || !strings.Contains(err.Error(), "open the key "+path) {
		t.Errorf("with another password: %v", err)
	}
	must(t, os.Unsetenv(passwordVariable))
	if _, err := readKey(path); err == nil || !strings.Contains(err.Error(), "put that into COSIGN_PASSWORD") {
		t.Errorf("without a password: %v", err)
	}
}

// TestDirty: what was built from a checkout with changes is not what the commit says.
func TestDirty(t *testing.T) {
	w := open(t)
	dirty := filepath.Join(t.TempDir(), "source")
	must(t, os.CopyFS(dirty, os.DirFS(filepath.Join(w.dir, "source"))))
	must(t, os.WriteFile(filepath.Join(dirty, "more.go"), []byte("package main\n"), 0o600))
	binary := filepath.Join(t.TempDir(), "hallmark")
	_, err := output(dirty, []string{"CGO_ENABLED=0", "GOFLAGS="}, "go", "build", "-buildvcs=true", "-o", binary, ".")
	must(t, err)
	err = runMake(t.Context(), w.args(t.TempDir(), "-binary", binary), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "built from a checkout with changes") {
		t.Errorf("got %v", err)
	}
}
