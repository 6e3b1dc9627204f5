package policy

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/bundle"
)

const hostRule = `package hallmark.rules.host

deny contains {"message": "no"} if input.object.spec.hostNetwork
`

func host() content {
	return content{files: map[string]string{"hallmark/rules/host/host.rego": hostRule}}
}

func newReader(t *testing.T, config BundleConfig) *BundleReader {
	t.Helper()
	config.Name = "https://policies/a.tar.gz"
	r, err := NewBundleReader(config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestBundle: rules come in whole, by every kind of key, without tests.
func TestBundle(t *testing.T) {
	full := host()
	full.files["hallmark/rules/host/host_test.rego"] = "package hallmark.rules.host_test\n\ntest_a if true\n"
	full.files["hallmark/lib/net.rego"] = "package hallmark.lib.net\n\nx := 1\n"
	full.revision, full.roots = "v7", []string{"/hallmark/rules/", "hallmark/lib"}
	full.keyID, full.claims = "release", `{"scope": "read", "keyid": "release"}`
	want := Source{
		"https://policies/a.tar.gz/hallmark/rules/host/host.rego": []byte(hostRule),
		"https://policies/a.tar.gz/hallmark/lib/net.rego":         []byte("package hallmark.lib.net\n\nx := 1\n"),
	}
	for name, s := range map[string]signer{
		"P-256": ecSigner(t, elliptic.P256(), "ES256"), "P-384": ecSigner(t, elliptic.P384(), "ES384"),
		"P-521": ecSigner(t, elliptic.P521(), "ES512"), "RSA": rsaSigner(t, "RS256"),
	} {
		t.Run(name, func(t *testing.T) {
			archive := s.signed(t, full)
			for _, keyID := range []string{"", "release"} {
				b, err := newReader(t, BundleConfig{KeyPEM: []byte(s.public), KeyID: keyID, Scope: "read"}).Read(archive)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, b.Source); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if b.Revision != "v7" || !slices.Equal(b.Roots, []string{"hallmark/rules", "hallmark/lib"}) || !bytes.Equal(b.Archive, archive) ||
					len(b.Digest) != 71 {
					t.Errorf("revision %q, roots %q, digest %q", b.Revision, b.Roots, b.Digest)
				}
			}
		})
	}
	t.Run("unsigned", func(t *testing.T) {
		b, err := newReader(t, BundleConfig{}).Read(host().unsigned(t))
		if err != nil || len(b.Source) != 1 || !slices.Equal(b.Roots, []string{""}) {
			t.Errorf("%+v, %v", b, err)
		}
	})
	t.Run("signed, and nobody asks", func(t *testing.T) {
		if _, err := newReader(t, BundleConfig{}).Read(ecSigner(t, elliptic.P256(), "ES256").signed(t, host())); err != nil {
			t.Error(err)
		}
	})
}

// TestBundleRefused: nothing of it is taken, and the message says why.
func TestBundleRefused(t *testing.T) {
	s, other := ecSigner(t, elliptic.P256(), "ES256"), ecSigner(t, elliptic.P256(), "ES256")
	key := BundleConfig{KeyPEM: []byte(s.public)}
	signed := s.signed(t, host())
	with := func(change func(*content)) content {
		c := host()
		change(&c)
		return c
	}
	signatureOf := func(archive []byte) entry {
		for _, e := range unpack(t, archive) {
			if e.name == "/.signatures.json" {
				return e
			}
		}
		t.Fatal("no signature")
		return entry{}
	}
	big := strings.Repeat(" ", maxUnpacked/2+1)
	for name, c := range map[string]struct {
		archive []byte
		config  BundleConfig
		says    string
	}{
		"unsigned":          {host().unsigned(t), key, "missing .signatures.json"},
		"by another key":    {other.signed(t, host()), key, "failed to verify JWT signature"},
		"another algorithm": {rsaSigner(t, "RS256").signed(t, host()), key, "failed to verify JWT signature"},
		"a changed file": {tampered(t, signed, func(e []entry) []entry {
			for i := range e {
				e[i].text = strings.Replace(e[i].text, `"no"`, `"yes"`, 1)
			}
			return e
		}), key, "digest mismatch"},
		"a further file": {tampered(t, signed, func(e []entry) []entry {
			return append(e, entry{"/hallmark/rules/b/b.rego", "package hallmark.rules.b\n"})
		}), key, "not included in bundle signature"},
		"a file twice": {tampered(t, signed, func(e []entry) []entry {
			return append(e, entry{"/hallmark/rules/host/host.rego", hostRule})
		}), key, "not included in bundle signature"},
		"a file taken out": {tampered(t, signed, func(e []entry) []entry {
			return slices.DeleteFunc(e, func(e entry) bool { return strings.HasSuffix(e.name, ".rego") })
		}), key, "not found in the target bundle"},
		"a further manifest": {tampered(t, signed, func(e []entry) []entry {
			return append(e, entry{"/.manifest", `{"roots": ["hallmark"]}`})
		}), key, "not included in bundle signature"},
		"the signature of another bundle": {tampered(t, s.signed(t, with(func(c *content) { c.files["x.rego"] = "package x\n" })), func(e []entry) []entry {
			return append(slices.DeleteFunc(e, func(e entry) bool { return e.name == "/.signatures.json" }), signatureOf(signed))
		}), key, "not included in bundle signature"},
		"no signature in the file":  {pack(t, entry{"/hallmark/rules/host/host.rego", hostRule}, entry{".signatures.json", `{"signatures": []}`}), key, "missing JWT"},
		"a verifier of its own":     {pack(t, entry{"/hallmark/rules/host/host.rego", hostRule}, entry{".signatures.json", `{"signatures": ["a.b.c"], "plugin": "x"}`}), key, "no verifier exists"},
		"two signatures":            {tampered(t, signed, func(e []entry) []entry { return append(e, signatureOf(signed)) }), key, "multiple signatures files"},
		"an unsigned delta":         {content{patch: []bundle.PatchOperation{{Op: "remove", Path: "a"}}}.unsigned(t), key, "delta bundles do not support"},
		"a delta":                   {content{patch: []bundle.PatchOperation{{Op: "remove", Path: "a"}}}.unsigned(t), BundleConfig{}, "delta bundle"},
		"another key id":            {s.signed(t, with(func(c *content) { c.keyID = "test" })), BundleConfig{KeyPEM: key.KeyPEM, KeyID: "release"}, "ID test not found"},
		"no key id":                 {signed, BundleConfig{KeyPEM: key.KeyPEM, KeyID: "release"}, "key ID is empty"},
		"another scope":             {s.signed(t, with(func(c *content) { c.claims = `{"scope": "write"}` })), BundleConfig{KeyPEM: key.KeyPEM, Scope: "read"}, "scope mismatch"},
		"a scope that nobody wants": {s.signed(t, with(func(c *content) { c.claims = `{"scope": "write"}` })), key, "scope mismatch"},
		"a file twice, unsigned":    {pack(t, entry{"a.rego", hostRule}, entry{"/a.rego", hostRule}), BundleConfig{}, "it has a.rego twice"},
		"data":                      {s.signed(t, with(func(c *content) { c.data = map[string]any{"hallmark": map[string]any{"config": true}} })), key, "it has data (hallmark), and only rules are read"},
		"data in YAML":              {pack(t, entry{"a.rego", hostRule}, entry{"x/data.yaml", "a: 1"}), BundleConfig{}, "it has data (x)"},
		"WebAssembly":               {pack(t, entry{"a.rego", hostRule}, entry{"policy.wasm", "x"}), BundleConfig{}, "opa build --target rego"},
		"outside its roots":         {s.signed(t, with(func(c *content) { c.roots = []string{"other"} })), key, "manifest roots [other] do not permit"},
		"only tests":                {pack(t, entry{"a_test.rego", "package a_test\n"}), BundleConfig{}, "it has no rules"},
		"nothing":                   {pack(t), BundleConfig{}, "it has no rules"},
		"no Rego":                   {s.signed(t, with(func(c *content) { c.files["x.rego"] = "pack" })), key, "x.rego:1"},
		"no archive":                {[]byte("<html>"), key, "it is not a gzipped archive"},
		"half an archive":           {signed[:len(signed)/2], key, "unexpected EOF"},
		"a bomb":                    {pack(t, entry{"a.rego", big}, entry{"b.rego", big}), key, "unpacks to more than 16 MiB"},
		"a bomb of nothing":         {manyFiles(t), key, "more than 2000 files"},
		"a bomb of a hole":          {sparse(t), key, "unpacks to more than 16 MiB"},
		"too large":                 {make([]byte, MaxBundleBytes+1), key, "more than 4 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := newReader(t, c.config).Read(c.archive)
			if err == nil || b != nil || !strings.Contains(err.Error(), c.says) ||
				!strings.HasPrefix(err.Error(), "read bundle https://policies/a.tar.gz: ") {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
}

func manyFiles(t *testing.T) []byte {
	t.Helper()
	var entries []entry
	for i := range maxBundleFiles + 1 {
		entries = append(entries, entry{fmt.Sprintf("%d", i), ""})
	}
	return pack(t, entries...)
}

// sparse is an old GNU sparse file of a terabyte that takes one block.
func sparse(t *testing.T) []byte {
	t.Helper()
	header := make([]byte, 512)
	copy(header, "a.rego")
	copy(header[100:], "0000600\x00")
	copy(header[108:], "0000000\x00")
	copy(header[116:], "0000000\x00")
	copy(header[124:], "00000000000\x00") // bytes in the archive
	copy(header[136:], "00000000000\x00")
	header[156] = 'S'
	copy(header[257:], "ustar  \x00")
	copy(header[386:], "00000000000\x0000000000000\x00") // one hole without data
	copy(header[483:], []byte{0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0})
	copy(header[148:], "        ")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	if _, err := zipped.Write(append(header, make([]byte, 1024)...)); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

func TestBundleKeys(t *testing.T) {
	s := ecSigner(t, elliptic.P256(), "ES256")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	short, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config BundleConfig
		says   string
	}{
		"a shared secret":     {BundleConfig{KeyPEM: []byte("secret")}, "the key is not PEM"},
		"an empty file":       {BundleConfig{KeyPEM: []byte{}}, "the key is not PEM"},
		"a private key":       {BundleConfig{KeyPEM: []byte(s.private)}, `PEM block "EC PRIVATE KEY"; want PUBLIC KEY`},
		"a short RSA key":     {BundleConfig{KeyPEM: []byte(publicPEM(t, small.Public()))}, "1024 bits"},
		"a short curve":       {BundleConfig{KeyPEM: []byte(publicPEM(t, short.Public()))}, "neither RSA nor ECDSA"},
		"Ed25519":             {BundleConfig{KeyPEM: []byte(publicPEM(t, edwards))}, "neither RSA nor ECDSA"},
		"no key in the PEM":   {BundleConfig{KeyPEM: []byte(pemOf(t, "PUBLIC KEY", []byte("x"), nil))}, "the key cannot be read"},
		"an id without a key": {BundleConfig{KeyID: "a"}, "and no key"},
		"scope without a key": {BundleConfig{Scope: "a"}, "and no key"},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.Name = "oci"
			if r, err := NewBundleReader(c.config); err == nil || r != nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
}

// TestAddBundles: what one claims is not another's.
func TestAddBundles(t *testing.T) {
	at := func(name string, roots ...string) *Bundle {
		return &Bundle{Source: Source{name: []byte("package " + name)}, Roots: roots}
	}
	for name, c := range map[string]struct {
		bundles []*Bundle
		good    bool
	}{
		"none":          {nil, true},
		"side by side":  {[]*Bundle{at("a", "hallmark/rules/a", "lib/a"), at("b", "hallmark/rules/b")}, true},
		"the same":      {[]*Bundle{at("a", "x", "hallmark/rules"), at("b", "y", "hallmark/rules")}, false},
		"one below":     {[]*Bundle{at("a", "hallmark/rules/a"), at("b", "hallmark/rules")}, false},
		"one above":     {[]*Bundle{at("a", "hallmark"), at("b", "hallmark/rules")}, false},
		"without roots": {[]*Bundle{at("a", ""), at("b", "hallmark/rules")}, false},
		"alike in name": {[]*Bundle{at("a", "hallmark/rules/a"), at("b", "hallmark/rules/ab")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			source := Source{"shipped": []byte("package shipped")}
			err := source.AddBundles(c.bundles)
			if (err == nil) != c.good || c.good && len(source) != 1+len(c.bundles) {
				t.Errorf("%v, %d files", err, len(source))
			}
		})
	}
}

func FuzzBundle(f *testing.F) {
	r, err := NewBundleReader(BundleConfig{Name: "a"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		b, err := r.Read(archive)
		if (b == nil) == (err == nil) || err != nil && strings.Contains(err.Error(), "panic") {
			t.Fatalf("%v, %v", b, err)
		}
	})
}
