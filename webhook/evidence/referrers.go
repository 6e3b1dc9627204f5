package evidence

import (
	"context"
	"strings"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Referrers gives an index of what refers to a digest. That changes, so it is asked for like a tag, and it is remembered
// under the tag where registries without a referrers API have it: so a directory in which that tag stands serves, too.
func (c *Content) Referrers(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error) {
	listed := ref.WithTag(strings.Replace(ref.Digest, ":", "-", 1))
	m, err := c.asked(ctx, listed, maxBytes, func(ctx context.Context) (webhook.Manifest, error) {
		return do(ctx, &c.flights, "referrers "+c.config.key(listed), func(ctx context.Context) (webhook.Manifest, error) {
			m, err := c.fetch.Referrers(ctx, ref, maxBytes)
			if err == nil {
				c.remember(listed, m)
			}
			return m, err
		})
	})
	if err == nil && m.MediaType != indexType {
		return webhook.Manifest{}, &webhook.ReadError{
			Failure: webhook.Invalid, Registry: ref.Registry,
			Reason: "had something else than a list of referrers at tag " + listed.Tag,
		}
	}
	return m, err
}

// indexType is the media type of a list of referrers.
const indexType = "application/vnd.oci.image.index.v1+json"
