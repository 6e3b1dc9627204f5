package evidence

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// A Disk keeps contents and tags in a directory that is an OCI image layout (OCI image specification, image-layout):
// blobs by digest, and index.json, which names each manifest by its full reference in the annotation
// org.opencontainers.image.ref.name. Whatever writes such a layout can fill it, and whatever reads one can look at it.
//
// Nothing in it is believed: a blob is checked against its digest whenever it is read, and what a tag named counts only
// as the last answer of a registry that fails. Files appear whole or not at all, so a crash leaves at worst a file that
// nobody names. Several processes may use one directory.
type Disk struct {
	dir string
	max int64

	mutex   sync.Mutex
	entries map[string]descriptor        // by reference
	names   map[string]int               // how many entries a repository has
	owned   map[string]map[string]string // repository with entries → digest → media type, filled at first use
	size    int64
	dirty   bool

	stop    chan struct{}
	stopped chan struct{}
}

// descriptor is an entry of index.json.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Annotations of an entry. The last two are Hallmark's own; an entry without them was put there by an admin.
const (
	refName   = "org.opencontainers.image.ref.name"
	readTime  = "dev.hallmark.read"  // when the registry said so, RFC 3339
	readScope = "dev.hallmark.scope" // how the registry was seen
)

type layoutIndex struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// maxEntries bounds index.json; maxIndexBytes how much of one is read.
const (
	maxEntries    = 20_000
	maxIndexBytes = 32 << 20
)

// OpenDisk opens a directory, making it if need be, that holds at most max bytes of blobs. Close it.
func OpenDisk(dir string, max int64) (*Disk, error) {
	d := &Disk{
		dir: dir, max: max, entries: map[string]descriptor{}, owned: map[string]map[string]string{},
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := os.MkdirAll(d.blobs(), 0o700); err != nil {
		return nil, fmt.Errorf("open cache directory: %w", err)
	}
	layout := filepath.Join(dir, "oci-layout")
	if _, err := os.Stat(layout); errors.Is(err, fs.ErrNotExist) {
		if err := writeWhole(layout, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
			return nil, fmt.Errorf("open cache directory: %w", err)
		}
	}
	entries, err := d.readIndex()
	if err != nil {
		return nil, fmt.Errorf("open cache directory: %w; repair or remove the file", err)
	}
	d.entries = entries
	d.count()
	if err := d.measure(); err != nil {
		return nil, fmt.Errorf("open cache directory: %w", err)
	}
	go d.flushNowAndThen()
	return d, nil
}

// Close writes what is not written yet.
func (d *Disk) Close() error {
	close(d.stop)
	<-d.stopped
	return d.flush()
}

func (d *Disk) blobs() string { return filepath.Join(d.dir, "blobs", "sha256") }

func (d *Disk) path(digest string) string {
	return filepath.Join(d.blobs(), strings.TrimPrefix(digest, "sha256:"))
}

// read gives content of a repository, if it is there, whole and not larger than limit.
func (d *Disk) read(ref webhook.Reference, digest string, limit int64) (mediaType string, body []byte, ok bool) {
	d.mutex.Lock()
	mediaType, ok = d.repository(ref.Name())[digest]
	d.mutex.Unlock()
	if !ok {
		return "", nil, false
	}
	body, ok = d.readBlob(digest, limit)
	return mediaType, body, ok
}

func (d *Disk) readBlob(digest string, limit int64) ([]byte, bool) {
	path := d.path(digest)
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > limit {
		return nil, false
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, false
	}
	if digestOf(body) != digest {
		_ = os.Remove(path) // a torn or a forged file: what is gone is fetched again
		return nil, false
	}
	if now := time.Now(); now.Sub(info.ModTime()) > time.Hour {
		_ = os.Chtimes(path, now, now) // used: it is not the first to go
	}
	return body, true
}

// repository gives what is known to belong to a repository: what its entries name, and what that names in turn. nil for
// a repository without entries. The caller holds the mutex.
func (d *Disk) repository(name string) map[string]string {
	if d.names[name] == 0 {
		return nil
	}
	if owned := d.owned[name]; owned != nil {
		return owned
	}
	owned := map[string]string{}
	for reference, entry := range d.entries {
		if parsed, err := webhook.ParseReference(reference); err == nil && parsed.Name() == name {
			d.own(owned, entry, 0)
		}
	}
	d.owned[name] = owned
	return owned
}

// count counts the entries of each repository anew.
func (d *Disk) count() {
	d.names = map[string]int{}
	for reference := range d.entries {
		if ref, err := webhook.ParseReference(reference); err == nil {
			d.names[ref.Name()]++
		}
	}
}

// own adds a manifest and what it names. Nesting ends at an index of manifests of configs.
func (d *Disk) own(owned map[string]string, entry descriptor, depth int) {
	if _, seen := owned[entry.Digest]; seen || depth > 2 || len(owned) > maxEntries {
		return
	}
	owned[entry.Digest] = entry.MediaType
	if !strings.Contains(entry.MediaType, "manifest") && !strings.Contains(entry.MediaType, "index") {
		return
	}
	body, ok := d.readBlob(entry.Digest, 4<<20)
	if !ok {
		return
	}
	var parts struct {
		Config            descriptor
		Layers, Manifests []descriptor
	}
	if json.Unmarshal(body, &parts) != nil {
		return
	}
	for _, part := range slices.Concat([]descriptor{parts.Config}, parts.Layers, parts.Manifests) {
		d.own(owned, part, depth+1)
	}
}

// write keeps content of a repository. Failing to keep something is no failure: it is fetched again.
func (d *Disk) write(ref webhook.Reference, digest, mediaType string, body []byte) {
	_, whole := d.readBlob(digest, int64(len(body)))
	if !whole && writeWhole(d.path(digest), body) != nil {
		return
	}
	d.mutex.Lock()
	if owned := d.repository(ref.Name()); owned != nil {
		owned[digest] = mediaType
	}
	if !whole {
		d.size += int64(len(body))
	}
	over := d.size > d.max
	d.mutex.Unlock()
	if over {
		d.collect()
	}
}

// name has a reference stand for a manifest. read is when a registry said so, under which scope.
func (d *Disk) name(ref webhook.Reference, m webhook.Manifest, scope string, read time.Time) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	reference := ref.String()
	if _, known := d.entries[reference]; !known {
		d.names[ref.Name()]++
	}
	if owned := d.repository(ref.Name()); owned != nil {
		owned[m.Digest] = m.MediaType
	}
	d.entries[reference] = descriptor{
		MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Body)), Annotations: map[string]string{
			refName: ref.String(), readTime: read.UTC().Format(time.RFC3339), readScope: scope,
		},
	}
	d.dirty = true
}

// last gives what a tag named last, for a scope. What an admin has put there holds for every scope, as of now.
func (d *Disk) last(ref webhook.Reference, scope string, now time.Time) (tag, bool) {
	d.mutex.Lock()
	entry, ok := d.entries[ref.String()]
	d.mutex.Unlock()
	if !ok {
		return tag{}, false
	}
	written := entry.Annotations[readTime]
	if written == "" {
		return tag{entry.Digest, now}, true
	}
	read, err := time.Parse(time.RFC3339, written)
	return tag{entry.Digest, read}, err == nil && entry.Annotations[readScope] == scope
}

// forget drops what a tag named.
func (d *Disk) forget(ref webhook.Reference) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if _, ok := d.entries[ref.String()]; ok {
		delete(d.entries, ref.String())
		d.names[ref.Name()]--
		d.dirty = true
	}
}

// readIndex reads index.json; without one there are no entries.
func (d *Disk) readIndex() (map[string]descriptor, error) {
	path := filepath.Join(d.dir, "index.json")
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]descriptor{}, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxIndexBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxIndexBytes)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var index layoutIndex
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	entries := make(map[string]descriptor, len(index.Manifests))
	for _, entry := range index.Manifests {
		ref, err := webhook.ParseReference(entry.Annotations[refName])
		if _, digestErr := webhook.ParseReference("x/y@" + entry.Digest); err != nil || digestErr != nil {
			continue // an entry of another tool's, which names no image in full
		}
		entries[ref.String()] = entry
	}
	return entries, nil
}

// flushNowAndThen writes index.json a moment after it changed.
func (d *Disk) flushNowAndThen() {
	defer close(d.stopped)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-ticker.C:
			_ = d.flush() // it is tried again
		}
	}
}

// flush merges the entries with those that other processes have written, the newer of two wins, and writes them.
func (d *Disk) flush() error {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if !d.dirty {
		return nil
	}
	lock, err := os.OpenFile(filepath.Join(d.dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock cache directory: %w", err)
	}
	others, err := d.readIndex()
	if err != nil {
		return err
	}
	for reference, other := range others {
		if mine, ok := d.entries[reference]; !ok || mine.Annotations[readTime] < other.Annotations[readTime] {
			d.entries[reference] = other
			if ref, err := webhook.ParseReference(reference); err == nil {
				delete(d.owned, ref.Name())
			}
		}
	}
	list := slices.Collect(maps.Values(d.entries))
	slices.SortFunc(list, func(a, b descriptor) int {
		return cmp.Or(-cmp.Compare(a.Annotations[readTime], b.Annotations[readTime]), cmp.Compare(a.Annotations[refName], b.Annotations[refName]))
	})
	for _, dropped := range list[min(len(list), maxEntries):] {
		delete(d.entries, dropped.Annotations[refName])
	}
	list = list[:min(len(list), maxEntries)]
	d.count()
	text, err := json.Marshal(layoutIndex{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json", Manifests: list})
	if err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(d.dir, "index.json"), text); err != nil {
		return err
	}
	d.dirty = false
	return nil
}

// measure adds up the blobs, and removes what a crash left half written.
func (d *Disk) measure() error {
	files, err := os.ReadDir(d.blobs())
	if err != nil {
		return err
	}
	for _, file := range files {
		info, err := file.Info()
		if err != nil {
			continue
		}
		if strings.HasSuffix(file.Name(), temporary) && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(d.blobs(), file.Name()))
			continue
		}
		d.size += info.Size()
	}
	return nil
}

// collect removes the blobs that were not used for longest, until a tenth is free. What an admin has put there stays.
func (d *Disk) collect() {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	brought := map[string]string{}
	for _, entry := range d.entries {
		if entry.Annotations[readTime] == "" {
			d.own(brought, entry, 0)
		}
	}
	files, err := os.ReadDir(d.blobs())
	if err != nil {
		return
	}
	infos := make([]fs.FileInfo, 0, len(files))
	d.size = 0
	for _, file := range files {
		if info, err := file.Info(); err == nil {
			infos = append(infos, info)
			d.size += info.Size()
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range infos {
		if d.size <= d.max*9/10 {
			return
		}
		if _, stays := brought["sha256:"+info.Name()]; stays {
			continue
		}
		if os.Remove(filepath.Join(d.blobs(), info.Name())) == nil {
			d.size -= info.Size()
		}
	}
}

// temporary ends the names of files that are being written.
const temporary = ".tmp"

// writeWhole writes a file so that it is there whole or not at all.
func writeWhole(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+temporary)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}
