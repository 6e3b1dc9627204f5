package evidence

import (
	"context"
	"errors"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Config is how one configuration uses a Store.
type Config struct {
	TagTTL       time.Duration // how long a tag is taken to name the same digest
	StaleIfError time.Duration // how much longer while its registry fails
	VerifiedTTL  time.Duration // how long a proof is used before the signature is looked for again
	Timeout      time.Duration // of work that callers share
	Now          func() time.Time

	// Scope names how a registry is seen: by which credentials, trusting which authority. What a registry claimed is
	// not taken over into another scope. nil is one scope for all.
	Scope func(registry string) string
	// Private keeps everything off the disk, and reads nothing from it: contents on disk are shared by all scopes.
	Private bool
	// Trust names whom signatures are believed: a hash of the signers' keys and roots, which may change while the
	// configuration does not. A proof holds for one trust alone. nil is one trust for ever.
	Trust func() string
	// Observe counts look-ups: the cache and hit, miss or stale. nil counts nothing.
	Observe func(cache, result string)
}

func (c Config) withDefaults() Config {
	if c.Observe == nil {
		c.Observe = func(string, string) {}
	}
	if c.Trust == nil {
		c.Trust = func() string { return "" }
	}
	if c.Scope == nil {
		c.Scope = func(string) string { return "" }
	}
	return c
}

// lookup is memory.get with a count.
func lookup[V any](c *Config, m *memory[V], cache, key string) (V, bool) {
	value, hit := m.get(key)
	if hit {
		c.Observe(cache, "hit")
	} else {
		c.Observe(cache, "miss")
	}
	return value, hit
}

// A Fetcher reads manifests and blobs, and checks each against its digest. Referrers gives an index of what refers to a
// digest.
type Fetcher interface {
	Manifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error)
	Blob(ctx context.Context, ref webhook.Reference, digest string, maxBytes int64) ([]byte, error)
	Referrers(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error)
}

// Content remembers bytes by digest, and for an outage what tags named last. It keeps each repository by itself: that a
// registry has something in one repository does not mean that it may be had from another.
type Content struct {
	store   *Store
	config  Config
	fetch   Fetcher
	flights flights
}

// NewContent reads through fetch what the store does not have.
func NewContent(store *Store, config Config, fetch Fetcher) *Content {
	config = config.withDefaults()
	return &Content{store: store, config: config, fetch: fetch, flights: flights{timeout: config.Timeout}}
}

// key is under which name something of a registry is remembered.
func (c *Config) key(ref webhook.Reference) string { return c.Scope(ref.Registry) + " " + ref.String() }

// Manifest gives a manifest from the store when the reference has a digest. A tag is asked for, since what it names may
// have changed; only while its registry fails the last answer is given, marked as stale.
func (c *Content) Manifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error) {
	if ref.Digest == "" {
		return c.asked(ctx, ref, maxBytes, func(ctx context.Context) (webhook.Manifest, error) {
			return c.fetchManifest(ctx, ref, maxBytes)
		})
	}
	ref.Tag = "" // the digest alone decides
	if m, known := c.manifest(ref, maxBytes); known {
		return m, nil
	}
	return c.fetchManifest(ctx, ref, maxBytes)
}

// manifest gives what memory or disk have under a digest.
func (c *Content) manifest(ref webhook.Reference, maxBytes int64) (webhook.Manifest, bool) {
	key := c.config.key(ref)
	if m, hit := lookup(&c.config, c.store.manifests, "manifest", key); hit && int64(len(m.Body)) <= limit(maxBytes) {
		return m, true
	}
	disk := c.store.diskFor(&c.config)
	if disk == nil {
		return webhook.Manifest{}, false
	}
	mediaType, body, ok := disk.read(ref, ref.Digest, limit(maxBytes))
	if !ok {
		return webhook.Manifest{}, false
	}
	c.config.Observe("disk", "hit")
	m := webhook.Manifest{Digest: ref.Digest, MediaType: mediaType, Body: body}
	c.store.manifests.add(key, m, int64(len(m.Body)+len(m.MediaType)))
	return m, true
}

// asked gives what fetch has for a tag, and the last answer while its registry fails.
func (c *Content) asked(
	ctx context.Context, ref webhook.Reference, maxBytes int64, fetch func(context.Context) (webhook.Manifest, error),
) (webhook.Manifest, error) {
	last, known := c.store.last(&c.config, ref)
	if known {
		var cancel context.CancelFunc
		ctx, cancel = withLastAnswer(ctx)
		defer cancel()
	}
	m, err := fetch(ctx)
	switch {
	case err == nil:
		return m, nil
	case missing(err):
		c.store.forget(&c.config, ref)
	case known && outage(err):
		if m, ok := c.manifest(ref.WithTag("").WithDigest(last.digest), maxBytes); ok {
			c.config.Observe("tag", "stale")
			m.Stale = last.read
			return m, nil
		}
	}
	return webhook.Manifest{}, err
}

// Known is the same content without its source: it gives what is there and fails like an outage for everything else.
func (c *Content) Known() *Content {
	config := c.config
	// Here a tag counts for as long as a proof does, and for nothing longer.
	config.TagTTL, config.StaleIfError = 0, config.VerifiedTTL
	return NewContent(c.store, config, nowhere{})
}

// nowhere is a source that never answers.
type nowhere struct{}

func (nowhere) Manifest(_ context.Context, ref webhook.Reference, _ int64) (webhook.Manifest, error) {
	return webhook.Manifest{}, &webhook.ReadError{Failure: webhook.Unavailable, Registry: ref.Registry, Reason: "was not asked"}
}

func (n nowhere) Referrers(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error) {
	return n.Manifest(ctx, ref, maxBytes)
}

func (nowhere) Blob(_ context.Context, ref webhook.Reference, _ string, _ int64) ([]byte, error) {
	return nil, &webhook.ReadError{Failure: webhook.Unavailable, Registry: ref.Registry, Reason: "was not asked"}
}

// fetchManifest reads a manifest and remembers it, and what its tag named.
func (c *Content) fetchManifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error) {
	key := c.config.key(ref)
	return do(ctx, &c.flights, "manifest "+key, func(ctx context.Context) (webhook.Manifest, error) {
		if m, landed := c.store.manifests.get(key); landed && ref.Digest != "" && int64(len(m.Body)) <= limit(maxBytes) {
			return m, nil
		}
		m, err := c.fetch.Manifest(ctx, ref, maxBytes)
		if err != nil {
			return m, err
		}
		c.remember(ref, m)
		return m, nil
	})
}

// remember keeps a manifest, and what its tag named.
func (c *Content) remember(ref webhook.Reference, m webhook.Manifest) {
	pinned := ref.WithTag("").WithDigest(m.Digest)
	c.store.manifests.add(c.config.key(pinned), m, int64(len(m.Body)+len(m.MediaType)))
	now := c.config.Now()
	if ref.Digest == "" {
		key := c.config.key(ref)
		last, _ := c.store.tags.get(key)
		named := last.next(m.Digest, now)
		c.store.tags.add(key, named, int64(len(named.digest)+len(named.before)))
	}
	if disk := c.store.diskFor(&c.config); disk != nil {
		disk.write(pinned, m.Digest, m.MediaType, m.Body)
		disk.name(ref, m, c.config.Scope(ref.Registry), now)
	}
}

// Blob gives a blob from the store.
func (c *Content) Blob(ctx context.Context, ref webhook.Reference, digest string, maxBytes int64) ([]byte, error) {
	key := c.config.key(ref.WithTag("").WithDigest(digest))
	if blob, hit := lookup(&c.config, c.store.blobs, "blob", key); hit && int64(len(blob)) <= limit(maxBytes) {
		return blob, nil
	}
	disk := c.store.diskFor(&c.config)
	if disk != nil {
		if _, blob, ok := disk.read(ref, digest, limit(maxBytes)); ok {
			c.config.Observe("disk", "hit")
			c.store.blobs.add(key, blob, int64(len(blob)))
			return blob, nil
		}
	}
	return do(ctx, &c.flights, "blob "+key, func(ctx context.Context) ([]byte, error) {
		if blob, landed := c.store.blobs.get(key); landed && int64(len(blob)) <= limit(maxBytes) {
			return blob, nil
		}
		blob, err := c.fetch.Blob(ctx, ref, digest, maxBytes)
		if err == nil {
			c.store.blobs.add(key, blob, int64(len(blob)))
			if disk != nil {
				disk.write(ref, digest, "", blob)
			}
		}
		return blob, err
	})
}

// limit: 0 leaves the limit to the fetcher, which applied it when the content came.
func limit(maxBytes int64) int64 {
	if maxBytes <= 0 {
		return 1 << 62
	}
	return maxBytes
}

// diskFor gives the disk to those who may use it.
func (s *Store) diskFor(c *Config) *Disk {
	if c.Private {
		return nil
	}
	return s.disk
}

// last gives what a tag named when it was read last, if that may still be used in an outage.
func (s *Store) last(c *Config, ref webhook.Reference) (tag, bool) {
	now := c.Now()
	last, known := s.tags.get(c.key(ref))
	if disk := s.diskFor(c); !known && disk != nil {
		last, known = disk.last(ref, c.Scope(ref.Registry), now)
	}
	return last, known && now.Sub(last.read) < c.TagTTL+c.StaleIfError
}

// forget drops what a tag named: its registry says that there is no such tag.
func (s *Store) forget(c *Config, ref webhook.Reference) {
	s.tags.remove(c.key(ref))
	if disk := s.diskFor(c); disk != nil {
		disk.forget(ref)
	}
}

// patience is how long a registry is waited for when its last answer is at hand: a pod of a known image starts within it
// though the registry is slow, or asks again and again to be left alone for a moment. The request goes on behind, so what
// it brings is there for the next.
const patience = time.Second

// withLastAnswer is a context for asking when there is a last answer to fall back on: it ends after patience, or when half of
// what is left of ctx is over, as there must be time to use that answer.
func withLastAnswer(ctx context.Context) (context.Context, context.CancelFunc) {
	wait := patience
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	return context.WithTimeout(ctx, wait)
}

// outage says that a registry did not answer. That it refused or had nothing is an answer.
func outage(err error) bool {
	var read *webhook.ReadError
	if errors.As(err, &read) {
		return read.Failure == webhook.Unavailable
	}
	return errors.Is(err, context.DeadlineExceeded)
}

func missing(err error) bool {
	var read *webhook.ReadError
	return errors.As(err, &read) && read.Failure == webhook.NotFound
}
