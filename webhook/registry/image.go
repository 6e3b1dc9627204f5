package registry

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-admission/hallmark/webhook"
)

// parallelPlatforms bounds how many platforms of one index are read at a time.
const parallelPlatforms = 8

// ReadImage implements webhook.ImageReader. With DigestOnly it costs one request; with WithConfig one more for a plain
// image, and two more a platform for an index.
func (c *Client) ReadImage(ctx context.Context, ref webhook.Reference, depth webhook.Depth) (*webhook.Content, error) {
	h, err := c.host(ref)
	if err != nil {
		return nil, err
	}
	manifest, doc, err := c.readManifest(ctx, h, ref, c.limits.ManifestBytes)
	if err != nil {
		return nil, err
	}
	content := &webhook.Content{Digest: manifest.Digest, MediaType: manifest.MediaType}
	if depth == webhook.DigestOnly {
		return content, nil
	}
	ref = ref.WithDigest(manifest.Digest)
	if doc.index {
		content.Platforms, err = c.readPlatforms(ctx, h, ref, doc)
	} else {
		content.Platforms = make([]webhook.Platform, 1)
		content.Platforms[0], err = c.readPlatform(ctx, h, ref, doc)
	}
	if err != nil {
		return nil, err
	}
	return content, nil
}

// readPlatforms reads every runnable image of an index, in the order of the index.
func (c *Client) readPlatforms(
	ctx context.Context, h *host, ref webhook.Reference, index *document,
) ([]webhook.Platform, error) {
	all := make([]webhook.Platform, len(index.children))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelPlatforms)
	for i, child := range index.children {
		if child.platform.isUnknown() {
			continue
		}
		group.Go(func() error {
			var err error
			all[i], err = c.readChild(groupCtx, h, ref, child)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var platforms []webhook.Platform
	for i, child := range index.children {
		read := platform{all[i].OS, all[i].Architecture, all[i].Variant}
		// Without a platform in the index the runtime goes by the config, and nothing runs what is for "unknown" there.
		if child.platform.isUnknown() || child.platform.isZero() && read.isUnknown() {
			continue
		}
		platforms = append(platforms, all[i])
	}
	if platforms == nil {
		return nil, h.invalid("sent an index without any platform", nil)
	}
	return platforms, nil
}

// readChild reads one image of an index and holds what the index says of it against its config.
func (c *Client) readChild(ctx context.Context, h *host, ref webhook.Reference, child descriptor) (webhook.Platform, error) {
	manifest, doc, err := c.readManifest(ctx, h, ref.WithDigest(child.digest), c.limits.ManifestBytes)
	if err != nil {
		return webhook.Platform{}, err
	}
	if doc.index {
		return webhook.Platform{}, h.invalid("sent an index inside an index", nil)
	}
	if child.mediaType != "" && child.mediaType != doc.mediaType {
		return webhook.Platform{}, h.invalid("sent an ambiguous manifest (the index gives it another type)", nil)
	}
	read, err := c.readPlatform(ctx, h, ref.WithDigest(manifest.Digest), doc)
	if err != nil {
		return webhook.Platform{}, err
	}
	config := platform{read.OS, read.Architecture, read.Variant}
	if !child.platform.agrees(config) {
		return webhook.Platform{}, h.invalid(fmt.Sprintf("sent an index that says %s of an image for %s",
			child.platform, config), nil)
	}
	merged := config.orElse(child.platform)
	read.OS, read.Architecture, read.Variant = merged.os, merged.architecture, merged.variant
	return read, nil
}

// readPlatform reads the config of the image that ref names by digest.
func (c *Client) readPlatform(ctx context.Context, h *host, ref webhook.Reference, doc *document) (webhook.Platform, error) {
	if err := doc.checkRunnable(); err != nil {
		return webhook.Platform{}, h.refuse(err)
	}
	if doc.config.size > c.limits.ConfigBytes {
		return webhook.Platform{}, h.tooLarge("config", c.limits.ConfigBytes)
	}
	body, err := c.readBlob(ctx, h, blob{ref.Repository, doc.config.digest, "config", c.limits.ConfigBytes})
	if err != nil {
		return webhook.Platform{}, err
	}
	read, err := parseConfig(body)
	if err != nil {
		return webhook.Platform{}, h.refuse(err)
	}
	read.Digest = ref.Digest
	return read, nil
}
