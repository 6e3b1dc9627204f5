package registry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// A Client reads from the configured registries. It implements webhook.ImageReader and may be used concurrently.
type Client struct {
	hosts   map[string]*host
	limits  Limits
	observe func(ctx context.Context, registry, operation string, code int, d time.Duration)
	now     func() time.Time
	budget  Budget
}

// New checks the configuration and reports everything that is wrong with it. It reads the files that it names and
// contacts nobody.
func New(config Config) (*Client, error) {
	c := &Client{
		hosts:   make(map[string]*host, len(config.Hosts)),
		limits:  config.Limits.withDefaults(),
		observe: config.Observe,
		now:     config.Now,
		budget:  config.Budget,
	}
	if c.budget == nil {
		c.budget = NewBudget(defaultBudget)
	}
	if c.observe == nil {
		c.observe = func(context.Context, string, string, int, time.Duration) {}
	}
	if c.now == nil {
		c.now = time.Now
	}
	problems := []error{config.Limits.check()}
	n := network{dial: config.DialContext, proxy: config.Proxy, timeout: c.limits.Timeout, now: c.now, readFile: config.ReadFile}
	if n.dial == nil {
		n.dial = filteringDialer(n.timeout, nil)
	}
	if n.proxy == nil {
		n.proxy = http.ProxyFromEnvironment
	}
	if n.readFile == nil {
		n.readFile = os.ReadFile
	}
	for _, entry := range config.Hosts {
		h, err := newHost(entry, n)
		switch {
		case err != nil:
			problems = append(problems, err)
		case c.hosts[h.name] != nil:
			problems = append(problems, fmt.Errorf("registry %s: it is configured twice", webhook.Quote(h.name)))
		default:
			h.gate = newGate(c.limits.RequestsPerSecond, c.now)
			c.hosts[h.name] = h
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return c, nil
}

// Close waits for token requests that outlived their callers, at most Limits.Timeout, and closes idle connections.
// Reads under way are not cut; end their contexts first.
func (c *Client) Close() {
	for _, h := range c.hosts {
		h.tokens.close()
		h.closeIdle()
	}
}

// Manifest reads the manifest or index that ref names, by digest when it has one, else by tag. It refuses more than
// maxBytes (0: Limits.ManifestBytes), content that is not what was asked for, and documents that can be read in two
// ways. Errors are *webhook.ReadError or those of ctx.
func (c *Client) Manifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error) {
	h, err := c.host(ref)
	if err != nil {
		return webhook.Manifest{}, err
	}
	if maxBytes <= 0 {
		maxBytes = c.limits.ManifestBytes
	}
	return c.readManifest(ctx, h, ref, maxBytes)
}

// Blob reads a blob of ref's repository. It refuses more than maxBytes (0: Limits.ConfigBytes) and content that does
// not have the digest. Errors are *webhook.ReadError or those of ctx.
func (c *Client) Blob(ctx context.Context, ref webhook.Reference, digest string, maxBytes int64) ([]byte, error) {
	h, err := c.host(ref)
	if err != nil {
		return nil, err
	}
	if !isDigest(digest) {
		return nil, h.invalid("was to be asked for a blob whose digest is not sha256: and 64 hexadecimal digits", nil)
	}
	if maxBytes <= 0 {
		maxBytes = c.limits.ConfigBytes
	}
	return c.readBlob(ctx, h, blob{ref.Repository, digest, "blob", maxBytes})
}

// host finds the configured host of a reference. The reference is parsed again: whoever made it by hand cannot steer
// a request to another path.
func (c *Client) host(ref webhook.Reference) (*host, error) {
	h := c.hosts[ref.Registry]
	if h == nil {
		return nil, &webhook.ReadError{
			Failure: webhook.NotAllowed, Registry: ref.Registry, Reason: "is not a registry that may be contacted",
		}
	}
	if parsed, err := webhook.ParseReference(ref.String()); err != nil || parsed != ref {
		return nil, h.invalid("was to be asked for an image whose reference is not canonical", err)
	}
	return h, nil
}

// readManifest gives the manifest, which is one that can be read in one way only.
func (c *Client) readManifest(
	ctx context.Context, h *host, ref webhook.Reference, maxBytes int64,
) (webhook.Manifest, error) {
	q := query{
		operation: "manifest", what: "manifest", repository: ref.Repository, accept: acceptManifests, maxBytes: maxBytes,
	}
	switch {
	case ref.Digest != "":
		q.reference, q.missing = ref.Digest, webhook.ShortDigest(ref.Digest)
	case ref.Tag != "":
		q.reference, q.missing = ref.Tag, "tag "+ref.Tag
	default:
		return webhook.Manifest{}, h.invalid("was to be asked for an image without a tag or a digest", nil)
	}
	answer, digest, err := c.getManifest(ctx, h, q)
	if err != nil {
		return webhook.Manifest{}, err
	}
	doc, err := parseManifest(answer.body, answer.header.Get("Content-Type"), c.limits.IndexChildren)
	if err != nil {
		return webhook.Manifest{}, h.refuse(err)
	}
	return webhook.Manifest{Digest: digest, MediaType: doc.mediaType, Body: answer.body}, nil
}

// getManifest gives a manifest, whatever it says, and its digest, which is the one that was asked for.
func (c *Client) getManifest(ctx context.Context, h *host, q query) (got *answer, digest string, err error) {
	if got, err = c.get(ctx, h, q); err != nil {
		return nil, "", err
	}
	digest = webhook.DigestOf(got.body)
	if isDigest(q.reference) && digest != q.reference {
		return nil, "", h.otherContent(q.reference)
	}
	if claimed := got.header.Get("Docker-Content-Digest"); claimed != "" && claimed != digest {
		return nil, "", h.invalid("sent a manifest that does not have the digest that it claims", nil)
	}
	return got, digest, nil
}

// A blob is what readBlob is to read; what is its name in messages.
type blob struct {
	repository, digest, what string
	maxBytes                 int64
}

func (c *Client) readBlob(ctx context.Context, h *host, b blob) ([]byte, error) {
	answer, err := c.get(ctx, h, query{
		operation: "blob", what: b.what, repository: b.repository, reference: b.digest,
		missing: webhook.ShortDigest(b.digest), accept: "*/*", maxBytes: b.maxBytes,
	})
	if err != nil {
		return nil, err
	}
	if webhook.DigestOf(answer.body) != b.digest {
		return nil, h.otherContent(b.digest)
	}
	return answer.body, nil
}

func isDigest(s string) bool {
	digits, found := strings.CutPrefix(s, "sha256:")
	return found && len(digits) == 64 && strings.Trim(digits, "0123456789abcdef") == ""
}

// sizeText writes a limit as it was configured.
func sizeText(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	default:
		return fmt.Sprintf("%d bytes", n)
	}
}

// oneMore is the limit of a reader that notices when there is more than max.
func oneMore(max int64) int64 {
	if max == math.MaxInt64 {
		return max
	}
	return max + 1
}
