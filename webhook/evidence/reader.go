package evidence

import (
	"context"
	"slices"
	"strconv"
	"strings"

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
				return &webhook.Content{Digest: last.digest}, nil
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
		ctx, cancel = halfTheTime(ctx)
		defer cancel()
	}
	content, err := do(ctx, &r.flights, "tag "+r.config.key(ref), func(ctx context.Context) (*webhook.Content, error) {
		// Who looked before another flight landed and asks after it finds here what that one brought.
		if last, known := r.store.tags.get(r.config.key(ref)); known && r.config.Now().Sub(last.read) < r.config.TagTTL*3/4 {
			return &webhook.Content{Digest: last.digest}, nil
		}
		return r.read.ReadImage(ctx, ref, webhook.DigestOnly)
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

// A Verifier remembers which signers were proved to have signed a digest.
type Verifier struct {
	store   *Store
	config  Config
	known   webhook.Verifier
	verify  webhook.Verifier
	flights flights
}

// NewVerifier wraps a verifier that believes the signers of config.Trust. known is the same over Content.Known: what is
// proved by what is there needs no registry, after a restart or with other keys as little as otherwise. nil is none.
func NewVerifier(store *Store, config Config, verify, known webhook.Verifier) *Verifier {
	config = config.withDefaults()
	return &Verifier{store: store, config: config, verify: verify, known: known, flights: flights{timeout: config.Timeout}}
}

// Verify implements webhook.Verifier. Only what satisfies all rules is remembered: what is missing now may be there the
// next time.
func (v *Verifier) Verify(ctx context.Context, ref webhook.Reference, rules []webhook.SignatureRule) (webhook.Signatures, error) {
	key := v.key(ref, rules)
	last, hit := lookup(&v.config, v.store.proofs, "proof", key)
	if hit && v.config.Now().Sub(last.read) < v.config.VerifiedTTL {
		return last.signatures, nil
	}
	return do(ctx, &v.flights, key, func(ctx context.Context) (webhook.Signatures, error) {
		if landed, ok := v.store.proofs.get(key); ok && landed.read.After(last.read) {
			return landed.signatures, nil
		}
		// A proof that is too old is not renewed from what is there: somebody may have taken the signature away.
		if v.known != nil && !hit {
			if found, err := v.known.Verify(ctx, ref, rules); err == nil && satisfied(rules, found) {
				return v.keep(key, found), nil
			}
		}
		found, err := v.verify.Verify(ctx, ref, rules)
		if err == nil && satisfied(rules, found) {
			return v.keep(key, found), nil
		}
		return found, err
	})
}

func (v *Verifier) keep(key string, found webhook.Signatures) webhook.Signatures {
	v.store.proofs.add(key, proof{found, v.config.Now()}, int64(256*(1+len(found.Valid))))
	return found
}

func satisfied(rules []webhook.SignatureRule, found webhook.Signatures) bool {
	return !slices.ContainsFunc(rules, func(rule webhook.SignatureRule) bool { return !rule.Satisfied(found.Valid) })
}

// key is a digest, what has to be proved of it, and whom one trusts.
func (v *Verifier) key(ref webhook.Reference, rules []webhook.SignatureRule) string {
	ref.Tag = ""
	var b strings.Builder
	b.WriteString(v.config.Trust + " " + v.config.key(ref))
	for _, rule := range rules {
		b.WriteString(" " + strconv.Itoa(rule.Threshold))
		for _, name := range rule.AnyOf {
			b.WriteString("," + name)
		}
	}
	return b.String()
}
