package harness

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// PushProgram stores an image for this platform whose entry point is a static program, and gives its digest. Repository,
// tag and user are those of as.
func PushProgram(ctx context.Context, registry *registrytest.Registry, file string, as registrytest.Image) (string, error) {
	program, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	header := &tar.Header{Name: "program", Mode: 0o755, Size: int64(len(program)), Format: tar.FormatUSTAR}
	if err := writer.WriteHeader(header); err != nil {
		return "", err
	}
	if _, err := writer.Write(program); err != nil {
		return "", err
	}
	if err := writer.Close(); err != nil {
		return "", err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return "", err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return "", err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return "", err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Entrypoint: []string{"/program"}, User: as.User, Labels: map[string]string{"version": as.Tag}}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return "", err
	}
	return push(ctx, registry, image, as)
}

// PushLayout stores the only image of an OCI layout, and gives its digest. Repository and tag are those of as.
func PushLayout(ctx context.Context, registry *registrytest.Registry, dir string, as registrytest.Image) (string, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return "", fmt.Errorf("read the OCI layout: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return "", fmt.Errorf("read the OCI layout: %w", err)
	}
	if n := len(manifest.Manifests); n != 1 || !manifest.Manifests[0].MediaType.IsImage() {
		return "", fmt.Errorf("%s holds %d manifests, and not one image", dir, n)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		return "", fmt.Errorf("read the OCI layout: %w", err)
	}
	return push(ctx, registry, image, as)
}

func push(ctx context.Context, registry *registrytest.Registry, image v1.Image, as registrytest.Image) (string, error) {
	layers, err := image.Layers()
	if err != nil {
		return "", err
	}
	for _, layer := range layers {
		reader, err := layer.Compressed()
		if err != nil {
			return "", err
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			return "", err
		}
		if _, err := registry.PushBlob(ctx, as.Repository, content); err != nil {
			return "", err
		}
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return "", err
	}
	if _, err := registry.PushBlob(ctx, as.Repository, config); err != nil {
		return "", err
	}
	manifest, err := image.RawManifest()
	if err != nil {
		return "", err
	}
	mediaType, err := image.MediaType()
	if err != nil {
		return "", err
	}
	return registry.PushManifest(ctx, as.Repository, as.Tag, registrytest.Manifest{MediaType: string(mediaType), Body: manifest})
}
