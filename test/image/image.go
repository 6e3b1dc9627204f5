package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// passwd gives the numeric user a name for programs that look for one.
const passwd = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"

// contents is all that decides what the image holds.
type contents struct {
	binaries          []executable
	certificates      []byte
	created           time.Time
	version, revision string
}

// executable is the program for one platform.
type executable struct {
	architecture string
	program      []byte
}

// readBinary finds the platform in the program itself, so that no flag can tell another one.
func readBinary(name string) (executable, error) {
	program, err := os.ReadFile(name)
	if err != nil {
		return executable{}, fmt.Errorf("read the binary: %w", err)
	}
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return executable{}, fmt.Errorf("%s is not a program for Linux; build it with GOOS=linux (%w)", name, err)
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return executable{}, fmt.Errorf("%s needs a dynamic linker, which the image has not; build it with CGO_ENABLED=0", name)
		}
	}
	switch file.Machine {
	case elf.EM_X86_64:
		return executable{"amd64", program}, nil
	case elf.EM_AARCH64:
		return executable{"arm64", program}, nil
	}
	return executable{}, fmt.Errorf("%s is for %s; there are images for amd64 and arm64", name, file.Machine)
}

// write makes the layout anew and gives the digest of what it holds: an image, or an index of one image a platform.
func write(dir string, c contents) (v1.Hash, error) {
	slices.SortFunc(c.binaries, func(a, b executable) int { return strings.Compare(a.architecture, b.architecture) })
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, b := range c.binaries {
		if i > 0 && b.architecture == c.binaries[i-1].architecture {
			return v1.Hash{}, fmt.Errorf("two binaries are for %s", b.architecture)
		}
		image, err := newImage(b, c)
		if err != nil {
			return v1.Hash{}, fmt.Errorf("make the image for %s: %w", b.architecture, err)
		}
		platform := &v1.Platform{OS: "linux", Architecture: b.architecture}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return v1.Hash{}, err
	}
	top := index
	if len(c.binaries) > 1 { // the layout's own index has no digest of use to anybody
		top = mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: index})
		if manifest, err = top.IndexManifest(); err != nil {
			return v1.Hash{}, err
		}
	}
	if err := replace(dir); err != nil {
		return v1.Hash{}, err
	}
	if _, err := layout.Write(dir, top); err != nil {
		return v1.Hash{}, fmt.Errorf("write the layout: %w", err)
	}
	return manifest.Manifests[0].Digest, nil
}

// replace removes an older layout, and nothing else.
func replace(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return fmt.Errorf("%s holds something other than an OCI layout; empty it, or choose another with -out", dir)
	}
	return os.RemoveAll(dir)
}

func newImage(b executable, c contents) (v1.Image, error) {
	system, err := newLayer(c.created, []entry{
		{"etc/", 0o755, nil}, {"etc/passwd", 0o644, []byte(passwd)}, {"etc/ssl/", 0o755, nil}, {"etc/ssl/certs/", 0o755, nil},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, c.certificates}, {"tmp/", 0o1777, nil},
	})
	if err != nil {
		return nil, err
	}
	program, err := newLayer(c.created, []entry{{"hallmark", 0o755, b.program}})
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: c.created}
	image, err := mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		mutate.Addendum{Layer: system, History: v1.History{Created: created, CreatedBy: "CA certificates, nonroot, /tmp"}},
		mutate.Addendum{Layer: program, History: v1.History{Created: created, CreatedBy: "hallmark " + c.version}})
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(image, configure(image, b, c))
}

// configure says how the image runs. The Dockerfile says the same.
func configure(image v1.Image, b executable, c contents) *v1.ConfigFile {
	file, err := image.ConfigFile()
	if err != nil {
		panic(err) // it was made here, in memory
	}
	file = file.DeepCopy()
	file.Created = v1.Time{Time: c.created}
	file.OS, file.Architecture = "linux", b.architecture
	file.Config = v1.Config{
		User:         "65532:65532",
		Entrypoint:   []string{"/hallmark"},
		WorkingDir:   "/",
		ExposedPorts: map[string]struct{}{"9443/tcp": {}, "9090/tcp": {}},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "Hallmark",
			"org.opencontainers.image.description": "Admits developer workspaces only from approved, signed, pinned images",
			"org.opencontainers.image.source":      "https://github.com/hallmark-admission/hallmark",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     c.version,
			"org.opencontainers.image.revision":    c.revision,
		},
	}
	return file
}

// entry is a file, or a directory when its name ends with a slash.
type entry struct {
	name    string
	mode    int64
	content []byte
}

// newLayer packs entries in their order, all owned by root and of one date.
func newLayer(date time.Time, entries []entry) (v1.Layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, e := range entries {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: int64(len(e.content)), ModTime: date, Format: tar.FormatUSTAR,
		}
		if strings.HasSuffix(e.name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}
