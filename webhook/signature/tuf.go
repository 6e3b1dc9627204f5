package signature

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"time"

	sigstoretuf "github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	tufconfig "github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/fetcher"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

const (
	tufTarget = "trusted_root.json"
	// maxTUFBytes bounds everything that one reading downloads. The public-good instance sends 60 kB.
	maxTUFBytes = 4 << 20
	// tufRootBytes is what go-tuf accepts as root.json.
	tufRootBytes = 512_000
)

// A tufReader reads the trusted root. It is used by one goroutine at a time.
type tufReader struct {
	url    string
	anchor []byte // root.json
	dir    string
	now    func() time.Time
	client *http.Client
	latest *tufState // what was read and proved; nil until then
	asked  bool
}

// A tufState is a trusted root with all that proves it.
type tufState struct {
	files    map[string][]byte // as downloaded, by their path in the repository
	metadata trustedmetadata.TrustedMetadata
	root     *trustedRoot
}

// newTUFReader checks the configuration.
func newTUFReader(config TUF, readFile func(name string) ([]byte, error), now func() time.Time) (*tufReader, error) {
	t := &tufReader{url: config.URL, dir: config.Dir, now: now, client: outsideClient()}
	if t.url == "" {
		t.url = sigstoretuf.DefaultMirror
	}
	t.url = strings.TrimSuffix(t.url, "/")
	var problems []error
	var err error
	if _, err := outsideURL(t.url); err != nil {
		problems = append(problems, fmt.Errorf("tuf: url: %w", err))
	}
	if t.anchor, err = tufAnchor(config.RootFile, readFile); err != nil {
		problems = append(problems, fmt.Errorf("tuf: root file: %w", err))
	}
	if t.dir != "" {
		if err := checkWritable(t.dir); err != nil {
			problems = append(problems, fmt.Errorf("tuf: dir: %w", err))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return t, nil
}

func tufAnchor(file string, readFile func(name string) ([]byte, error)) ([]byte, error) {
	if file == "" {
		return sigstoretuf.DefaultRoot(), nil
	}
	text, err := readFile(file)
	switch {
	case err != nil:
		return nil, err
	case len(text) > tufRootBytes:
		return nil, fmt.Errorf("%s is too large for a root.json", file)
	}
	if _, err := trustedmetadata.New(text); err != nil {
		return nil, fmt.Errorf("%s is not a root.json of TUF: %w", file, err)
	}
	return text, nil
}

// read follows the repository from root.json to the target, and refuses what is older than what was seen. The root
// expires with the first of the metadata that vouch for it. With a directory, the first reading gives what is kept there
// at once, as a provisional value; it is held against root.json like anything else, so the directory is not trusted.
func (t *tufReader) read(ctx context.Context) (*trustedRoot, time.Time, error) {
	if !t.asked {
		t.asked = true
		if t.load(); t.latest != nil && t.now().Before(t.latest.expires()) {
			return t.latest.root, t.latest.expires(), &provisional{}
		}
	}
	state, err := t.download(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer in time: %w", ctx.Err())
		}
		return nil, time.Time{}, fmt.Errorf("read the trusted root by TUF from %s: %w", t.url, err)
	}
	changed := t.latest == nil || !maps.EqualFunc(t.latest.files, state.files, bytes.Equal)
	t.latest = state
	if t.dir != "" && changed {
		if err := saveTUF(t.dir, t.url, state.files); err != nil {
			return state.root, state.expires(), &provisional{fmt.Errorf("keep what was read by TUF: %w", err)}
		}
	}
	return state.root, state.expires(), nil
}

func (t *tufReader) download(ctx context.Context) (*tufState, error) {
	defer t.client.CloseIdleConnections()
	source := &tufDownload{ctx: ctx, client: t.client, base: t.url + "/", left: maxTUFBytes, files: map[string][]byte{}}
	state, err := t.prove(source, t.now())
	if err != nil {
		return nil, err
	}
	state.files = source.files
	if t.latest != nil {
		if err := state.follows(t.latest); err != nil {
			return nil, err
		}
	}
	return state, nil
}

// load takes over what is kept in the directory, if it is proved by our root.json. It may have expired; later metadata
// still must not be older.
func (t *tufReader) load() {
	if t.dir == "" {
		return
	}
	files, err := loadTUF(t.dir, t.url)
	if err != nil {
		return // what is not there, or not whole, is downloaded
	}
	var beforeAnyExpiry time.Time
	if state, err := t.prove(tufFiles{t.url + "/", files}, beforeAnyExpiry); err == nil {
		state.files, t.latest = files, state
	}
}

// prove follows the repository from our root.json to the target. at is the time at which nothing may have expired.
func (t *tufReader) prove(source fetcher.Fetcher, at time.Time) (*tufState, error) {
	config, err := tufconfig.New(t.url, t.anchor)
	if err != nil {
		return nil, err
	}
	config.Fetcher = source
	// The client's own directory keeps only the last root, which it does not begin with: offline it would be of no use
	// once a key of the repository was replaced.
	config.DisableLocalCache = true
	config.LocalMetadataDir = os.DevNull // which it reads from nevertheless
	client, err := updater.New(config)
	if err != nil {
		return nil, err
	}
	client.UnsafeSetRefTime(at)
	if err := client.Refresh(); err != nil {
		return nil, err
	}
	target, err := client.GetTargetInfo(tufTarget)
	if err != nil {
		return nil, err
	}
	_, text, err := client.DownloadTarget(target, "", "")
	if err != nil {
		return nil, err
	}
	trusted, err := parseTrustedRoot(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tufTarget, err)
	}
	return &tufState{metadata: client.GetTrustedMetadataSet(), root: trusted}, nil
}

// expires is when the first of the metadata that vouch for the root expires.
func (s *tufState) expires() time.Time {
	m := s.metadata
	first := m.Root.Signed.Expires
	for _, other := range []time.Time{m.Timestamp.Signed.Expires, m.Snapshot.Signed.Expires} {
		if other.Before(first) {
			first = other
		}
	}
	for _, role := range m.Targets {
		if role.Signed.Expires.Before(first) {
			first = role.Signed.Expires
		}
	}
	return first
}

// follows refuses to go back to older metadata, which were valid once (TUF specification 5.3.5, 5.4.3, 5.5.5). Once a
// key of the timestamp or the snapshot was replaced, the old ones say nothing any more (5.3.11): whoever had the key
// could have set any version.
func (s *tufState) follows(old *tufState) error {
	now, was := s.metadata, old.metadata
	if err := notBack(metadata.ROOT, was.Root.Signed.Version, now.Root.Signed.Version); err != nil {
		return err
	}
	held := now.Root.VerifyDelegate(metadata.TIMESTAMP, was.Timestamp) == nil &&
		now.Root.VerifyDelegate(metadata.SNAPSHOT, was.Snapshot) == nil
	if !held {
		return nil
	}
	problems := []error{
		notBack(metadata.TIMESTAMP, was.Timestamp.Signed.Version, now.Timestamp.Signed.Version),
		notBack(metadata.SNAPSHOT, was.Snapshot.Signed.Version, now.Snapshot.Signed.Version),
	}
	for name, meta := range was.Snapshot.Signed.Meta {
		to := int64(0) // it is not there any more
		if found := now.Snapshot.Signed.Meta[name]; found != nil {
			to = found.Version
		}
		problems = append(problems, notBack(strings.TrimSuffix(name, ".json"), meta.Version, to))
	}
	return errors.Join(problems...)
}

func notBack(role string, from, to int64) error {
	if to < from {
		return fmt.Errorf("it went back from version %d to %d of %s", from, to, role)
	}
	return nil
}
