package registrytest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An Image is a small runnable image. Images that are equal have the same digest.
type Image struct {
	Repository string // "golden/base"
	Tag        string // "": only by digest

	User              string            // config.User: "", "1000", "coder"
	OS, Arch, Variant string            // "" is linux, amd64 and none
	Labels            map[string]string // config.Labels
	Env               []string          // config.Env, "NAME=value"
	Created           time.Time         // zero: not said

	// Layers are the contents of one file each, the base first: an image that begins with the layers of another is
	// derived from it. nil makes one layer of repository, tag and platform.
	Layers []string

	Docker bool // Docker's media types instead of OCI's
}

// PushImage stores an image and gives the digest of its manifest.
func (r *Registry) PushImage(ctx context.Context, image Image) (digest string, err error) {
	if image.Repository == "" {
		return "", errors.New("registrytest: an image needs a repository")
	}
	manifest, err := r.pushContent(ctx, image.withDefaults())
	if err != nil {
		return "", err
	}
	return r.PushManifest(ctx, image.Repository, image.Tag, manifest)
}

// PushIndex stores an image for each platform, and an index of them under the tag unless that is "". Repository and
// Tag of the platforms are not used. It gives the digest of the index.
func (r *Registry) PushIndex(ctx context.Context, repository, tag string, platforms ...Image) (digest string, err error) {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, image := range platforms {
		image.Repository, image.Tag = repository, ""
		image = image.withDefaults()
		child, err := r.pushContent(ctx, image)
		if err != nil {
			return "", err
		}
		if _, err := r.PushManifest(ctx, repository, "", child); err != nil {
			return "", err
		}
		descriptor, err := describe(types.MediaType(child.MediaType), child.Body)
		if err != nil {
			return "", err
		}
		descriptor.Platform = &v1.Platform{OS: image.OS, Architecture: image.Arch, Variant: image.Variant}
		index.Manifests = append(index.Manifests, descriptor)
		if image.Docker {
			index.MediaType = types.DockerManifestList
		}
	}
	body, err := json.Marshal(index)
	if err != nil {
		return "", fmt.Errorf("registrytest: index of %s: %w", repository, err)
	}
	return r.PushManifest(ctx, repository, tag, Manifest{string(index.MediaType), body})
}

func (i Image) withDefaults() Image {
	if i.OS == "" {
		i.OS = "linux"
	}
	if i.Arch == "" {
		i.Arch = "amd64"
	}
	if i.Layers == nil {
		i.Layers = []string{fmt.Sprintf("%s:%s %s/%s", i.Repository, i.Tag, i.OS, i.Arch)}
	}
	return i
}

// pushContent stores config and layers, and makes the manifest.
func (r *Registry) pushContent(ctx context.Context, image Image) (Manifest, error) {
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	configType, layerType := types.OCIConfigJSON, types.OCILayer
	if image.Docker {
		manifest.MediaType = types.DockerManifestSchema2
		configType, layerType = types.DockerConfigJSON, types.DockerLayer
	}
	config := v1.ConfigFile{
		OS: image.OS, Architecture: image.Arch, Variant: image.Variant, Created: v1.Time{Time: image.Created.UTC()},
		Config: v1.Config{User: image.User, Labels: image.Labels, Env: image.Env},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}},
	}
	for _, content := range image.Layers {
		archive, compressed, err := layer(content)
		if err != nil {
			return Manifest{}, err
		}
		diffID, err := describe("", archive)
		if err != nil {
			return Manifest{}, err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID.Digest)
		descriptor, err := r.pushDescribed(ctx, image.Repository, layerType, compressed)
		if err != nil {
			return Manifest{}, err
		}
		manifest.Layers = append(manifest.Layers, descriptor)
	}
	configJSON, err := json.Marshal(config)
	if err != nil {
		return Manifest{}, fmt.Errorf("registrytest: config of %s: %w", image.Repository, err)
	}
	if manifest.Config, err = r.pushDescribed(ctx, image.Repository, configType, configJSON); err != nil {
		return Manifest{}, err
	}
	body, err := json.Marshal(manifest)
	if err != nil {
		return Manifest{}, fmt.Errorf("registrytest: manifest of %s: %w", image.Repository, err)
	}
	return Manifest{string(manifest.MediaType), body}, nil
}

func (r *Registry) pushDescribed(
	ctx context.Context, repository string, mediaType types.MediaType, blob []byte,
) (v1.Descriptor, error) {
	if _, err := r.PushBlob(ctx, repository, blob); err != nil {
		return v1.Descriptor{}, err
	}
	return describe(mediaType, blob)
}

func describe(mediaType types.MediaType, content []byte) (v1.Descriptor, error) {
	hash, err := v1.NewHash(digestOf(content))
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("registrytest: %w", err)
	}
	return v1.Descriptor{MediaType: mediaType, Size: int64(len(content)), Digest: hash}, nil
}

// layer makes an archive of one file and compresses it; the same content gives the same bytes.
func layer(content string) (archive, compressed []byte, err error) {
	var plain bytes.Buffer
	writer := tar.NewWriter(&plain)
	header := &tar.Header{Name: "content", Mode: 0o644, Size: int64(len(content)), Format: tar.FormatUSTAR}
	if err := writer.WriteHeader(header); err != nil {
		return nil, nil, fmt.Errorf("registrytest: layer: %w", err)
	}
	if _, err := writer.Write([]byte(content)); err != nil {
		return nil, nil, fmt.Errorf("registrytest: layer: %w", err)
	}
	if err := writer.Close(); err != nil {
		return nil, nil, fmt.Errorf("registrytest: layer: %w", err)
	}
	var packed bytes.Buffer
	packer := gzip.NewWriter(&packed)
	if _, err := packer.Write(plain.Bytes()); err != nil {
		return nil, nil, fmt.Errorf("registrytest: layer: %w", err)
	}
	if err := packer.Close(); err != nil {
		return nil, nil, fmt.Errorf("registrytest: layer: %w", err)
	}
	return plain.Bytes(), packed.Bytes(), nil
}
