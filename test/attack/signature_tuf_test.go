package attack

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// A tufRepository serves a trusted root by TUF, over plain HTTP, until it is down.
type tufRepository struct {
	*harness.Hostile
	files map[string][]byte
	root  string // file with root.json
	down  atomic.Bool
}

// newTUF signs everything with one key. The metadata expire at end.
func newTUF(t *testing.T, target []byte, end time.Time) *tufRepository {
	t.Helper()
	r := &tufRepository{files: map[string][]byte{}, root: filepath.Join(t.TempDir(), "root.json")}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	key, err := metadata.KeyFromPublicKey(public)
	must(t, err)
	root := metadata.Root(time.Now().Add(time.Hour))
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		must(t, root.Signed.AddKey(key, role))
	}
	const name = "trusted_root.json"
	info, err := metadata.TargetFile().FromBytes(name, target, "sha256")
	must(t, err)
	targets, snapshot, timestamp := metadata.Targets(end), metadata.Snapshot(end), metadata.Timestamp(end)
	targets.Signed.Targets[name] = info
	r.files["1.root.json"] = signTUF(t, root, private)
	r.files["1.targets.json"] = signTUF(t, targets, private)
	r.files["1.snapshot.json"] = signTUF(t, snapshot, private)
	r.files["timestamp.json"] = signTUF(t, timestamp, private)
	r.files[fmt.Sprintf("targets/%x.%s", []byte(info.Hashes["sha256"]), name)] = target
	must(t, os.WriteFile(r.root, r.files["1.root.json"], 0o600))
	r.Hostile = hostile(t, harness.HostileConfig{Plain: true, Handler: http.HandlerFunc(r.serve)})
	return r
}

func signTUF[T metadata.Roles](t *testing.T, m *metadata.Metadata[T], key ed25519.PrivateKey) []byte {
	t.Helper()
	signer, err := sigstore.LoadSigner(key, crypto.Hash(0))
	must(t, err)
	_, err = m.Sign(signer)
	must(t, err)
	body, err := m.ToBytes(false)
	must(t, err)
	return body
}

func (r *tufRepository) serve(w http.ResponseWriter, request *http.Request) {
	body, ok := r.files[strings.TrimPrefix(request.URL.Path, "/")]
	switch {
	case r.down.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case !ok:
		http.NotFound(w, request)
	default:
		_, _ = w.Write(body)
	}
}

// tufTrust has release trust what the repository says; more is added to the configuration.
func (r *tufRepository) tufTrust(more string) trust {
	return trust{
		signers: strings.ReplaceAll(releaseSigner("release", ""), "ROOT", "tuf"),
		signatures: `  - {match: ["HOST/golden/key/**"], anyOf: [ci]}
  - {match: ["HOST/golden/release/**"], anyOf: [release]}
  - {match: ["HOST/golden/either/**"], anyOf: [ci, release]}
`,
		more: fmt.Sprintf("tuf: {url: %q, root: %q}\n", "http://"+r.Host(), r.root) + more,
	}
}

// signedBoth gives an image by a key and one by the workflow.
func (s *signing) signedBoth(t *testing.T, layout string) (keyed, keyless subject) {
	t.Helper()
	keyed = s.subject(t, "golden/key/"+layout, layout)
	keyed.sign(mark{by: registrytest.Signer{Key: s.Key}})
	keyless = s.subject(t, "golden/release/"+layout, layout)
	keyless.sign(mark{by: s.release()})
	return keyed, keyless
}

// unrooted is the answer while there is no root to hold a certificate against.
func unrooted() want {
	return want{
		code: 503, says: []string{"could not be checked: signer release has no trusted root at present; try again."},
		without: []string{"not signed", "no signature"},
	}
}

// TestTUFOffline (SIG-049): without the network there are no identities, and everything else goes on. What was read once
// is used by a new process, until it expires.
func TestTUFOffline(t *testing.T) {
	s := newAuthority(t)
	target, err := s.authority.TrustedRootJSON()
	must(t, err)
	t.Run("never there", func(t *testing.T) {
		repository := newTUF(t, target, time.Now().Add(time.Hour))
		must(t, repository.Close())
		s.fixture(t, repository.tufTrust(""))
		s.served(t, func() {
			if !s.ready(t) {
				t.Error("the webhook is not ready")
			}
			for _, layout := range []string{layers, bundles} {
				keyed, keyless := s.signedBoth(t, layout)
				keyed.judge(allowed())
				keyless.judge(unrooted())
				either := s.subject(t, "golden/either/"+layout, layout)
				either.judge(denied("not signed by ci or release (no signature found)"))
				either.sign(mark{by: registrytest.Signer{Key: s.Key}})
				either.judge(allowed())
			}
			if out, err := s.pull(t, filepath.Join(t.TempDir(), "cache"), s.Ref("golden/release/layers:v1.0.0")); err == nil ||
				!strings.Contains(out, "trust") {
				t.Errorf("pull without a root: %v\n%s", err, out)
			}
		})
	})
	t.Run("comes late", func(t *testing.T) {
		repository := newTUF(t, target, time.Now().Add(time.Hour))
		repository.down.Store(true)
		s.fixture(t, repository.tufTrust(""))
		s.served(t, func() {
			_, keyless := s.signedBoth(t, bundles)
			keyless.judge(unrooted())
			repository.down.Store(false)
			eventually(t, "the root", func() bool { return s.admit(t, s.pod(image(keyless.ref()))).Allowed })
			asked := len(repository.Seen())
			for range 20 {
				keyless.judge(allowed())
			}
			if n := len(repository.Seen()); n != asked {
				t.Errorf("%d requests for the root by admissions", n-asked)
			}
			repository.down.Store(true)
			must(t, s.Write("hallmark.yaml", []byte(s.trusting(s.Configuration(), repository.tufTrust("message: {helpURL: \"https://help.example\"}\n")))))
			eventually(t, "the reload", func() bool {
				return strings.Contains(s.admit(t, s.pod(image("evil.example/x"))).Message, "help.example")
			})
			keyless.judge(allowed())
		})
	})
	t.Run("a restart without it", func(t *testing.T) {
		cache := filepath.Join(t.TempDir(), "cache")
		repository := newTUF(t, target, time.Now().Add(time.Hour))
		s.fixture(t, repository.tufTrust(fmt.Sprintf("cache: {dir: %q}\n", cache)))
		_, keyless := s.signedBoth(t, layers)
		s.served(t, func() {
			eventually(t, "the root", func() bool { return s.admit(t, s.pod(image(keyless.ref()))).Allowed })
		})
		repository.down.Store(true)
		_, second := s.signedBoth(t, bundles)
		s.served(t, func() {
			eventually(t, "the root that was kept", func() bool { return s.admit(t, s.pod(image(second.ref()))).Allowed })
			keyless.judge(allowed())
		})
		must(t, s.Registry.Close())
		s.served(t, func() {
			eventually(t, "what was proved", func() bool { return s.admit(t, s.pod(image(keyless.ref()))).Allowed })
		})
	})
	t.Run("another root.json", func(t *testing.T) {
		repository := newTUF(t, target, time.Now().Add(time.Hour))
		s.fixture(t, repository.tufTrust(""))
		s.served(t, func() {
			_, keyless := s.signedBoth(t, layers)
			eventually(t, "the root", func() bool { return s.admit(t, s.pod(image(keyless.ref()))).Allowed })
			first, err := os.ReadFile(repository.root)
			must(t, err)
			stranger := newTUF(t, target, time.Now().Add(time.Hour))
			must(t, os.WriteFile(repository.root, stranger.files["1.root.json"], 0o600))
			eventually(t, "the end of what the first one proved", func() bool { return !s.admit(t, s.pod(image(keyless.ref()))).Allowed })
			keyless.judge(unrooted())
			must(t, os.WriteFile(repository.root, first, 0o600))
			eventually(t, "the first one again", func() bool { return s.admit(t, s.pod(image(keyless.ref()))).Allowed })
		})
	})
	t.Run("expires", func(t *testing.T) {
		repository := newTUF(t, target, time.Now().Add(8*time.Second))
		s.fixture(t, repository.tufTrust(""))
		s.served(t, func() {
			keyed, keyless := s.signedBoth(t, layers)
			eventually(t, "the root", func() bool { return s.admit(t, s.pod(image(keyless.ref()))).Allowed })
			repository.down.Store(true)
			eventually(t, "the end of the root", func() bool { return !s.admit(t, s.pod(image(keyless.ref()))).Allowed })
			keyless.judge(unrooted())
			keyed.judge(allowed())
		})
	})
}
