package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// An image is what test/image wrote: an index with an image a platform, or a single image.
type image struct {
	top       v1.Descriptor
	manifest  []byte // of the top: its hash is the digest
	index     v1.ImageIndex
	platforms []platform
}

// A platform is one image, with the files that it holds.
type platform struct {
	name     string // as "linux/amd64"
	digest   v1.Hash
	image    v1.Image
	config   *v1.ConfigFile
	files    []file
	binary   binary
	manifest v1.Descriptor
}

type file struct {
	name    string // without a slash at the front
	content []byte
}

// readImage reads all of a layout, so that what is said of the image comes from the image.
func readImage(dir string) (image, error) {
	root, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return image{}, fmt.Errorf("read the image layout %s, which make image writes: %w", dir, err)
	}
	manifest, err := root.IndexManifest()
	if err != nil {
		return image{}, fmt.Errorf("read the image layout %s: %w", dir, err)
	}
	if len(manifest.Manifests) != 1 {
		return image{}, fmt.Errorf("the image layout %s holds %d images, not 1; make image writes it anew", dir, len(manifest.Manifests))
	}
	read := image{top: manifest.Manifests[0]}
	read.top.Annotations, read.top.Platform = nil, nil
	if !manifest.Manifests[0].MediaType.IsIndex() {
		err = read.addPlatform(root, manifest.Manifests[0])
		if err == nil {
			read.manifest, err = read.platforms[0].image.RawManifest()
		}
		return read, err
	}
	if read.index, err = root.ImageIndex(read.top.Digest); err != nil {
		return image{}, err
	}
	if read.manifest, err = read.index.RawManifest(); err != nil {
		return image{}, err
	}
	children, err := read.index.IndexManifest()
	if err != nil {
		return image{}, err
	}
	for _, child := range children.Manifests {
		if err := read.addPlatform(read.index, child); err != nil {
			return image{}, err
		}
	}
	return read, nil
}

func (i *image) addPlatform(in v1.ImageIndex, descriptor v1.Descriptor) error {
	one, err := in.Image(descriptor.Digest)
	if err != nil {
		return err
	}
	p := platform{digest: descriptor.Digest, image: one, manifest: descriptor}
	p.manifest.Platform, p.manifest.Annotations = nil, nil
	if p.config, err = one.ConfigFile(); err != nil {
		return err
	}
	p.name = p.config.OS + "/" + p.config.Architecture
	if p.files, err = filesOf(one); err != nil {
		return fmt.Errorf("read the image for %s: %w", p.name, err)
	}
	entrypoint := strings.Join(p.config.Config.Entrypoint, " ")
	at := slices.IndexFunc(p.files, func(f file) bool { return "/"+f.name == entrypoint })
	if at < 0 {
		return fmt.Errorf("the image for %s has no file at its entrypoint %q", p.name, entrypoint)
	}
	p.binary, err = newBinary(p.files[at].name, p.files[at].content)
	i.platforms = append(i.platforms, p)
	return err
}

// filesOf gives the regular files, by name.
func filesOf(one v1.Image) (files []file, err error) {
	layers, err := one.Layers()
	if err != nil {
		return nil, err
	}
	for _, layer := range layers {
		archive, err := layer.Uncompressed()
		if err != nil {
			return nil, err
		}
		defer archive.Close()
		for reader := tar.NewReader(archive); ; {
			header, err := reader.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			if header.Typeflag != tar.TypeReg {
				continue
			}
			content, err := io.ReadAll(reader)
			if err != nil {
				return nil, err
			}
			files = append(files, file{header.Name, content})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// check holds the image against what the release says of it, and gives its date.
func (i image) check(version, commit string) (created time.Time, err error) {
	for _, p := range i.platforms {
		labels := p.config.Config.Labels
		for label, want := range map[string]string{
			"org.opencontainers.image.version": version, "org.opencontainers.image.revision": commit,
		} {
			if labels[label] != want {
				err = errors.Join(err, fmt.Errorf("the image for %s has %s=%q, and the release %q; make image again", p.name, label, labels[label], want))
			}
		}
		err = errors.Join(err, p.binary.checkCommit(commit))
		created = p.config.Created.UTC()
	}
	return created, err
}

// digests are all that can be pulled: that of the index first.
func (i image) digests() []v1.Descriptor {
	list := []v1.Descriptor{i.top}
	for _, p := range i.platforms {
		if p.digest != i.top.Digest {
			list = append(list, p.manifest)
		}
	}
	return list
}
