package evidence_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/hallmark-admission/hallmark/webhook/evidence"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// onDisk restarts a world's memory over a directory.
func (w *world) onDisk(t *testing.T, dir string) {
	t.Helper()
	disk, err := evidence.OpenDisk(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if w.store != nil {
		if err := w.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w.store = evidence.NewStore(evidence.Limits{Bytes: 1 << 20, Entries: 100}, disk)
	w.wire(t)
}

// TestRestart: what was proved needs one request a tag after a restart, and none while the registry is down.
func TestRestart(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	w.onDisk(t, dir)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantRequests(t, 4, "cold")
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	w.store = nil
	w.onDisk(t, dir)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantRequests(t, 1, "after a restart")
	w.onDisk(t, dir)
	w.status.Store(503)
	if err := w.admit(t.Context()); err != nil {
		t.Fatalf("after a restart in an outage: %v", err)
	}
	content, err := w.read.ReadImage(t.Context(), w.ref, 0)
	if err != nil || content.Stale.IsZero() {
		t.Errorf("the answer is not marked: %+v, %v", content, err)
	}
	t.Run("is an OCI layout", func(t *testing.T) {
		index, err := layout.ImageIndexFromPath(dir)
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]string{}
		for _, m := range manifest.Manifests {
			names[m.Annotations["org.opencontainers.image.ref.name"]] = m.Digest.String()
		}
		if names[w.ref.String()] != w.digest {
			t.Errorf("index names %v", names)
		}
	})
}

// TestDiskIsNotBelieved: a torn or forged blob is never used, and fetched again.
func TestDiskIsNotBelieved(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	w.onDisk(t, dir)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil || len(blobs) != 4 {
		t.Fatalf("blobs %v, %v", blobs, err)
	}
	for _, blob := range blobs {
		text, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blob, []byte(strings.Replace(string(text), "1000", "0", 1)+" "), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.onDisk(t, dir)
	w.registry.Reset()
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantRequests(t, 4, "with forged blobs")
	w.onDisk(t, dir)
	w.status.Store(503)
	if err := w.admit(t.Context()); err != nil {
		t.Errorf("after they were fetched again: %v", err)
	}
}

// TestDiskOfAnotherTool: an admin's layout serves with no registry at all, and an entry that names no image in full is
// passed over.
func TestDiskOfAnotherTool(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	w.onDisk(t, dir)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	w.store = nil
	path := filepath.Join(dir, "index.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var index map[string]any
	if err := json.Unmarshal(text, &index); err != nil {
		t.Fatal(err)
	}
	manifests := index["manifests"].([]any)
	for _, m := range manifests {
		annotations := m.(map[string]any)["annotations"].(map[string]any)
		delete(annotations, "dev.hallmark.read")
		delete(annotations, "dev.hallmark.scope")
	}
	index["manifests"] = append(manifests, map[string]any{"mediaType": "x", "digest": "sha256:1", "annotations": map[string]any{}})
	if text, err = json.Marshal(index); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	w.status.Store(503)
	w.clock.add(365 * 24 * time.Hour)
	w.onDisk(t, dir)
	if err := w.admit(t.Context()); err != nil {
		t.Errorf("without a registry: %v", err)
	}
}

// TestDiskOfCrane: a layout as "crane pull --format=oci --annotate-ref" writes it, by the library that crane is made of.
func TestDiskOfCrane(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.registry.CAPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{w.ref.String(), w.ref.Name() + ":" + registrytest.SignatureTag(w.digest)} {
		ref, err := name.ParseReference(image)
		if err != nil {
			t.Fatal(err)
		}
		pulled, err := remote.Image(ref, remote.WithTransport(transport), remote.WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": image})
		if err := path.AppendImage(pulled, named); err != nil {
			t.Fatal(err)
		}
	}
	// A directory that is too small makes room, but not of this.
	disk, err := evidence.OpenDisk(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	w.store = evidence.NewStore(evidence.Limits{Bytes: 1 << 20}, disk)
	w.wire(t)
	if _, err := w.registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/base", Tag: "v9", User: "1000"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.read.ReadImage(t.Context(), w.ref.WithTag("v9"), 0); err != nil {
		t.Fatal(err)
	}
	w.status.Store(503)
	w.onDisk(t, dir)
	if err := w.admit(t.Context()); err != nil {
		t.Errorf("without a registry: %v", err)
	}
}

// TestDiskErrors name the place and the remedy.
func TestDiskErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.OpenDisk(dir, 1<<20); err == nil || !strings.Contains(err.Error(), "index.json") || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("got %v", err)
	}
	if _, err := evidence.OpenDisk("/dev/null/x", 1<<20); err == nil || !strings.Contains(err.Error(), "open cache directory") {
		t.Errorf("got %v", err)
	}
}

// TestDiskIsBounded: the oldest blobs go when there are too many bytes.
func TestDiskIsBounded(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	disk, err := evidence.OpenDisk(dir, 2<<10)
	if err != nil {
		t.Fatal(err)
	}
	w.store = evidence.NewStore(evidence.Limits{Bytes: 1 << 20}, disk)
	w.wire(t)
	for range 3 {
		if err := w.admit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	var size int64
	files, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		info, err := file.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 2<<10 {
		t.Errorf("%d bytes on disk", size)
	}
}

// TestPrivate: what may not be shared neither goes to the disk nor comes from it, in an outage as little as otherwise.
func TestPrivate(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	w.onDisk(t, dir)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil || len(before) != 4 {
		t.Fatalf("blobs %v, %v", before, err)
	}
	w.config.Private = true
	w.config.Scope = func(string) string { return "of somebody" }
	w.onDisk(t, dir)
	w.registry.Reset()
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantRequests(t, 4, "with a full disk")
	for _, blob := range before {
		if err := os.Remove(blob); err != nil {
			t.Fatal(err)
		}
	}
	w.onDisk(t, dir)
	if err := w.admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*")); err != nil || len(after) > 0 {
		t.Errorf("on disk: %v, %v", after, err)
	}
	w.onDisk(t, dir)
	w.status.Store(503)
	if err := w.admit(t.Context()); err == nil {
		t.Error("admitted from nowhere")
	}
}
