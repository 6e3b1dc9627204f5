package signature

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

const day = 24 * time.Hour

// A tufRepo is a TUF repository over HTTP, with consistent snapshots as sigstore's.
type tufRepo struct {
	*httptest.Server
	t       *testing.T
	start   time.Time
	expires map[string]time.Time // by role
	keys    map[string]ed25519.PrivateKey
	root    *metadata.Metadata[metadata.RootType]
	version int64 // of timestamp, snapshot and targets
	anchor  []byte

	mu     sync.Mutex
	files  map[string][]byte
	answer http.HandlerFunc // instead of the files, when not nil
	asked  int
}

func newTUFRepo(t *testing.T) *tufRepo {
	t.Helper()
	start := time.Now().Truncate(time.Second).UTC()
	r := &tufRepo{
		t: t, start: start, keys: map[string]ed25519.PrivateKey{}, files: map[string][]byte{},
		expires: map[string]time.Time{
			metadata.ROOT: start.Add(100 * day), metadata.TARGETS: start.Add(90 * day),
			metadata.SNAPSHOT: start.Add(20 * day), metadata.TIMESTAMP: start.Add(7 * day),
		},
	}
	r.root = metadata.Root(r.expires[metadata.ROOT])
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		r.addKey(role)
	}
	r.signRoot(r.keys[metadata.ROOT])
	r.anchor = r.files["1.root.json"]
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *tufRepo) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *tufRepo) serve(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	r.asked++
	answer := r.answer
	body, ok := r.files[strings.TrimPrefix(request.URL.Path, "/")]
	r.mu.Unlock()
	switch {
	case answer != nil:
		answer(w, request)
	case !ok:
		http.NotFound(w, request)
	default:
		_, _ = w.Write(body)
	}
}

func (r *tufRepo) answerWith(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *tufRepo) fails() {
	r.answerWith(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
}

func (r *tufRepo) addKey(role string) {
	r.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	r.must(err)
	key, err := metadata.KeyFromPublicKey(public)
	r.must(err)
	r.must(r.root.Signed.AddKey(key, role))
	r.keys[role] = private
}

// rotate replaces the key of a role by a new root.json, which the old and the new root keys sign.
func (r *tufRepo) rotate(role string) {
	r.t.Helper()
	before := r.keys[metadata.ROOT]
	old := r.root.Signed.Roles[role].KeyIDs[0]
	r.addKey(role)
	r.must(r.root.Signed.RevokeKey(old, role))
	r.root.Signed.Version++
	keys := []ed25519.PrivateKey{before}
	if role == metadata.ROOT {
		keys = append(keys, r.keys[role])
	}
	r.signRoot(keys...)
}

func (r *tufRepo) signRoot(keys ...ed25519.PrivateKey) {
	r.t.Helper()
	r.root.ClearSignatures()
	r.file(fmt.Sprintf("%d.root.json", r.root.Signed.Version), signMetadata(r, r.root, keys...))
}

func (r *tufRepo) file(name string, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[name] = body
}

func signMetadata[T metadata.Roles](r *tufRepo, m *metadata.Metadata[T], keys ...ed25519.PrivateKey) []byte {
	r.t.Helper()
	for _, key := range keys {
		signer, err := sigstore.LoadSigner(key, crypto.Hash(0))
		r.must(err)
		_, err = m.Sign(signer)
		r.must(err)
	}
	body, err := m.ToBytes(false)
	r.must(err)
	return body
}

// publish makes a target the trusted root of the repository, and gives the path of its file.
func (r *tufRepo) publish(target []byte) string {
	r.t.Helper()
	r.version++
	targets := metadata.Targets(r.expires[metadata.TARGETS])
	info, err := metadata.TargetFile().FromBytes(tufTarget, target, "sha256", "sha512")
	r.must(err)
	targets.Signed.Version, targets.Signed.Targets[tufTarget] = r.version, info
	snapshot := metadata.Snapshot(r.expires[metadata.SNAPSHOT])
	snapshot.Signed.Version, snapshot.Signed.Meta["targets.json"] = r.version, metadata.MetaFile(r.version)
	timestamp := metadata.Timestamp(r.expires[metadata.TIMESTAMP])
	timestamp.Signed.Version, timestamp.Signed.Meta["snapshot.json"] = r.version, metadata.MetaFile(r.version)
	for _, hash := range info.Hashes {
		r.file(fmt.Sprintf("targets/%x.%s", []byte(hash), tufTarget), target)
	}
	r.file(fmt.Sprintf("%d.targets.json", r.version), signMetadata(r, targets, r.keys[metadata.TARGETS]))
	r.file(fmt.Sprintf("%d.snapshot.json", r.version), signMetadata(r, snapshot, r.keys[metadata.SNAPSHOT]))
	r.file("timestamp.json", signMetadata(r, timestamp, r.keys[metadata.TIMESTAMP]))
	return fmt.Sprintf("targets/%x.%s", sha256.Sum256(target), tufTarget)
}

// newTrustedRootJSON is a trusted_root.json whose one log is at a URL.
func newTrustedRootJSON(t *testing.T, logURL string) []byte {
	t.Helper()
	public, der := newTestKey(t)
	id := sha256.Sum256(der)
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, nil, nil, nil, map[string]*root.TransparencyLog{
		fmt.Sprintf("%x", id): {
			BaseURL: logURL, ID: id[:], ValidityPeriodStart: time.Unix(0, 0), HashFunc: crypto.SHA256, PublicKey: public,
			SignatureHashFunc: crypto.SHA256,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := trusted.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
