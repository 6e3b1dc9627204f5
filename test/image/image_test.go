package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const epoch = "1767225600" // 2026-01-01

// workshop is a directory with what an image is made of.
type workshop struct {
	dir, amd64, arm64, ca string
}

func newWorkshop(t *testing.T) workshop {
	t.Helper()
	t.Setenv("SOURCE_DATE_EPOCH", epoch)
	dir := t.TempDir()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Close()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return workshop{
		dir: dir, amd64: put(t, dir, "amd64", program(elf.EM_X86_64, false)),
		arm64: put(t, dir, "arm64", program(elf.EM_AARCH64, false)), ca: put(t, dir, "ca.pem", certificate),
	}
}

func put(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// program is the head of an ELF file, with a dynamic linker when asked.
func program(machine elf.Machine, dynamic bool) []byte {
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Ehsize: 64, Phentsize: 56,
	}
	var b bytes.Buffer
	if dynamic {
		header.Phoff, header.Phnum = 64, 1
	}
	_ = binary.Write(&b, binary.LittleEndian, header)
	if dynamic {
		_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_INTERP)})
	}
	return b.Bytes()
}

// build runs the program and gives the digest that it prints.
func (w workshop) build(t *testing.T, out string, args ...string) string {
	t.Helper()
	var printed bytes.Buffer
	args = append([]string{"-ca", w.ca, "-out", filepath.Join(w.dir, out), "-version", "v1.2.3", "-revision", "abc"}, args...)
	if err := run(t.Context(), args, &printed); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(printed.String())
}

func (w workshop) index(t *testing.T, out string) v1.ImageIndex {
	t.Helper()
	index, err := layout.ImageIndexFromPath(filepath.Join(w.dir, out))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Fatalf("the layout is not valid: %v", err)
	}
	return index
}

func TestSameDigestTwice(t *testing.T) {
	w := newWorkshop(t)
	first := w.build(t, "one", "-binary", w.amd64)
	for _, name := range []string{w.amd64, w.ca} { // the dates of the files are not in it
		if err := os.Chtimes(name, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if second := w.build(t, "two", "-binary", w.amd64); second != first {
		t.Errorf("digest of the second build:\n got %s\nwant %s", second, first)
	}
	if again := w.build(t, "one", "-binary", w.amd64); again != first {
		t.Errorf("digest of a build over an older one:\n got %s\nwant %s", again, first)
	}
	both := w.build(t, "three", "-binary", w.arm64, "-binary", w.amd64)
	if swapped := w.build(t, "four", "-binary", w.amd64, "-binary", w.arm64); swapped != both || both == first {
		t.Errorf("digest of an index:\n got %s\nwant %s whatever the order, and not %s", swapped, both, first)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1767225601")
	if later := w.build(t, "five", "-binary", w.amd64); later == first {
		t.Error("SOURCE_DATE_EPOCH has no effect")
	}
}

func TestImage(t *testing.T) {
	w := newWorkshop(t)
	digest := w.build(t, "out", "-binary", w.amd64)
	hash, err := v1.NewHash(digest)
	if err != nil {
		t.Fatalf("printed %q: %v", digest, err)
	}
	image, err := w.index(t, "out").Image(hash)
	if err != nil {
		t.Fatal(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]string{
		"user": {file.Config.User, "65532:65532"}, "entrypoint": {fmt.Sprint(file.Config.Entrypoint), "[/hallmark]"},
		"platform": {file.OS + "/" + file.Architecture, "linux/amd64"}, "created": {file.Created.Format(time.RFC3339), "2026-01-01T00:00:00Z"},
		"version":  {file.Config.Labels["org.opencontainers.image.version"], "v1.2.3"},
		"revision": {file.Config.Labels["org.opencontainers.image.revision"], "abc"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s:\n got %s\nwant %s", what, pair[0], pair[1])
		}
	}
	want := []string{
		"etc/ 755", "etc/passwd 644", "etc/ssl/ 755", "etc/ssl/certs/ 755", "etc/ssl/certs/ca-certificates.crt 644",
		"hallmark 755", "tmp/ 1777",
	}
	certificates, err := os.ReadFile(w.ca)
	if err != nil {
		t.Fatal(err)
	}
	files := rootFilesystem(t, image)
	if got := names(files); !slices.Equal(got, want) {
		t.Errorf("files:\n got %q\nwant %q", got, want)
	}
	if !bytes.Equal(files["hallmark 755"], program(elf.EM_X86_64, false)) {
		t.Error("the binary is not the one that was given")
	}
	if !bytes.Equal(files["etc/ssl/certs/ca-certificates.crt 644"], certificates) {
		t.Error("the certificates are not those that were given")
	}
	if !bytes.Contains(files["etc/passwd 644"], []byte("nonroot:x:65532:65532:")) {
		t.Errorf("/etc/passwd has no nonroot: %s", files["etc/passwd 644"])
	}
}

// rootFilesystem maps "name mode" to content.
func rootFilesystem(t *testing.T, image v1.Image) map[string][]byte {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, layer := range layers {
		archive, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		defer archive.Close()
		reader := tar.NewReader(archive)
		for {
			header, err := reader.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if header.Uid != 0 || header.Gid != 0 || header.ModTime.Unix() != 1767225600 {
				t.Errorf("%s: owner %d:%d, date %s", header.Name, header.Uid, header.Gid, header.ModTime)
			}
			key := fmt.Sprintf("%s %o", header.Name, header.Mode)
			if files[key], err = io.ReadAll(reader); err != nil {
				t.Fatal(err)
			}
		}
	}
	return files
}

func names(files map[string][]byte) (list []string) {
	for name := range files {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func TestIndex(t *testing.T) {
	w := newWorkshop(t)
	digest := w.build(t, "out", "-binary", w.arm64, "-binary", w.amd64)
	hash, err := v1.NewHash(digest)
	if err != nil {
		t.Fatal(err)
	}
	index, err := w.index(t, "out").ImageIndex(hash)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, descriptor := range manifest.Manifests {
		platforms = append(platforms, descriptor.Platform.String())
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(platforms, want) {
		t.Errorf("platforms:\n got %q\nwant %q", platforms, want)
	}
}

func TestMistakes(t *testing.T) {
	w := newWorkshop(t)
	put(t, w.dir, "precious", nil)
	for _, tc := range []struct {
		name, epoch string
		args        []string
		want        string
	}{
		{"no binary", epoch, []string{"-ca", w.ca}, "-binary is missing"},
		{"no certificates", epoch, []string{"-binary", w.amd64, "-ca", w.dir + "/none"}, "install the package ca-certificates"},
		{"not certificates", epoch, []string{"-binary", w.amd64, "-ca", w.amd64}, "holds no CA certificate"},
		{"not a program", epoch, []string{"-binary", w.ca, "-ca", w.ca}, "build it with GOOS=linux"},
		{"dynamic", epoch, []string{"-binary", put(t, w.dir, "dynamic", program(elf.EM_X86_64, true)), "-ca", w.ca}, "CGO_ENABLED=0"},
		{"other machine", epoch, []string{"-binary", put(t, w.dir, "s390", program(elf.EM_S390, false)), "-ca", w.ca}, "is for EM_S390"},
		{"twice the same", epoch, []string{"-binary", w.amd64, "-binary", w.amd64, "-ca", w.ca}, "two binaries are for amd64"},
		{"bad date", "yesterday", []string{"-binary", w.amd64, "-ca", w.ca}, `"yesterday" is not a number of seconds`},
		{"a directory of something else", epoch, []string{"-binary", w.amd64, "-ca", w.ca, "-out", w.dir}, "other than an OCI layout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("SOURCE_DATE_EPOCH", tc.epoch)
			args := append([]string{"-out", filepath.Join(w.dir, "out")}, tc.args...)
			err := run(t.Context(), args, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error:\n got %v\nwant %q in it", err, tc.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(w.dir, "precious")); err != nil {
		t.Error(err)
	}
}

// TestDockerfile holds that the Dockerfile makes the same image.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorkshop(t)
	b, err := readBinary(w.amd64)
	if err != nil {
		t.Fatal(err)
	}
	image, err := newImage(b, contents{version: "$VERSION", revision: "$REVISION"})
	if err != nil {
		t.Fatal(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"FROM scratch", "USER " + file.Config.User, fmt.Sprintf("ENTRYPOINT [%q]", file.Config.Entrypoint[0]),
		"WORKDIR " + file.Config.WorkingDir,
	}
	for name, value := range file.Config.Labels {
		want = append(want, fmt.Sprintf("%s=%q", name, value))
	}
	for port := range file.Config.ExposedPorts {
		want = append(want, strings.TrimSuffix(port, "/tcp"))
	}
	for line := range strings.Lines(passwd) {
		want = append(want, strings.TrimSpace(line))
	}
	for _, part := range want {
		if !strings.Contains(string(text), part) {
			t.Errorf("the Dockerfile has no %q", part)
		}
	}
}
