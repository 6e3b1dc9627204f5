package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

	forgotten map[string]string // reference → when it was read; until index.json is without it

	stop    chan struct{}
	stopped chan struct{}
}

// OpenDisk opens a directory, making it if need be, that holds at most max bytes of blobs. Close it.
func OpenDisk(dir string, max int64) (*Disk, error) {
	d := &Disk{
		dir: dir, max: max, entries: map[string]descriptor{}, owned: map[string]map[string]string{},
		forgotten: map[string]string{}, stop: make(chan struct{}), stopped: make(chan struct{}),
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
	if webhook.DigestOf(body) != digest {
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

// own adds a manifest and what it names. Nesting ends at an index of manifests of configs. A name that is no digest
// could lead out of the directory.
func (d *Disk) own(owned map[string]string, entry descriptor, depth int) {
	if _, seen := owned[entry.Digest]; seen || depth > 2 || len(owned) > maxEntries || !isDigest(entry.Digest) {
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
