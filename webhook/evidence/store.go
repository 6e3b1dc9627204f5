package evidence

import (
	"sync"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Limits bound a Store.
type Limits struct {
	Bytes   int64 // of all contents and facts together
	Entries int   // of each memory; 0 for 10,000
}

// A Store is what is remembered. It outlives the configurations under which it is filled: bytes stay what their digest
// says, and everything that depends on whom one trusts or how one is known to a registry is kept under a name of that.
type Store struct {
	manifests *memory[webhook.Manifest]
	blobs     *memory[[]byte]
	tags      *memory[tag]
	facts     *memory[*webhook.Content]
	proofs    *memory[proof] // of signatures
	attested  *memory[proof] // of attestations, which may be large
	disk      *Disk          // nil for none

	background sync.WaitGroup // refreshes behind requests
}

// A tag is a claim of a registry.
type tag struct {
	digest string
	read   time.Time
	before string    // what it named until moved, "" for nothing else
	moved  time.Time // when the present digest was seen first
}

// next is what a tag is after it was read again.
func (t tag) next(digest string, now time.Time) tag {
	switch t.digest {
	case digest, "":
		return tag{digest: digest, read: now, before: t.before, moved: t.moved}
	}
	return tag{digest: digest, read: now, before: t.digest, moved: now}
}

// content is what a tag names. What it named before counts for a tagTTL more: another replica may have pinned a pod to it
// that has not heard yet that the tag has moved.
func (t tag) content(c *Config) *webhook.Content {
	content := &webhook.Content{Digest: t.digest}
	if t.before != "" && c.Now().Sub(t.moved) < c.TagTTL {
		content.Before = t.before
	}
	return content
}

// A proof is what a verifier found, and until when it counts.
type proof struct {
	found any // webhook.Signatures or webhook.Attestations
	until time.Time
}

// NewStore makes a store that knows what disk does; nil is memory alone.
func NewStore(limits Limits, disk *Disk) *Store {
	if limits.Entries <= 0 {
		limits.Entries = 10_000
	}
	// Attestations may have megabytes each, and cost as much again every time they are not remembered. All the rest is a
	// few kilobytes an image.
	rest := limits.Bytes / 5
	return &Store{
		disk:      disk,
		manifests: newMemory[webhook.Manifest](limits.Entries, rest/4),
		blobs:     newMemory[[]byte](limits.Entries, rest/4),
		facts:     newMemory[*webhook.Content](limits.Entries, rest/4),
		tags:      newMemory[tag](limits.Entries, rest/8),
		proofs:    newMemory[proof](limits.Entries, rest/8),
		attested:  newMemory[proof](limits.Entries, limits.Bytes-rest),
	}
}

// Wait waits for the work behind requests, which has deadlines of its own.
func (s *Store) Wait() { s.background.Wait() }

// Close waits, and closes the disk.
func (s *Store) Close() error {
	s.Wait()
	if s.disk == nil {
		return nil
	}
	return s.disk.Close()
}

// Bytes gives the size of each memory, for metrics.
func (s *Store) Bytes() map[string]int64 {
	return map[string]int64{
		"manifest": s.manifests.size(), "blob": s.blobs.size(), "tag": s.tags.size(), "facts": s.facts.size(),
		"proof": s.proofs.size(), "attestation": s.attested.size(),
	}
}
