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
	"syscall"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

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

// count counts the entries of each repository anew.
func (d *Disk) count() {
	d.names = map[string]int{}
	for reference := range d.entries {
		if ref, err := webhook.ParseReference(reference); err == nil {
			d.names[ref.Name()]++
		}
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
		return tag{digest: entry.Digest, read: now}, true
	}
	read, err := time.Parse(time.RFC3339, written)
	return tag{digest: entry.Digest, read: read}, err == nil && entry.Annotations[readScope] == scope
}

// forget drops what a registry once said that a tag names. What an admin has put there stays.
func (d *Disk) forget(ref webhook.Reference) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if entry, ok := d.entries[ref.String()]; ok && entry.Annotations[readTime] != "" {
		delete(d.entries, ref.String())
		d.forgotten[ref.String()] = entry.Annotations[readTime]
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
		if err != nil || !isDigest(entry.Digest) {
			continue // an entry of another tool's, which names no image in full
		}
		entries[ref.String()] = entry
	}
	return entries, nil
}

func isDigest(s string) bool {
	_, err := webhook.ParseReference("x/y@" + s)
	return err == nil
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
		if read := other.Annotations[readTime]; read != "" && read <= d.forgotten[reference] {
			continue
		}
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
	text, err := json.Marshal(layoutIndex{SchemaVersion: 2, MediaType: indexType, Manifests: list})
	if err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(d.dir, "index.json"), text); err != nil {
		return err
	}
	d.dirty = false
	clear(d.forgotten)
	return nil
}
