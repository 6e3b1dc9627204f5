package registrytest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// A client that asks for the referrers finds them in the order of pushing, as their manifests describe themselves.
func TestReferrers(t *testing.T) {
	for how, config := range map[string]registrytest.Config{
		"API": {PlainHTTP: true, Referrers: true}, "list": {PlainHTTP: true},
	} {
		t.Run(how, func(t *testing.T) {
			s := newStage(t, config)
			path := "/v2/golden/base/referrers/" + s.digest
			if !config.Referrers {
				if status, _ := s.get(path); status != http.StatusNotFound {
					t.Fatalf("the API answers %d, want 404", status)
				}
				path = "/v2/golden/base/manifests/" + registrytest.ReferrersTag(s.digest)
			}
			referrers := []registrytest.Referrer{
				{ArtifactType: "a/b", MediaType: "c/d", Content: []byte("one"), Annotations: map[string]string{"x": "y"}},
				{ConfigType: "e/f", MediaType: "c/d", Content: []byte("two")},
				{ArtifactType: "g/h", MediaType: "c/d", Content: []byte("three")},
			}
			var want []v1.Descriptor
			for _, referrer := range slices.Concat(referrers, referrers[:1]) {
				digest, err := s.registry.AttachReferrer(t.Context(), "golden/base", s.digest, referrer)
				s.must(err)
				manifest, err := s.registry.Manifest(t.Context(), "golden/base", digest)
				s.must(err)
				hash, err := v1.NewHash(digest)
				s.must(err)
				artifactType := referrer.ArtifactType + referrer.ConfigType
				want = append(want, v1.Descriptor{
					MediaType: types.OCIManifestSchema1, Size: int64(len(manifest.Body)), Digest: hash,
					ArtifactType: artifactType, Annotations: referrer.Annotations,
				})
			}
			// The last is the first once more.
			if got := s.index(path); !cmp.Equal(got.Manifests, want[:3]) {
				t.Error(cmp.Diff(got.Manifests, want[:3]))
			}
			if !config.Referrers {
				return
			}
			if got := s.index(path + "?artifactType=e/f"); !cmp.Equal(got.Manifests, want[1:2]) {
				t.Error(cmp.Diff(got.Manifests, want[1:2]))
			}
			s.must(s.registry.Delete(t.Context(), "golden/base", want[1].Digest.String()))
			if got := s.index(path); !cmp.Equal(got.Manifests, []v1.Descriptor{want[0], want[2]}) {
				t.Errorf("after one was deleted there are %v", got.Manifests)
			}
		})
	}
}

// Nothing is found where nothing is, and what is not a digest is no question.
func TestReferrersOfNothing(t *testing.T) {
	s := newStage(t, registrytest.Config{PlainHTTP: true, Referrers: true})
	_, err := s.registry.AttachReferrer(t.Context(), "golden/base", s.digest, registrytest.Referrer{MediaType: "a/b"})
	s.must(err)
	for _, path := range []string{
		"/v2/golden/base/referrers/sha256:" + strings.Repeat("a", 64), "/v2/golden/other/referrers/" + s.digest,
	} {
		if got := s.index(path); len(got.Manifests) != 0 {
			t.Errorf("%s: got %v", path, got.Manifests)
		}
	}
	if status, _ := s.get("/v2/golden/base/referrers/v1"); status != http.StatusBadRequest {
		t.Errorf("a tag is answered with %d", status)
	}
}

// The manifest of a bundle is that of cosign, and what is said about it can be changed or left out.
func TestBundleManifest(t *testing.T) {
	s := newStage(t, registrytest.Config{PlainHTTP: true, Referrers: true})
	key, _, err := registrytest.NewKey()
	s.must(err)
	opts := registrytest.BundleOptions{
		Signer: registrytest.Signer{Key: key}, Witness: registrytest.Witness{At: signedAt()},
		Mutate: func([]byte) []byte { return []byte("{}{}") },
	}
	s.must(s.registry.SignBundle(t.Context(), "golden/base", s.digest, opts))
	opts.ArtifactType, opts.MediaType = "a/b", "c/d"
	opts.Annotations = map[string]string{
		registrytest.BundlePredicateAnnotation: "https://example.com", registrytest.CreatedAnnotation: "",
	}
	s.must(s.registry.SignBundle(t.Context(), "golden/base", s.digest, opts))

	listed := s.index("/v2/golden/base/referrers/" + s.digest).Manifests
	if len(listed) != 2 {
		t.Fatalf("got %v", listed)
	}
	image, err := s.registry.Manifest(t.Context(), "golden/base", s.digest)
	s.must(err)
	content := []byte("{}{}")
	blob, size, err := v1.SHA256(bytes.NewReader(content))
	s.must(err)
	empty, _, err := v1.SHA256(strings.NewReader("{}"))
	s.must(err)
	subject, err := v1.NewHash(s.digest)
	s.must(err)
	want := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: registrytest.BundleMediaType,
		Config: v1.Descriptor{
			MediaType: "application/vnd.oci.empty.v1+json", Size: 2, Digest: empty, ArtifactType: registrytest.BundleMediaType,
		},
		Layers:  []v1.Descriptor{{MediaType: registrytest.BundleMediaType, Size: size, Digest: blob}},
		Subject: &v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: int64(len(image.Body)), Digest: subject},
		Annotations: map[string]string{
			"dev.sigstore.bundle.content":       "dsse-envelope",
			"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
			"org.opencontainers.image.created":  "2024-05-01T12:00:00Z",
		},
	}
	for i, listing := range listed {
		if i == 1 {
			want.ArtifactType, want.Config.ArtifactType, want.Layers[0].MediaType = "a/b", "a/b", "c/d"
			want.Annotations = maps.Clone(want.Annotations)
			want.Annotations["dev.sigstore.bundle.predicateType"] = "https://example.com"
			delete(want.Annotations, "org.opencontainers.image.created")
		}
		stored, err := s.registry.Manifest(t.Context(), "golden/base", listing.Digest.String())
		s.must(err)
		got, err := v1.ParseManifest(bytes.NewReader(stored.Body))
		s.must(err)
		if !cmp.Equal(*got, want) {
			t.Error(cmp.Diff(*got, want))
		}
		if listing.ArtifactType != want.ArtifactType || !maps.Equal(listing.Annotations, want.Annotations) {
			t.Errorf("listed as %+v", listing)
		}
	}
}

func (s *stage) get(path string) (status int, body []byte) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.registry.Host()+path, nil)
	s.must(err)
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	s.must(err)
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	s.must(err)
	if response.StatusCode == http.StatusOK && response.Header.Get("Content-Type") != string(types.OCIImageIndex) {
		s.t.Errorf("%s has the type %s", path, response.Header.Get("Content-Type"))
	}
	return response.StatusCode, body
}

func (s *stage) index(path string) (index v1.IndexManifest) {
	s.t.Helper()
	status, body := s.get(path)
	if status != http.StatusOK {
		s.t.Fatalf("%s: %d %s", path, status, body)
	}
	s.must(json.Unmarshal(body, &index))
	return index
}
