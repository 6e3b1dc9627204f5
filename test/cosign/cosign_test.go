package cosign

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A layout is a program and the flags that have it write signatures and attestations in one of the two layouts.
type layout struct {
	name    string
	program func() string
	flags   []string
	bundle  bool
}

func layouts() []layout {
	v2 := func() string { return programs.V2 }
	v3 := func() string { return programs.V3 }
	return []layout{
		{"v2", v2, []string{"--tlog-upload=false"}, false},
		{"v2 bundle", v2, []string{"--tlog-upload=false", "--new-bundle-format"}, true},
		{"v3 old layout", v3, []string{"--tlog-upload=false", "--use-signing-config=false", "--new-bundle-format=false"}, false},
		{"v3", v3, []string{"--signing-config", "signing-config.json"}, true},
		{"v3 without config", v3, []string{"--tlog-upload=false", "--use-signing-config=false"}, true},
	}
}

// A desk is where somebody signs: a directory with a key pair for each name, and the registries' authorities.
type desk struct {
	t        *testing.T
	dir      string
	registry []string // flags with which a registry is reached
}

func newDesk(t *testing.T, caFiles ...string) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir(), registry: []string{"--allow-http-registry"}}
	var authorities []byte
	for _, file := range caFiles {
		if file != "" {
			text, err := os.ReadFile(file)
			must(t, err)
			authorities = append(authorities, text...)
		}
	}
	if authorities != nil {
		d.write("ca.pem", authorities)
		d.registry = []string{"--registry-cacert", "ca.pem"}
	}
	// A signing config without a log, a timestamp authority or a certificate authority, as the program itself makes it.
	d.run(programs.V3, "signing-config", "create", "--no-default-fulcio", "--no-default-rekor", "--no-default-tsa",
		"--no-default-oidc", "--out", "signing-config.json")
	return d
}

// in is the same desk for a part of the test.
func (d *desk) in(t *testing.T) *desk {
	part := *d
	part.t = t
	return &part
}

func (d *desk) write(name string, content []byte) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	must(d.t, os.WriteFile(path, content, 0o600))
	return path
}

// run runs a program, which has to succeed, and gives what it said.
func (d *desk) run(program string, args ...string) string {
	d.t.Helper()
	command := exec.CommandContext(d.t.Context(), program, args...)
	command.Dir, command.Env = d.dir, environment(d.dir)
	out, err := command.CombinedOutput()
	if err != nil {
		d.t.Fatalf("cosign %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// key makes a key pair and gives its public half as a signer.
func (d *desk) key(name string) trusted {
	d.t.Helper()
	d.run(programs.V2, "generate-key-pair", "--output-key-prefix", name)
	return trusted{KeyFile: filepath.Join(d.dir, name+".pub")}
}

// imported makes a key pair of one that something else has made.
func (d *desk) imported(name string, private any) trusted {
	d.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	must(d.t, err)
	file := d.write(name+".pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	d.run(programs.V2, "import-key-pair", "--key", file, "--output-key-prefix", name)
	return trusted{KeyFile: filepath.Join(d.dir, name+".pub")}
}

// sign signs an image with the key of that name.
func (d *desk) sign(in layout, key, image string, more ...string) {
	d.t.Helper()
	d.run(in.program(), slices.Concat([]string{"sign", "-y", "--key", key + ".key"}, in.flags, d.registry, more,
		[]string{image})...)
}

// attest attests something of an image.
func (d *desk) attest(in layout, image, kind, predicate string) {
	d.t.Helper()
	file := d.write("predicate.json", []byte(predicate))
	d.run(in.program(), slices.Concat([]string{"attest", "-y", "--key", "ci.key", "--type", kind, "--predicate", file},
		in.flags, d.registry, []string{image})...)
}

// registries are the ways in which registries list bundles.
func registries() map[string][]string {
	return map[string][]string{"referrers API": {"-referrers"}, "list at a tag": nil}
}

// A signed image has one valid signature by a signer, among so many that were found.
type signed struct {
	signer, image string
	found         int
}

// wantSigned wants the answer that exactly this signer has signed exactly this image.
func wantSigned(t *testing.T, got answer, want signed) {
	t.Helper()
	_, digest, _ := strings.Cut(want.image, "@")
	valid := got.Signatures.Valid
	if got.Error != "" || len(valid) != 1 || valid[0].Signer != want.signer || valid[0].Digest != digest || valid[0].Key == "" ||
		got.Signatures.Found != want.found {
		t.Errorf("got %+v, error %q, want %+v", got.Signatures, got.Error, want)
	}
}

// wantUnsigned wants the answer that nobody has, for this reason; "" for none.
func wantUnsigned(t *testing.T, got answer, why string) {
	t.Helper()
	rejected := strings.Join(got.Signatures.Rejected, "; ")
	if got.Error != "" || len(got.Signatures.Valid) > 0 || (why == "") != (rejected == "") || !strings.Contains(rejected, why) {
		t.Errorf("got  %+v, error %q\nwant no signature and the reason %q", got.Signatures, got.Error, why)
	}
}

// TestSign: in every layout and registry the signer counts, whoever else has signed, and only for that image.
func TestSign(t *testing.T) {
	all := registries()
	all["plain HTTP"] = []string{"-plain"}
	for name, flags := range all {
		t.Run(name, func(t *testing.T) {
			s := startStand(t, flags...)
			d := newDesk(t, s.caFile)
			signers := map[string]trusted{"ci": d.key("ci"), "release": d.key("release")}
			byCI := []rule{{AnyOf: []string{"ci"}, Threshold: 1}}
			for _, in := range layouts() {
				t.Run(in.name, func(t *testing.T) {
					s, d := s.in(t), d.in(t)
					image := s.push("golden/"+strings.ReplaceAll(in.name, " ", "-"), false)
					ask := func(rules ...rule) answer {
						return s.ask(question{Image: image, Signers: signers, Signatures: rules})
					}
					wantUnsigned(t, ask(byCI...), "")
					d.sign(in, "release", image, "-a", "team=devex", "-a", "ref=a b")
					wantUnsigned(t, ask(byCI...), "1 signature by release")
					d.sign(in, "ci", image, "-a", "team=devex")
					got := ask(byCI...)
					if got.Signatures.Found < 1 || got.Signatures.Found > 2 { // it stops when it has found it
						t.Errorf("found %d", got.Signatures.Found)
					}
					wantSigned(t, got, signed{"ci", image, got.Signatures.Found})
					both := ask(rule{AnyOf: []string{"ci", "release"}, Threshold: 2})
					if both.Error != "" || len(both.Signatures.Valid) != 2 || both.Signatures.Found != 2 {
						t.Errorf("two signers: got %+v, error %q", both.Signatures, both.Error)
					}
				})
			}
		})
	}
}

// TestSignTogether: what the programs write one after the other to one image is all found.
func TestSignTogether(t *testing.T) {
	for name, flags := range registries() {
		t.Run(name, func(t *testing.T) {
			s := startStand(t, flags...)
			d := newDesk(t, s.caFile)
			image := s.push("golden/ws", false)
			signers, everyone := map[string]trusted{}, []string{}
			for _, in := range layouts() {
				key := strings.ReplaceAll(in.name, " ", "-")
				signers[key] = d.key(key)
				everyone = append(everyone, key)
				d.sign(in, key, image)
			}
			all := []rule{{AnyOf: everyone, Threshold: len(everyone)}}
			got := s.ask(question{Image: image, Signers: signers, Signatures: all})
			if got.Error != "" || len(got.Signatures.Valid) != len(everyone) || got.Signatures.Found != len(everyone) {
				t.Errorf("got %+v, error %q\nwant signatures by %v", got.Signatures, got.Error, everyone)
			}
		})
	}
}

// TestKeys: other keys than those that the program makes.
func TestKeys(t *testing.T) {
	s := startStand(t, "-referrers")
	d := newDesk(t, s.caFile)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 3072)
	must(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	signers := map[string]trusted{"rsa": d.imported("rsa", rsaKey), "ed25519": d.imported("ed25519", edKey)}
	for key, signer := range signers {
		for _, in := range layouts() {
			t.Run(key+" "+in.name, func(t *testing.T) {
				s, d := s.in(t), d.in(t)
				image := s.push("golden/"+key+"-"+strings.ReplaceAll(in.name, " ", "-"), false)
				d.sign(in, key, image)
				byKey := []rule{{AnyOf: []string{key}, Threshold: 1}}
				got := s.ask(question{Image: image, Signers: map[string]trusted{key: signer}, Signatures: byKey})
				wantSigned(t, got, signed{key, image, 1})
			})
		}
	}
}
