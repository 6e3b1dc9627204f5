package evidence

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Config bounds what is remembered.
type Config struct {
	TagTTL      time.Duration // how long a tag is taken to name the same digest
	VerifiedTTL time.Duration // how long a proof is used before the signature is read again
	MaxBytes    int64         // of all contents together
	MaxEntries  int           // of each memory; 0 for 10,000
	Timeout     time.Duration // of work that callers share
	Now         func() time.Time
	Observe     func(cache, result string) // counts hits and misses; may be nil
}

func (c Config) withDefaults() Config {
	if c.MaxEntries <= 0 {
		c.MaxEntries = 10_000
	}
	if c.Observe == nil {
		c.Observe = func(string, string) {}
	}
	return c
}

// lookup is memory.get with a count.
func lookup[V any](c *Config, m *memory[V], cache, key string) (V, bool) {
	value, hit := m.get(key, c.Now())
	if hit {
		c.Observe(cache, "hit")
	} else {
		c.Observe(cache, "miss")
	}
	return value, hit
}

// A Fetcher reads manifests and blobs, and checks each against its digest.
type Fetcher interface {
	Manifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error)
	Blob(ctx context.Context, ref webhook.Reference, digest string, maxBytes int64) ([]byte, error)
}

// Content remembers bytes by digest. It is kept for each repository by itself: that a registry has something in one
// repository does not mean that it may be had from another.
type Content struct {
	config    Config
	fetch     Fetcher
	manifests *memory[webhook.Manifest]
	blobs     *memory[[]byte]
	flights   flights
}

// NewContent wraps a fetcher.
func NewContent(config Config, fetch Fetcher) *Content {
	config = config.withDefaults()
	return &Content{
		config: config, fetch: fetch, flights: flights{timeout: config.Timeout},
		manifests: newMemory[webhook.Manifest](config.MaxEntries, config.MaxBytes/2),
		blobs:     newMemory[[]byte](config.MaxEntries, config.MaxBytes/2),
	}
}

// Manifest gives a manifest from memory when the reference has a digest. A tag is always asked for, since what it names
// may have changed.
func (c *Content) Manifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error) {
	if ref.Digest != "" {
		ref.Tag = "" // the digest alone decides
		if m, hit := lookup(&c.config, c.manifests, "manifest", ref.String()); hit && int64(len(m.Body)) <= limit(maxBytes) {
			return m, nil
		}
	}
	return do(ctx, &c.flights, "manifest "+ref.String(), func(ctx context.Context) (webhook.Manifest, error) {
		m, err := c.fetch.Manifest(ctx, ref, maxBytes)
		if err == nil {
			key := ref.Name() + "@" + m.Digest
			c.manifests.add(key, entry[webhook.Manifest]{value: m, bytes: int64(len(m.Body) + len(m.MediaType))})
		}
		return m, err
	})
}

// Blob gives a blob from memory.
func (c *Content) Blob(ctx context.Context, ref webhook.Reference, digest string, maxBytes int64) ([]byte, error) {
	key := ref.Name() + "@" + digest
	if blob, hit := lookup(&c.config, c.blobs, "blob", key); hit && int64(len(blob)) <= limit(maxBytes) {
		return blob, nil
	}
	return do(ctx, &c.flights, "blob "+key, func(ctx context.Context) ([]byte, error) {
		blob, err := c.fetch.Blob(ctx, ref, digest, maxBytes)
		if err == nil {
			c.blobs.add(key, entry[[]byte]{value: blob, bytes: int64(len(blob))})
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

// Reader remembers what tags name, and what is known of digests.
type Reader struct {
	config  Config
	read    webhook.ImageReader
	tags    *memory[string]
	facts   *memory[*webhook.Content]
	flights flights
}

// NewReader wraps a reader.
func NewReader(config Config, read webhook.ImageReader) *Reader {
	config = config.withDefaults()
	return &Reader{
		config: config, read: read, flights: flights{timeout: config.Timeout},
		tags:  newMemory[string](config.MaxEntries, config.MaxBytes),
		facts: newMemory[*webhook.Content](config.MaxEntries, config.MaxBytes),
	}
}

// ReadImage implements webhook.ImageReader.
func (r *Reader) ReadImage(ctx context.Context, ref webhook.Reference, depth webhook.Depth) (*webhook.Content, error) {
	if ref.Digest != "" {
		return r.readDigest(ctx, ref.WithTag("").WithDigest(ref.Digest), depth)
	}
	digest, hit := lookup(&r.config, r.tags, "tag", ref.String())
	if !hit {
		content, err := do(ctx, &r.flights, "tag "+ref.String(), func(ctx context.Context) (*webhook.Content, error) {
			content, err := r.read.ReadImage(ctx, ref, webhook.DigestOnly)
			if err == nil {
				r.tags.add(ref.String(), entry[string]{
					value: content.Digest, bytes: int64(len(content.Digest)), expires: r.config.Now().Add(r.config.TagTTL),
				})
			}
			return content, err
		})
		if err != nil || depth == webhook.DigestOnly {
			return content, err
		}
		digest = content.Digest
	}
	if depth == webhook.DigestOnly {
		return &webhook.Content{Digest: digest}, nil
	}
	return r.readDigest(ctx, ref.WithTag("").WithDigest(digest), depth)
}

// readDigest gives all that is known of a digest, whatever depth is asked for: it never changes.
func (r *Reader) readDigest(ctx context.Context, ref webhook.Reference, depth webhook.Depth) (*webhook.Content, error) {
	key := ref.String()
	if content, hit := lookup(&r.config, r.facts, "facts", key); hit {
		return content, nil
	}
	return do(ctx, &r.flights, "digest "+key+string(rune('0'+depth)), func(ctx context.Context) (*webhook.Content, error) {
		content, err := r.read.ReadImage(ctx, ref, depth)
		if err == nil && depth == webhook.WithConfig {
			r.facts.add(key, entry[*webhook.Content]{value: content, bytes: sizeOf(content)})
		}
		return content, err
	})
}

// sizeOf estimates the bytes that facts take.
func sizeOf(content *webhook.Content) int64 {
	size := 256
	for _, p := range content.Platforms {
		size += 512 + len(p.User) + 80*len(p.Layers)
		for k, v := range p.Labels {
			size += len(k) + len(v) + 32
		}
		for _, name := range p.EnvNames {
			size += len(name) + 16
		}
	}
	return int64(size)
}

// Verifier remembers which signers were proved to have signed a digest. It belongs to one configuration of trust: when
// that changes, make another.
type Verifier struct {
	config  Config
	verify  webhook.Verifier
	proofs  *memory[webhook.Signatures]
	flights flights
}

// NewVerifier wraps a verifier.
func NewVerifier(config Config, verify webhook.Verifier) *Verifier {
	config = config.withDefaults()
	return &Verifier{
		config: config, verify: verify, flights: flights{timeout: config.Timeout},
		proofs: newMemory[webhook.Signatures](config.MaxEntries, config.MaxBytes),
	}
}

// Verify implements webhook.Verifier. Only what satisfies all rules is remembered: what is missing now may be there the
// next time.
func (v *Verifier) Verify(ctx context.Context, ref webhook.Reference, rules []webhook.SignatureRule) (webhook.Signatures, error) {
	ref.Tag = ""
	key := proofKey(ref, rules)
	if proof, hit := lookup(&v.config, v.proofs, "proof", key); hit {
		return proof, nil
	}
	return do(ctx, &v.flights, key, func(ctx context.Context) (webhook.Signatures, error) {
		found, err := v.verify.Verify(ctx, ref, rules)
		unsatisfied := func(rule webhook.SignatureRule) bool { return !rule.Satisfied(found.Valid) }
		if err == nil && !slices.ContainsFunc(rules, unsatisfied) {
			v.proofs.add(key, entry[webhook.Signatures]{
				value: found, bytes: int64(256 * (1 + len(found.Valid))), expires: v.config.Now().Add(v.config.VerifiedTTL),
			})
		}
		return found, err
	})
}

// proofKey is a digest and what has to be proved of it.
func proofKey(ref webhook.Reference, rules []webhook.SignatureRule) string {
	var b strings.Builder
	b.WriteString(ref.String())
	for _, rule := range rules {
		b.WriteString(" " + strconv.Itoa(rule.Threshold))
		for _, name := range rule.AnyOf {
			b.WriteString("," + name)
		}
	}
	return b.String()
}
