package policy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
)

// A signer makes bundles as opa build and opa sign do.
type signer struct {
	private, public string // PEM
	algorithm       string
}

func pemOf(t *testing.T, kind string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func publicPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	return pemOf(t, "PUBLIC KEY", der, err)
}

func ecSigner(t *testing.T, curve elliptic.Curve, algorithm string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	return signer{pemOf(t, "EC PRIVATE KEY", der, err), publicPEM(t, key.Public()), algorithm}
}

func rsaSigner(t *testing.T, algorithm string) signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return signer{pemOf(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), nil), publicPEM(t, key.Public()), algorithm}
}

// content is what a bundle is made of.
type content struct {
	files    map[string]string
	data     map[string]any
	patch    []bundle.PatchOperation
	revision string
	roots    []string
	keyID    string
	claims   string // JSON; of the signature
}

func (c content) bundle(t *testing.T) bundle.Bundle {
	t.Helper()
	b := bundle.Bundle{Data: c.data, Manifest: bundle.Manifest{Revision: c.revision}, Patch: bundle.Patch{Data: c.patch}}
	if c.data == nil {
		b.Data = map[string]any{}
	}
	if c.roots != nil {
		b.Manifest.Roots = &c.roots
	}
	for _, name := range slices.Sorted(maps.Keys(c.files)) {
		module, err := ast.ParseModuleWithOpts(name, c.files[name], ast.ParserOptions{})
		if err != nil { // a broken one is written as it is
			module = ast.MustParseModule("package broken")
		}
		b.Modules = append(b.Modules, bundle.ModuleFile{URL: name, Path: name, Raw: []byte(c.files[name]), Parsed: module})
	}
	return b
}

func write(t *testing.T, b bundle.Bundle) []byte {
	t.Helper()
	var archive bytes.Buffer
	if err := bundle.NewWriter(&archive).DisableFormat(true).Write(b); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// unsigned is what opa build makes.
func (c content) unsigned(t *testing.T) []byte { return write(t, c.bundle(t)) }

// signed is what opa build makes with a signing key.
func (s signer) signed(t *testing.T, c content) []byte {
	t.Helper()
	b := c.bundle(t)
	claims := ""
	if c.claims != "" {
		claims = filepath.Join(t.TempDir(), "claims.json")
		if err := os.WriteFile(claims, []byte(c.claims), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.GenerateSignature(bundle.NewSigningConfig(s.private, s.algorithm, claims), c.keyID, false); err != nil {
		t.Fatal(err)
	}
	return write(t, b)
}

// entry is a file of an archive.
type entry struct{ name, text string }

func unpack(t *testing.T, archive []byte) (entries []entry) {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := tar.NewReader(unzipped)
	for {
		header, err := files.Next()
		if err != nil {
			return entries
		}
		var text bytes.Buffer
		if _, err := text.ReadFrom(files); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{header.Name, text.String()})
	}
}

func pack(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	files := tar.NewWriter(zipped)
	for _, e := range entries {
		if err := files.WriteHeader(&tar.Header{Name: e.name, Mode: 0o600, Size: int64(len(e.text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// tampered changes a bundle after it was signed.
func tampered(t *testing.T, archive []byte, change func([]entry) []entry) []byte {
	t.Helper()
	return pack(t, change(unpack(t, archive))...)
}
