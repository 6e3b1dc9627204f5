package evidence_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/evidence"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestReferrers: every look asks, so a new signature counts at once; only an outage is bridged by the last answer.
func TestReferrers(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprintf("api=%v", api), func(t *testing.T) {
			l := newLists(t, api)
			l.wantList(t, time.Time{}, l.bundle)
			second := l.attach(t, "second")
			l.wantList(t, time.Time{}, l.bundle, second)
			read := l.clock.Now()
			l.clock.add(time.Hour)
			l.status.Store(503)
			l.wantList(t, read, l.bundle, second)
			l.status.Store(429)
			l.wantList(t, read, l.bundle, second)
			l.status.Store(403)
			l.wantFailure(t, webhook.Unauthorized)
			l.status.Store(0)
			l.wantList(t, time.Time{}, l.bundle, second)
			l.status.Store(503)
			l.clock.add(25 * time.Hour)
			l.wantFailure(t, webhook.Unavailable)
		})
	}
}

// TestReferrersAreForgotten: what the registry no longer has does not come back in an outage, nor after a restart.
func TestReferrersAreForgotten(t *testing.T) {
	for name, dir := range map[string]string{"in memory": "", "on disk": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			l := newLists(t, false)
			l.open(t, dir)
			l.wantList(t, time.Time{}, l.bundle)
			if dir != "" {
				l.open(t, dir) // so that it stands in index.json
			}
			if err := l.registry.Delete(t.Context(), "golden/base", l.tag()); err != nil {
				t.Fatal(err)
			}
			l.wantFailure(t, webhook.NotFound)
			l.status.Store(503)
			l.wantFailure(t, webhook.Unavailable)
			if dir != "" {
				l.open(t, dir)
				l.wantFailure(t, webhook.Unavailable)
			}
		})
	}
}

// TestReferrersAfterRestart: the list, the bundle's manifest and the bundle are there, with the registry or without.
func TestReferrersAfterRestart(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprintf("api=%v", api), func(t *testing.T) {
			l, dir := newLists(t, api), t.TempDir()
			l.open(t, dir)
			l.wantList(t, time.Time{}, l.bundle)
			read := func(content *evidence.Content) error {
				_, err := content.Manifest(t.Context(), l.ref.WithDigest(l.bundle), 0)
				if err == nil {
					_, err = content.Blob(t.Context(), l.ref, webhook.DigestOf([]byte("bundle")), 0)
				}
				return err
			}
			if err := read(l.content); err != nil {
				t.Fatal(err)
			}
			asked := l.clock.Now()
			l.open(t, dir)
			l.registry.Reset()
			known := l.content.Known()
			got, err := known.Referrers(t.Context(), l.ref, 0)
			if err != nil || !strings.Contains(string(got.Body), l.bundle) || got.Stale.IsZero() {
				t.Errorf("known: %+v, %v", got, err)
			}
			if err := read(known); err != nil {
				t.Errorf("known: %v", err)
			}
			if n := len(l.registry.Requests()); n != 0 {
				t.Errorf("%d requests for what is known", n)
			}
			l.status.Store(503)
			l.wantList(t, asked, l.bundle)
			if err := read(l.content); err != nil {
				t.Errorf("in an outage: %v", err)
			}
		})
	}
}

// TestReferrersOfAnotherTool: an OCI layout with the tag serves without a registry, and stays what it is when a registry
// has no such tag.
func TestReferrersOfAnotherTool(t *testing.T) {
	l, dir := newLists(t, false), t.TempDir()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(l.registry.CAPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	image := l.ref.WithTag(l.tag()).String()
	tag, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Index(tag, remote.WithTransport(transport), remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": image})
	if err := path.AppendIndex(pulled, named); err != nil {
		t.Fatal(err)
	}
	l.status.Store(503)
	l.open(t, dir)
	l.wantList(t, l.clock.Now(), l.bundle)
	if _, err := l.content.Manifest(t.Context(), l.ref.WithDigest(l.bundle), 0); err != nil {
		t.Error(err)
	}
	if blob, err := l.content.Blob(t.Context(), l.ref, webhook.DigestOf([]byte("bundle")), 0); err != nil || string(blob) != "bundle" {
		t.Errorf("got %s, %v", blob, err)
	}
	l.status.Store(404)
	l.wantFailure(t, webhook.NotFound)
	l.status.Store(503)
	l.wantList(t, l.clock.Now(), l.bundle)
	l.open(t, dir)
	l.wantList(t, l.clock.Now(), l.bundle)
}

// TestReferrersAreAList: what stood at the tag when it was read as an image is no list in an outage.
func TestReferrersAreAList(t *testing.T) {
	l := newLists(t, false)
	other, err := l.registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/base", User: "2000"})
	if err != nil {
		t.Fatal(err)
	}
	image, err := l.registry.Manifest(t.Context(), "golden/base", other)
	if err != nil {
		t.Fatal(err)
	}
	l.push(t, l.tag(), image)
	if _, err := l.content.Manifest(t.Context(), l.ref.WithTag(l.tag()), 0); err != nil {
		t.Fatal(err)
	}
	l.wantFailure(t, webhook.Invalid)
	l.status.Store(503)
	l.wantFailure(t, webhook.Invalid)
}

// TestReferrersOnce: who wants the same list at the same time shares one request, and the next one asks again.
func TestReferrersOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		answer := make(chan struct{})
		fetch := fetcher(func(ref webhook.Reference) webhook.Manifest {
			calls.Add(1)
			<-answer
			return webhook.Manifest{Digest: webhook.DigestOf(nil), MediaType: ociIndex}
		})
		store := evidence.NewStore(evidence.Limits{Bytes: 1 << 20}, nil)
		content := evidence.NewContent(store, evidence.Config{TagTTL: time.Hour, Timeout: time.Minute, Now: time.Now}, fetch)
		ref := webhook.Reference{Registry: "r.io", Repository: "a", Digest: "sha256:" + strings.Repeat("a", 64)}
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() {
			if _, err := content.Referrers(ctx, ref, 0); !errors.Is(err, context.Canceled) {
				t.Errorf("who went away got %v", err)
			}
		})
		synctest.Wait()
		for range 100 {
			group.Go(func() {
				if _, err := content.Referrers(t.Context(), ref.WithTag("v1").WithDigest(ref.Digest), 0); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(answer)
		group.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("%d requests at once, want one", n)
		}
		if _, err := content.Referrers(t.Context(), ref, 0); err != nil || calls.Load() != 2 {
			t.Errorf("%d requests in all, %v; want two", calls.Load(), err)
		}
	})
}

// TestDiskIsNotLeft: whatever a manifest names, nothing but blobs is read, and none outside is removed.
func TestDiskIsNotLeft(t *testing.T) {
	l, dir := newLists(t, false), t.TempDir()
	l.open(t, dir)
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	body := `{"schemaVersion":2,"mediaType":"` + ociManifest + `",` +
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + webhook.DigestOf([]byte("{}")) + `","size":2},` +
		`"layers":[{"mediaType":"a.manifest","digest":"sha256:../../victim","size":4}]}`
	l.push(t, "v9", registrytest.Manifest{MediaType: ociManifest, Body: []byte(body)})
	for _, status := range []int32{0, 503} { // once from the registry, and once from the directory
		l.status.Store(status)
		l.open(t, dir)
		if _, err := l.content.Manifest(t.Context(), l.ref.WithTag("v9"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "keep" {
		t.Errorf("got %s, %v", got, err)
	}
}
