package registrytest_test

import (
	"bytes"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/cosign/v2/pkg/oci/static"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// What cosign reads out of the annotations of a layer and writes again are the same annotations, byte for byte.
func TestLayersAreThoseOfCosign(t *testing.T) {
	for what, tag := range map[string]func(string) string{
		"signature": registrytest.SignatureTag, "attestation": registrytest.AttestationTag,
	} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t, registrytest.Config{})
			witness := registrytest.Witness{Timestamp: s.sigstore}
			s.must(s.registry.SignKeyless(t.Context(), "golden/base", s.digest, s.sigstore, registrytest.KeylessOptions{
				Certificate: ci(), SignOptions: registrytest.SignOptions{Witness: witness},
			}))
			s.must(s.registry.Attest(t.Context(), "golden/base", s.digest, registrytest.AttestOptions{
				Signer: registrytest.Signer{Keyless: s.sigstore, Certificate: ci()}, Witness: witness,
			}))
			ref, err := name.ParseReference(s.registry.Host() + "/golden/base:" + tag(s.digest))
			s.must(err)
			stored, err := ociremote.Signatures(ref, ociremote.WithRemoteOptions(options(t, s.registry)...))
			s.must(err)
			layers, err := stored.Get()
			s.must(err)
			if len(layers) != 1 {
				t.Fatalf("got %d layers", len(layers))
			}
			got, err := layers[0].Annotations()
			s.must(err)
			written, err := static.Copy(layers[0])
			s.must(err)
			want, err := written.Annotations()
			s.must(err)
			if _, there := got[registrytest.TimestampAnnotation]; !there || !maps.Equal(got, want) {
				t.Error(cmp.Diff(got, want))
			}
		})
	}
}

// A bundle that cosign pushes is stored as one that SignBundle stores, and is found in the same way.
func TestBundlesAreThoseOfCosign(t *testing.T) {
	for how, api := range map[string]bool{"API": true, "list": false} {
		t.Run(how, func(t *testing.T) {
			s := newStage(t, registrytest.Config{PlainHTTP: true, Referrers: api})
			var bundle []byte
			opts := registrytest.BundleOptions{
				Signer: registrytest.Signer{Keyless: s.sigstore, Certificate: ci()},
				Mutate: func(b []byte) []byte { bundle = b; return b },
			}
			s.must(s.registry.SignBundle(t.Context(), "golden/base", s.digest, opts))
			ref, err := name.NewDigest(s.registry.Host() + "/golden/base@" + s.digest)
			s.must(err)
			s.must(ociremote.WriteAttestationNewBundleFormat(ref, bundle, registrytest.SignPredicate,
				ociremote.WithRemoteOptions(options(t, s.registry)...)))

			path := "/v2/golden/base/referrers/" + s.digest
			if !api {
				path = "/v2/golden/base/manifests/" + registrytest.ReferrersTag(s.digest)
			}
			listed := s.index(path).Manifests
			if len(listed) != 2 {
				t.Fatalf("got %v", listed)
			}
			var manifests [2]*v1.Manifest
			for i, listing := range listed {
				stored, err := s.registry.Manifest(t.Context(), "golden/base", listing.Digest.String())
				s.must(err)
				manifests[i], err = v1.ParseManifest(bytes.NewReader(stored.Body))
				s.must(err)
				delete(manifests[i].Annotations, registrytest.CreatedAnnotation) // cosign writes the present
			}
			if !cmp.Equal(manifests[0], manifests[1]) {
				t.Error(cmp.Diff(manifests[0], manifests[1]))
			}
		})
	}
}
