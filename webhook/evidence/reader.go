package evidence

import (
	"context"
	"strconv"

	"github.com/hallmark-admission/hallmark/webhook"
)

// A Reader remembers what tags name, and what is known of digests. It implements webhook.ImageReader over one that reads
// through a Content of the same store.
type Reader struct {
	store   *Store
	config  Config
	read    webhook.ImageReader
	flights flights
}

// NewReader wraps a reader.
func NewReader(store *Store, config Config, read webhook.ImageReader) *Reader {
	config = config.withDefaults()
	return &Reader{store: store, config: config, read: read, flights: flights{timeout: config.Timeout}}
}

// ReadImage implements webhook.ImageReader. A tag that was read within TagTTL is not asked for; in the last quarter of
// that time it is read again behind the answer, so that an image in use never waits for its registry.
func (r *Reader) ReadImage(ctx context.Context, ref webhook.Reference, depth webhook.Depth) (*webhook.Content, error) {
	if ref.Digest != "" {
		return r.readDigest(ctx, ref, depth)
	}
	if last, hit := lookup(&r.config, r.store.tags, "tag", r.config.key(ref)); hit {
		age := r.config.Now().Sub(last.read)
		if age < r.config.TagTTL {
			if age >= r.config.TagTTL*3/4 {
				r.refresh(ctx, ref)
			}
			if depth == webhook.DigestOnly {
				return last.content(&r.config), nil
			}
			return r.readDigest(ctx, ref.WithDigest(last.digest), depth)
		}
	}
	content, err := r.readTag(ctx, ref)
	if err != nil || depth == webhook.DigestOnly {
		return content, err
	}
	full, err := r.readDigest(ctx, ref.WithDigest(content.Digest), depth)
	if err != nil || content.Stale.IsZero() {
		return full, err
	}
	marked := *full
	marked.Stale = content.Stale
	return &marked, nil
}

// readTag asks for a tag. While its registry fails, the last answer is given and marked.
func (r *Reader) readTag(ctx context.Context, ref webhook.Reference) (*webhook.Content, error) {
	last, known := r.store.last(&r.config, ref)
	if known {
		var cancel context.CancelFunc
		ctx, cancel = withLastAnswer(ctx)
		defer cancel()
	}
	content, err := do(ctx, &r.flights, "tag "+r.config.key(ref), func(ctx context.Context) (*webhook.Content, error) {
		// Who looked before another flight landed and asks after it finds here what that one brought.
		if last, known := r.store.tags.get(r.config.key(ref)); known && r.config.Now().Sub(last.read) < r.config.TagTTL*3/4 {
			return last.content(&r.config), nil
		}
		content, err := r.read.ReadImage(ctx, ref, webhook.DigestOnly)
		if err != nil || !content.Stale.IsZero() {
			return content, err
		}
		if named, known := r.store.tags.get(r.config.key(ref)); known && named.digest == content.Digest {
			return named.content(&r.config), nil // the read has been remembered, with what was before
		}
		return content, nil
	})
	if err != nil && known && outage(err) {
		r.config.Observe("tag", "stale")
		return &webhook.Content{Digest: last.digest, Stale: last.read}, nil
	}
	return content, err
}

// refresh reads a tag behind the request. Those who want the same at the same time share it, and a failure only means
// that the next request tries again.
func (r *Reader) refresh(ctx context.Context, ref webhook.Reference) {
	ctx = context.WithoutCancel(ctx)
	r.store.background.Go(func() { _, _ = r.readTag(ctx, ref) })
}

// readDigest gives all that is known of a digest, whatever depth is asked for: it never changes.
func (r *Reader) readDigest(ctx context.Context, ref webhook.Reference, depth webhook.Depth) (*webhook.Content, error) {
	ref.Tag = ""
	key := r.config.key(ref)
	if content, hit := lookup(&r.config, r.store.facts, "facts", key); hit {
		return content, nil
	}
	return do(ctx, &r.flights, strconv.Itoa(int(depth))+" "+key, func(ctx context.Context) (*webhook.Content, error) {
		if content, landed := r.store.facts.get(key); landed {
			return content, nil
		}
		content, err := r.read.ReadImage(ctx, ref, depth)
		if err == nil && depth == webhook.WithConfig {
			r.store.facts.add(key, content, sizeOf(content))
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
