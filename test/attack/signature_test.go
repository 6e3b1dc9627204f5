package attack

import (
	"crypto"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const (
	layers  = "layers"  // cosign's own layout, the tag sha256-<hex>.sig
	bundles = "bundles" // referrers that hold sigstore bundles

	workflowIssuer = "https://token.actions.githubusercontent.com"
	workflow       = "https://github.com/corp/images/.github/workflows/build.yml@refs/heads/main"
)

// A trust is whom a webhook believes.
type trust struct {
	signers    string // lines of YAML; ROOT stands for the file with the authority's root
	signatures string // likewise, HOST stands for the registry
	more       string // further keys of the configuration, likewise
	limits     string // "" lets many cases share a registry
}

// A signing is a world whose registry has the referrers API, with an authority that signers may trust.
type signing struct {
	world
	authority *registrytest.Sigstore
	stranger  *registrytest.Sigstore // of the same names, whom nobody trusts
	root      string                 // file
}

// newSigning starts a webhook that wants golden images signed as trust says, and the others not at all.
func newSigning(t *testing.T, config registrytest.Config, by trust) *signing {
	t.Helper()
	s := newAuthority(t)
	s.start(t, config, by)
	return s
}

func (s *signing) start(t *testing.T, config registrytest.Config, by trust) {
	t.Helper()
	config.Referrers = true
	s.world = newWorld(t, config, func(text string) string { return s.trusting(text, by) })
}

func newAuthority(t *testing.T) *signing {
	t.Helper()
	s := &signing{root: filepath.Join(t.TempDir(), "trusted_root.json")}
	var err, strangerErr error
	s.authority, err = registrytest.NewSigstore(registrytest.SigstoreConfig{})
	s.stranger, strangerErr = registrytest.NewSigstore(registrytest.SigstoreConfig{})
	must(t, err)
	must(t, strangerErr)
	s.writeRoot(t, s.authority)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// writeRoot replaces the file as an admin's tool would.
func (s *signing) writeRoot(t *testing.T, of *registrytest.Sigstore, others ...*registrytest.Sigstore) {
	t.Helper()
	text, err := of.TrustedRootJSON(others...)
	must(t, err)
	must(t, os.WriteFile(s.root+".new", text, 0o600))
	must(t, os.Rename(s.root+".new", s.root))
}

// trusting is the fixture's configuration with other signers and other rules for signatures.
func (s *signing) trusting(text string, by trust) string {
	limits := by.limits
	if limits == "" {
		limits = "requestsPerSecond: 1000"
	}
	fill := strings.NewReplacer("ROOT", strconv.Quote(s.root), "HOST", hostOf(text))
	head, rest, _ := strings.Cut(text, "\nsignatures:\n")
	_, rest, _ = strings.Cut(rest, "\n")
	return strings.Replace(head, "\nregistries:\n", "\nrules: {golden: off}\nlimits: {"+limits+"}\nregistries:\n", 1) +
		"\n" + fill.Replace(by.signers) + "signatures:\n" + fill.Replace(by.signatures) + rest + fill.Replace(by.more)
}

// keySigner is a line for a signer with a key; more are further keys.
func keySigner(name, publicPEM, more string) string {
	return fmt.Sprintf("  %s: {key: %q%s}\n", name, publicPEM, more)
}

// releaseSigner is a line for the workflow; more are further keys.
func releaseSigner(name, more string) string {
	return fmt.Sprintf("  %s: {keyless: {issuer: %q, subjectPattern: %q}, trustedRoot: ROOT%s}\n",
		name, workflowIssuer, `https://github\.com/corp/.*`, more)
}

// newSigner makes a key and its public half.
func newSigner(t *testing.T) (crypto.Signer, string) {
	t.Helper()
	key, public, err := registrytest.NewKey()
	must(t, err)
	return key, public
}

// A subject is an image that is to be signed, in one of the layouts.
type subject struct {
	*signing
	t                          *testing.T
	repository, digest, layout string
}

// subject pushes an image.
func (s *signing) subject(t *testing.T, repository, layout string) subject {
	t.Helper()
	digest, err := s.Registry.PushImage(t.Context(), registrytest.Image{Repository: repository, Tag: "v1.0.0", User: "1000"})
	must(t, err)
	return subject{s, t, repository, digest, layout}
}

// A mark is a signature before it is made. The zero value is good, but for who signs.
type mark struct {
	by      registrytest.Signer
	witness registrytest.Witness
	of      string // the digest that is signed instead of the image's
	names   string // the repository that is signed instead of the image's
	// Whatever else is different in each of the layouts.
	layer  registrytest.SignOptions
	bundle registrytest.BundleOptions
}

// sign attaches a signature to the image.
func (s subject) sign(m mark) {
	s.t.Helper()
	digest := s.digest
	if m.of != "" {
		digest, m.layer.AttachTo, m.bundle.AttachTo = m.of, s.digest, s.digest
	}
	m.layer.Witness, m.bundle.Witness, m.bundle.Signer = m.witness, m.witness, m.by
	if m.names != "" {
		m.layer.DockerReference, m.bundle.Statement.SubjectName = m.names, m.names
	}
	ctx, r := s.t.Context(), s.Registry
	switch {
	case s.layout == bundles:
		must(s.t, r.SignBundle(ctx, s.repository, digest, m.bundle))
	case m.by.Keyless != nil:
		must(s.t, r.SignKeyless(ctx, s.repository, digest, m.by.Keyless,
			registrytest.KeylessOptions{Certificate: m.by.Certificate, SignOptions: m.layer}))
	default:
		must(s.t, r.Sign(ctx, s.repository, digest, m.by.Key, m.layer))
	}
}

// release is who signs as the workflow, with changes.
func (s *signing) release(changes ...func(*registrytest.Certificate)) registrytest.Signer {
	c := registrytest.Certificate{Identity: workflow, Issuer: workflowIssuer}
	for _, change := range changes {
		change(&c)
	}
	return registrytest.Signer{Keyless: s.authority, Certificate: c}
}

// ref is the image by its tag.
func (s subject) ref() string { return s.Ref(s.repository + ":v1.0.0") }

// judge sends a pod with the image. Every answer has to come in a moment, and nothing may be said of a panic.
func (s subject) judge(want want) {
	s.t.Helper()
	within(s.t, 5*time.Second, func() { want.check(s.t, s.admit(s.t, s.pod(image(s.ref())))) })
}

// A signedCase is an image that is signed in some way, and what comes of it.
type signedCase struct {
	rule    string // the part of the repository that chooses the rule
	sign    func(s subject)
	want    want   // in both layouts, or
	bundles *want  // in bundles
	only    string // a layout
}

// run judges all cases in both layouts, each in a repository of its own.
func (s *signing) run(t *testing.T, cases map[string]signedCase) {
	t.Helper()
	number := 0
	for title, c := range cases {
		for _, layout := range []string{layers, bundles} {
			if c.only != "" && c.only != layout {
				continue
			}
			number++
			repository := fmt.Sprintf("golden/%s/ws%d", c.rule, number)
			t.Run(title+"/"+layout, func(t *testing.T) {
				on, outcome := s.subject(t, repository, layout), c.want
				if layout == bundles && c.bundles != nil {
					outcome = *c.bundles
				}
				c.sign(on)
				on.judge(outcome)
			})
		}
	}
	s.sound(t)
}

// withMember replaces a member of a JSON object by that of another.
func withMember(t *testing.T, object []byte, name string, from []byte) []byte {
	t.Helper()
	var to, other map[string]json.RawMessage
	must(t, json.Unmarshal(object, &to))
	must(t, json.Unmarshal(from, &other))
	to[name] = other[name]
	return encode(t, to)
}

// withinCPU fails when the webhook computes for longer than limit while f runs, however busy the machine is.
func withinCPU(t *testing.T, pid int, limit time.Duration, f func()) {
	t.Helper()
	before := cpuOf(t, pid)
	f()
	if took := cpuOf(t, pid) - before; took > limit {
		t.Errorf("the webhook computed for %v, want at most %v", took, limit)
	}
}

// cpuOf is the time for which a process has computed, in hundredths of a second.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	// The second field is the name in brackets; times are the 14th and 15th.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		must(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
