package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-admission/hallmark/webhook"
)

// parallelPlatforms bounds how many platforms of one index are read at a time.
const parallelPlatforms = 8

// A Fetcher reads manifests and blobs, and checks each against its digest. A Client is one; what remembers the contents
// for it is another.
type Fetcher interface {
	Manifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error)
	Blob(ctx context.Context, ref webhook.Reference, digest string, maxBytes int64) ([]byte, error)
}

// A Reader makes facts of what a Fetcher reads. It implements webhook.ImageReader and may be used concurrently.
type Reader struct {
	fetch  Fetcher
	limits Limits
}

// NewReader reads through fetch, within the limits.
func NewReader(fetch Fetcher, limits Limits) *Reader {
	return &Reader{fetch: fetch, limits: limits.withDefaults()}
}

// ReadImage implements webhook.ImageReader, straight from the registry.
func (c *Client) ReadImage(ctx context.Context, ref webhook.Reference, depth webhook.Depth) (*webhook.Content, error) {
	return NewReader(c, c.limits).ReadImage(ctx, ref, depth)
}

// ReadImage implements webhook.ImageReader. With DigestOnly it takes one manifest; with WithConfig a config more for a
// plain image, and a manifest and a config more a platform for an index.
func (r *Reader) ReadImage(ctx context.Context, ref webhook.Reference, depth webhook.Depth) (*webhook.Content, error) {
	manifest, doc, err := r.readManifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	content := &webhook.Content{Digest: manifest.Digest, MediaType: manifest.MediaType, Stale: manifest.Stale}
	if depth == webhook.DigestOnly {
		return content, nil
	}
	ref = ref.WithDigest(manifest.Digest)
	if doc.index {
		content.Platforms, err = r.readPlatforms(ctx, ref, doc)
	} else {
		content.Platforms = make([]webhook.Platform, 1)
		content.Platforms[0], err = r.readPlatform(ctx, ref, doc)
	}
	if err != nil {
		return nil, err
	}
	return content, nil
}

// readPlatforms reads every runnable image of an index, in the order of the index.
func (r *Reader) readPlatforms(ctx context.Context, ref webhook.Reference, index *document) ([]webhook.Platform, error) {
	all := make([]webhook.Platform, len(index.children))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallelPlatforms)
	for i, child := range index.children {
		if child.platform.isUnknown() {
			continue
		}
		group.Go(func() error {
			var err error
			all[i], err = r.readChild(groupCtx, ref, child)
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
		return nil, invalid(ref.Registry, "sent an index without any platform", nil)
	}
	return platforms, nil
}

// readChild reads one image of an index and holds what the index says of it against its config.
func (r *Reader) readChild(ctx context.Context, ref webhook.Reference, child descriptor) (webhook.Platform, error) {
	manifest, doc, err := r.readManifest(ctx, ref.WithTag("").WithDigest(child.digest))
	if err != nil {
		return webhook.Platform{}, err
	}
	if doc.index {
		return webhook.Platform{}, invalid(ref.Registry, "sent an index inside an index", nil)
	}
	if child.mediaType != "" && child.mediaType != doc.mediaType {
		return webhook.Platform{}, invalid(ref.Registry, "sent an ambiguous manifest (the index gives it another type)", nil)
	}
	read, err := r.readPlatform(ctx, ref.WithDigest(manifest.Digest), doc)
	if err != nil {
		return webhook.Platform{}, err
	}
	config := platform{read.OS, read.Architecture, read.Variant}
	if !child.platform.agrees(config) {
		return webhook.Platform{}, invalid(ref.Registry, fmt.Sprintf("sent an index that says %s of an image for %s",
			child.platform, config), nil)
	}
	merged := config.orElse(child.platform)
	read.OS, read.Architecture, read.Variant = merged.os, merged.architecture, merged.variant
	return read, nil
}

// readPlatform reads the config of the image that ref names by digest.
func (r *Reader) readPlatform(ctx context.Context, ref webhook.Reference, doc *document) (webhook.Platform, error) {
	if err := doc.checkRunnable(); err != nil {
		return webhook.Platform{}, refuse(ref.Registry, err)
	}
	if doc.config.size > r.limits.ConfigBytes {
		return webhook.Platform{}, tooLarge(ref.Registry, "config", r.limits.ConfigBytes)
	}
	body, err := r.fetch.Blob(ctx, ref, doc.config.digest, r.limits.ConfigBytes)
	if errors.Is(err, errTooLarge) {
		return webhook.Platform{}, tooLarge(ref.Registry, "config", r.limits.ConfigBytes)
	}
	if err != nil {
		return webhook.Platform{}, err
	}
	read, err := parseConfig(body)
	if err != nil {
		return webhook.Platform{}, refuse(ref.Registry, err)
	}
	read.Digest = ref.Digest
	read.BaseDigest = cmp.Or(doc.base, baseDigest(read.Labels))
	return read, nil
}

// readManifest gives a manifest and what it says.
func (r *Reader) readManifest(ctx context.Context, ref webhook.Reference) (webhook.Manifest, *document, error) {
	manifest, err := r.fetch.Manifest(ctx, ref, r.limits.ManifestBytes)
	if err != nil {
		return webhook.Manifest{}, nil, err
	}
	doc, err := parseManifest(manifest.Body, manifest.MediaType, r.limits.IndexChildren)
	if err != nil {
		return webhook.Manifest{}, nil, refuse(ref.Registry, err)
	}
	return manifest, doc, nil
}
