package registry_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

func TestManifestAndBlob(t *testing.T) {
	r := serve(t, registrytest.Config{})
	client := connect(t, r, nil)
	digest := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	blob, err := r.PushBlob(t.Context(), "golden/base", []byte(strings.Repeat("x", 100)))
	if err != nil {
		t.Fatal(err)
	}
	ref := parse(t, r.Host()+"/golden/base:v1")
	manifest, err := client.Manifest(t.Context(), ref, 0)
	if err != nil || manifest.Digest != digest || manifest.MediaType != ociManifest || len(manifest.Body) == 0 {
		t.Errorf("got %s %s %d bytes, %v", manifest.Digest, manifest.MediaType, len(manifest.Body), err)
	}
	size := int64(len(manifest.Body))
	if _, err := client.Manifest(t.Context(), ref, size); err != nil {
		t.Errorf("exactly the limit: %v", err)
	}
	_, err = client.Manifest(t.Context(), ref, size-1)
	wantReadError(t, err, webhook.Invalid, r.Host(), fmt.Sprintf("sent a manifest larger than %d bytes", size-1))
	for limit, want := range map[int64]string{0: "", 100: "", 1 << 62: "", 99: "sent a blob larger than 99 bytes"} {
		body, err := client.Blob(t.Context(), ref, blob, limit)
		if want != "" {
			wantReadError(t, err, webhook.Invalid, r.Host(), want)
		} else if err != nil || len(body) != 100 {
			t.Errorf("limit %d: got %d bytes, %v", limit, len(body), err)
		}
	}
	_, err = client.Blob(t.Context(), ref, "sha256:"+strings.Repeat("c", 64), 0)
	wantReadError(t, err, webhook.NotFound, r.Host(), "has no sha256:cccccccccccc of golden/base")
}

// pushIndexOf makes an index of any descriptors.
func pushIndexOf(t *testing.T, r *registrytest.Registry, descriptors ...map[string]any) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": descriptors})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.PushManifest(t.Context(), "golden/base", "v1", registrytest.Manifest{MediaType: ociIndex, Body: body}); err != nil {
		t.Fatal(err)
	}
}

func TestChildren(t *testing.T) {
	r := serve(t, registrytest.Config{})
	client := connect(t, r, nil)
	image := push(t, r, registrytest.Image{Repository: "golden/base"})
	unknown := push(t, r, registrytest.Image{Repository: "golden/base", OS: "unknown", Arch: "unknown"})
	silent := pushWithoutPlatform(t, r)
	inner, err := r.PushIndex(t.Context(), "golden/base", "", registrytest.Image{})
	if err != nil {
		t.Fatal(err)
	}
	linux := map[string]any{"os": "linux", "architecture": "riscv64", "variant": "v1"}
	tests := []struct {
		name     string
		children []map[string]any
		want     []string
		reason   string
	}{
		{"the config alone says", []map[string]any{{"mediaType": ociManifest, "digest": image}}, []string{"linux/amd64"}, ""},
		{"the index alone says", []map[string]any{{"mediaType": ociManifest, "digest": silent, "platform": linux}}, []string{"linux/riscv64/v1"}, ""},
		{"nobody says", []map[string]any{{"digest": silent}}, []string{"/"}, ""},
		{"unknown by its config", []map[string]any{{"digest": unknown}, {"digest": image}}, []string{"linux/amd64"}, ""},
		{"only unknown by its config", []map[string]any{{"digest": unknown}}, nil, "sent an index without any platform"},
		{"unknown and declared", []map[string]any{{"digest": unknown, "platform": linux}}, nil, "sent an index that says linux/riscv64 of an image for unknown/unknown"},
		{"an index in disguise", []map[string]any{{"mediaType": ociManifest, "digest": inner}}, nil, "sent an index inside an index"},
		{"of another type", []map[string]any{{"mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": image}}, nil, "ambiguous manifest"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pushIndexOf(t, r, test.children...)
			got, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			wantPlatforms(t, got, test.want, err, r.Host(), test.reason)
		})
	}
}

// pushWithoutPlatform stores an image whose config says nothing at all.
func pushWithoutPlatform(t *testing.T, r *registrytest.Registry) (digest string) {
	t.Helper()
	pushConfig(t, r, `{"created":"yesterday"}`, 0)
	manifest, err := r.Manifest(t.Context(), "golden/base", "v1")
	if err != nil {
		t.Fatal(err)
	}
	if digest, err = r.PushManifest(t.Context(), "golden/base", "", manifest); err != nil {
		t.Fatal(err)
	}
	return digest
}

// What a registry depends on is named when that fails.
func TestTokenHostIsDown(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := listener.Addr().String()
	_ = listener.Close()
	r := serve(t, registrytest.Config{Intercept: tokenServer(func(*http.Request) string { return "https://" + down + "/token?s3cr3t" }, nil)})
	client := connect(t, r, func(c *registry.Config) { c.Hosts[0].TokenHosts = []string{down} })
	_, err = client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.DigestOnly)
	wantReadError(t, err, webhook.Unavailable, r.Host(), fmt.Sprintf("depends on %q, which refused the connection", down))
	wantNoSecret(t, err)
}

func TestNothingToAskFor(t *testing.T) {
	r := serve(t, registrytest.Config{})
	client := connect(t, r, nil)
	ref := parse(t, r.Host()+"/golden/base")
	_, err := client.ReadImage(t.Context(), ref, webhook.DigestOnly)
	wantReadError(t, err, webhook.Invalid, r.Host(), "without a tag or a digest")
	for _, forged := range []webhook.Reference{
		{Registry: r.Host(), Repository: "golden/../evil", Tag: "v1"},
		{Registry: r.Host(), Repository: "golden/base", Tag: "v1?x=y"},
		{Registry: r.Host(), Repository: "golden/base", Digest: "sha256:../../x"},
	} {
		_, err := client.ReadImage(t.Context(), forged, webhook.DigestOnly)
		wantReadError(t, err, webhook.Invalid, r.Host(), "not canonical")
	}
	_, err = client.Blob(t.Context(), parse(t, r.Host()+"/golden/base:v1"), "sha256:../x", 0)
	wantReadError(t, err, webhook.Invalid, r.Host(), "digest is not sha256:")
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
}
