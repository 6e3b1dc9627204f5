package distribution

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/bcrypt"
)

// registry is CNCF's, running.
type registry struct {
	*process
	t       *testing.T
	host    string
	caFile  string
	options []remote.Option // of who pushes to it
}

const user, password = "robot", "hunter2-s3cret"

// startRegistry runs one with its storage, and with a password when locked.
func startRegistry(t *testing.T, storage string, locked bool) *registry {
	t.Helper()
	dir := t.TempDir()
	cert, key, certPEM := certificate(t, dir)
	config := map[string]any{
		"version": "0.1", "log": map[string]any{"level": "info"},
		"storage": map[string]any{storage: map[string]any{}, "delete": map[string]any{"enabled": true}},
		"http":    map[string]any{"addr": "127.0.0.1:0", "secret": "s", "tls": map[string]any{"certificate": cert, "key": key}},
	}
	if storage == "filesystem" {
		config["storage"].(map[string]any)[storage] = map[string]any{"rootdirectory": t.TempDir()}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	r := &registry{t: t, caFile: cert, options: []remote.Option{remote.WithTransport(transport)}}
	if locked {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		file := write(t, dir, "htpasswd", []byte(user+":"+string(hash)+"\n"))
		config["auth"] = map[string]any{"htpasswd": map[string]any{"realm": "registry", "path": file}}
		r.options = append(r.options, remote.WithAuth(&authn.Basic{Username: user, Password: password}))
	}
	text, err := json.Marshal(config) // which is YAML
	if err != nil {
		t.Fatal(err)
	}
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+), tls`)
	r.process = start(t, exec.Command(programs.registry, "serve", write(t, dir, "config.yml", text)), func(line []byte) bool {
		match := listening.FindSubmatch(line)
		if match != nil {
			r.host = string(match[1])
		}
		return match != nil
	})
	t.Cleanup(transport.CloseIdleConnections)
	return r
}

func (r *registry) reference(image string) name.Reference {
	r.t.Helper()
	ref, err := name.ParseReference(r.host + "/" + image)
	if err != nil {
		r.t.Fatal(err)
	}
	return ref
}

// image makes one that runs as a user on an architecture.
func image(t *testing.T, as, architecture string, mediaType types.MediaType) v1.Image {
	t.Helper()
	config, layer := types.OCIConfigJSON, types.OCIUncompressedLayer
	if mediaType == types.DockerManifestSchema2 {
		config, layer = types.DockerConfigJSON, types.DockerUncompressedLayer
	}
	built, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, mediaType), config),
		static.NewLayer([]byte("content for "+architecture+" as "+as), layer))
	if err != nil {
		t.Fatal(err)
	}
	file, err := built.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config.User = "linux", architecture, as
	if built, err = mutate.ConfigFile(built, file); err != nil {
		t.Fatal(err)
	}
	return built
}

// push stores an image over the network and gives its digest.
func (r *registry) push(to string, image v1.Image) string {
	r.t.Helper()
	if err := remote.Write(r.reference(to), image, r.options...); err != nil {
		r.t.Fatal(err)
	}
	return r.digest(image)
}

// pushIndex stores an index of images for amd64 and arm64, which run as these users.
func (r *registry) pushIndex(to string, users ...string) string {
	r.t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, as := range users {
		architecture := []string{"amd64", "arm64"}[i]
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image(r.t, as, architecture, types.OCIManifestSchema1),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	if err := remote.WriteIndex(r.reference(to), index, r.options...); err != nil {
		r.t.Fatal(err)
	}
	return r.digest(index)
}

func (r *registry) digest(of interface{ Digest() (v1.Hash, error) }) string {
	r.t.Helper()
	digest, err := of.Digest()
	if err != nil {
		r.t.Fatal(err)
	}
	return digest.String()
}

// sign stores a signature as cosign v2 does, for the name by which the registry is known as host.
func (r *registry) sign(host, repository, digest string, key *ecdsa.PrivateKey) {
	r.t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`,
		host+"/"+repository, digest)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		r.t.Fatal(err)
	}
	tag := repository + ":" + strings.Replace(digest, ":", "-", 1) + ".sig"
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if there, err := remote.Image(r.reference(tag), r.options...); err == nil {
		base = there
	}
	signed, err := mutate.Append(base, mutate.Addendum{
		Layer:       static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.push(tag, signed)
}
