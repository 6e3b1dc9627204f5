package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// push copies everything in a layout to a repository: the image under its tag, signatures and attestations under theirs, and
// bundles by their digests. Credentials are those of the Docker config.
func push(ctx context.Context, dir, to string, out io.Writer) error {
	repository, err := name.NewRepository(to)
	if err != nil {
		return fmt.Errorf("push to %q: %w", to, err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return fmt.Errorf("read the layout %s: %w", dir, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return fmt.Errorf("read the layout %s: %w", dir, err)
	}
	for _, descriptor := range manifest.Manifests {
		var ref name.Reference = repository.Digest(descriptor.Digest.String())
		if tag := descriptor.Annotations[refName]; tag != "" {
			ref = repository.Tag(tag)
		}
		if err := pushOne(ctx, index, descriptor, ref); err != nil {
			return fmt.Errorf("push %s: %w", ref, err)
		}
		fmt.Fprintf(out, "%s %s\n", descriptor.Digest, strings.TrimPrefix(ref.String(), "index.docker.io/"))
	}
	return nil
}

func pushOne(ctx context.Context, in v1.ImageIndex, descriptor v1.Descriptor, ref name.Reference) error {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if descriptor.MediaType.IsIndex() {
		child, err := in.ImageIndex(descriptor.Digest)
		if err != nil {
			return err
		}
		return remote.WriteIndex(ref, child, options...)
	}
	child, err := in.Image(descriptor.Digest)
	if err != nil {
		return err
	}
	return remote.Write(ref, child, options...)
}
