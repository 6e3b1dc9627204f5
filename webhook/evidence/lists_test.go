package evidence_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/evidence"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
)

// lists is a registry with an image and one bundle that refers to it, and a Content that reads it.
type lists struct {
	registry *registrytest.Registry
	api      bool
	status   atomic.Int32 // what the registry answers instead, when not 0
	ref      webhook.Reference
	bundle   string // digest of the manifest
	entries  []string
	clock    *clock
	config   evidence.Config
	store    *evidence.Store
	content  *evidence.Content
}

func newLists(t *testing.T, api bool) *lists {
	t.Helper()
	l := &lists{api: api, clock: &clock{now: time.Now()}}
	var err error
	l.registry, err = registrytest.New(registrytest.Config{Referrers: api, Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if status := l.status.Load(); status != 0 {
				http.Error(w, "no", int(status))
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.registry.Close() })
	image, err := l.registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/base", Tag: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	if l.ref, err = webhook.ParseReference(l.registry.Host() + "/golden/base@" + image); err != nil {
		t.Fatal(err)
	}
	l.bundle = l.attach(t, "bundle")
	l.config = evidence.Config{
		TagTTL: time.Minute, StaleIfError: 24 * time.Hour, VerifiedTTL: time.Hour, Timeout: 5 * time.Second, Now: l.clock.Now,
	}
	l.open(t, "")
	t.Cleanup(func() { _ = l.store.Close() })
	return l
}

// attach has a bundle refer to the image, and gives the digest of its manifest.
func (l *lists) attach(t *testing.T, text string) (digest string) {
	t.Helper()
	descriptors := make([]any, 2)
	for i, blob := range []string{"{}", text} {
		digest, err := l.registry.PushBlob(t.Context(), "golden/base", []byte(blob))
		if err != nil {
			t.Fatal(err)
		}
		descriptors[i] = fmt.Sprintf(`{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":%d}`, digest, len(blob))
	}
	body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s],"subject":{"mediaType":%q,"digest":%q,"size":2}}`,
		ociManifest, descriptors[0], descriptors[1], ociManifest, l.ref.Digest)
	l.push(t, "", registrytest.Manifest{MediaType: ociManifest, Body: body})
	digest = webhook.DigestOf(body)
	l.entries = append(l.entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, ociManifest, digest, len(body)))
	if !l.api {
		list := `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + strings.Join(l.entries, ",") + "]}"
		l.push(t, l.tag(), registrytest.Manifest{MediaType: ociIndex, Body: []byte(list)})
	}
	return digest
}

func (l *lists) push(t *testing.T, tag string, manifest registrytest.Manifest) {
	t.Helper()
	if _, err := l.registry.PushManifest(t.Context(), "golden/base", tag, manifest); err != nil {
		t.Fatal(err)
	}
}

// tag is where the list is without a referrers API.
func (l *lists) tag() string { return strings.Replace(l.ref.Digest, ":", "-", 1) }

// open starts with an empty memory, over a directory if one is given.
func (l *lists) open(t *testing.T, dir string) {
	t.Helper()
	if l.store != nil {
		if err := l.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var disk *evidence.Disk
	var err error
	if dir != "" {
		if disk, err = evidence.OpenDisk(dir, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	l.store = evidence.NewStore(evidence.Limits{Bytes: 1 << 20}, disk)
	client, err := registry.New(registry.Config{Hosts: []registry.Host{{Host: l.registry.Host(), CAPEM: l.registry.CAPEM()}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	l.content = evidence.NewContent(l.store, l.config, client)
}

func (l *lists) list(t *testing.T) (webhook.Manifest, error) {
	t.Helper()
	return l.content.Referrers(t.Context(), l.ref, 0)
}

// wantList wants the list with these bundles, that was read at a time if it is the last answer.
func (l *lists) wantList(t *testing.T, stale time.Time, bundles ...string) {
	t.Helper()
	got, err := l.list(t)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(got.Body), `"digest"`); n != len(bundles) || got.MediaType != ociIndex {
		t.Errorf("got %d entries, want %d: %s", n, len(bundles), got.Body)
	}
	for _, bundle := range bundles {
		if !strings.Contains(string(got.Body), bundle) {
			t.Errorf("got %s without %s", got.Body, bundle)
		}
	}
	if got.Stale.Unix() != stale.Unix() { // the directory has seconds
		t.Errorf("it is of %v, want %v", got.Stale, stale)
	}
}

func (l *lists) wantFailure(t *testing.T, want webhook.ReadFailure) {
	t.Helper()
	got, err := l.list(t)
	var read *webhook.ReadError
	if !errors.As(err, &read) || read.Failure != want {
		t.Errorf("got %s, %v; want failure %d", got.Body, err, want)
	}
}
