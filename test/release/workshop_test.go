package main

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

const version = "v1.2.3"

// A workshop is a directory with what a release is made of: small programs built from a commit, their image, a chart.
type workshop struct {
	dir, commit string
	binaries    []string
}

// place is where shared is built, once: every test only reads it.
var place string

var shared = sync.OnceValues(func() (workshop, error) { return newWorkshop(place) })

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hallmark-release-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	place = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func newWorkshop(dir string) (w workshop, err error) {
	w.dir = dir
	source := filepath.Join(dir, "source")
	if err := writeSource(source); err != nil {
		return w, err
	}
	git := func(args ...string) (string, error) {
		return output(source, nil, "git", append([]string{"-c", "user.name=test", "-c", "user.email=test@example.com"}, args...)...)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "--date=2026-01-01T00:00:00Z", "-m", "x"}} {
		if _, err := git(args...); err != nil {
			return w, err
		}
	}
	if w.commit, err = git("rev-parse", "HEAD"); err != nil {
		return w, err
	}
	var image []string
	for _, arch := range []string{"amd64", "arm64"} {
		binary := filepath.Join(dir, "hallmark-linux-"+arch)
		env := []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOFLAGS="}
		if _, err := output(source, env, "go", "build", "-trimpath", "-buildvcs=true", "-o", binary, "."); err != nil {
			return w, err
		}
		w.binaries = append(w.binaries, binary)
		image = append(image, "-binary", binary)
	}
	certificates := filepath.Join(dir, "ca.pem")
	if err := writeCertificate(certificates); err != nil {
		return w, err
	}
	for name, binaries := range map[string][]string{"image": image, "single": image[:2]} {
		args := append([]string{"run", "./test/image", "-ca", certificates, "-out", filepath.Join(dir, name), "-version", version, "-revision", w.commit}, binaries...)
		if _, err := output("../..", []string{"SOURCE_DATE_EPOCH=1767225600"}, "go", args...); err != nil {
			return w, err
		}
	}
	return w, os.CopyFS(filepath.Join(dir, "chart"), os.DirFS("testdata/chart"))
}

// writeSource writes a program with one dependency, which is also one of this module, so that it is there.
func writeSource(dir string) error {
	info, ok := debug.ReadBuildInfo()
	at := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == "golang.org/x/mod" })
	if !ok || at < 0 {
		return errors.New("the test is built without golang.org/x/mod")
	}
	sums, err := os.ReadFile("go.sum")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o644),
		os.WriteFile(filepath.Join(dir, "go.mod"), fmt.Appendf(nil,
			"module github.com/hallmark-admission/hallmark\n\ngo 1.26.0\n\nrequire golang.org/x/mod %s\n", info.Deps[at].Version), 0o644),
		os.WriteFile(filepath.Join(dir, "main.go"), []byte(
			"package main\n\nimport \"golang.org/x/mod/semver\"\n\nfunc main() { println(semver.IsValid(\"v1\")) }\n"), 0o644))
}

func output(dir string, env []string, name string, args ...string) (string, error) {
	command := exec.Command(name, args...)
	command.Dir = dir
	command.Env = append(os.Environ(), append(env, "GOWORK=off")...)
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s %q: %w\n%s", name, args, err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func (w workshop) args(out string, more ...string) []string {
	args := []string{"-image", filepath.Join(w.dir, "image"), "-chart", filepath.Join(w.dir, "chart"), "-out", out,
		"-version", version, "-revision", w.commit, "-module", filepath.Join(w.dir, "source")}
	for _, binary := range w.binaries {
		args = append(args, "-binary", binary)
	}
	return append(args, more...)
}

// release makes one, which has to succeed, and gives its files.
func (w workshop) release(t *testing.T, more ...string) (dir string, files map[string]string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "release")
	must(t, runMake(t.Context(), w.args(dir, more...), io.Discard))
	return dir, read(t, dir)
}

func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree, err := readTree(dir)
	must(t, err)
	files := map[string]string{}
	for _, f := range tree {
		files[f.name] = string(f.content)
	}
	return files
}

func open(t *testing.T) workshop {
	t.Helper()
	w, err := shared()
	must(t, err)
	return w
}

// newKey writes a private key without a password.
func newKey(t *testing.T, curve string) string {
	t.Helper()
	private, err := ecdsa.GenerateKey(map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()}[curve], rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	return write(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// publicOf writes the public half of a key.
func publicOf(t *testing.T, private string) string {
	t.Helper()
	k, err := readKey(private)
	must(t, err)
	return write(t, "key.pub", k.public)
}

func silent() *log.Logger { return log.New(io.Discard, "", 0) }

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, content, 0o600))
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entries gives the files of an archive, in their order.
func entries(t *testing.T, archive io.Reader) (list []file) {
	t.Helper()
	for reader := tar.NewReader(archive); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		must(t, err)
		var content bytes.Buffer
		_, err = io.Copy(&content, reader) //nolint:gosec // of our own making
		must(t, err)
		list = append(list, file{header.Name, content.Bytes()})
	}
}

// writeCertificate writes a certificate of nobody, as the CA certificates of the image.
func writeCertificate(path string) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}
