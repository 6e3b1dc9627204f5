package attack

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// allowDigests has images named by digest alone.
func allowDigests(text string) string {
	return strings.Replace(text, "  allow: [exact]\n", "  allow: [digest, exact]\n", 1)
}

// TestSignedPlatforms (SIG-037, SIG-039): which digest must be signed, when an index or one of its platforms is run.
func TestSignedPlatforms(t *testing.T) {
	const index, amd64, arm64 = "index", "amd64", "arm64"
	s := newAuthority(t)
	s.world = newWorld(t, registrytest.Config{Referrers: true}, func(text string) string {
		return allowDigests(s.trusting(text, trust{signatures: `  - {match: ["HOST/golden/exact/**"], anyOf: [ci]}
  - {match: ["HOST/golden/inherit/**"], anyOf: [ci], platforms: inherit}
  - {match: ["HOST/golden/each/**"], anyOf: [ci], platforms: each}
`}))
	})
	none := denied("containers[dev]: signature: not signed by ci (no signature found)")
	stranger := denied("not signed by ci (found: 1 signature by an unknown key)")
	// more adds to the index an image that nobody signed, and moves its tag.
	more := func(on subject) {
		_, err := on.Registry.PushIndex(on.t.Context(), on.repository, "v1.0.0", registrytest.Image{User: "1000"},
			registrytest.Image{User: "1000", Arch: arm64}, registrytest.Image{User: "1000", Arch: "s390x", Labels: map[string]string{"evil": "1"}})
		must(on.t, err)
	}
	number := 0
	for title, c := range map[string]struct {
		rule   string
		signed []string
		by     bool // by a stranger
		run    string
		tagged bool // the tag stands before the digest
		change func(on subject)
		want   want
	}{
		"the index, by its tag":                     {rule: "exact", signed: []string{index}, run: "tag", want: allowed()},
		"the index, by its digest":                  {rule: "exact", signed: []string{index}, run: index, want: allowed()},
		"the index, and a platform is run":          {rule: "exact", signed: []string{index}, run: amd64, want: none},
		"a platform, and it is run":                 {rule: "exact", signed: []string{amd64}, run: amd64, want: allowed()},
		"all platforms, and the index is run":       {rule: "exact", signed: []string{amd64, arm64}, run: "tag", want: none},
		"the index, before an image was added":      {rule: "exact", signed: []string{index}, run: "tag", change: more, want: none},
		"the index, its digest after one was added": {rule: "exact", signed: []string{index}, run: index, change: more, want: allowed()},
		"inherited":                                      {rule: "inherit", signed: []string{index}, run: amd64, tagged: true, want: allowed()},
		"inherited, without a tag":                       {rule: "inherit", signed: []string{index}, run: amd64, want: none},
		"inherited, itself signed":                       {rule: "inherit", signed: []string{amd64}, run: amd64, want: allowed()},
		"inherited from what nobody signed":              {rule: "inherit", signed: []string{arm64}, run: amd64, tagged: true, want: none},
		"inherited from what a stranger signed":          {rule: "inherit", signed: []string{amd64}, by: true, run: amd64, tagged: true, want: stranger},
		"inherited by the index, which does not":         {rule: "inherit", signed: []string{amd64, arm64}, run: "tag", want: none},
		"inherited, before an image was added":           {rule: "inherit", signed: []string{index}, run: amd64, tagged: true, change: more, want: none},
		"each platform":                                  {rule: "each", signed: []string{amd64, arm64}, run: "tag", want: allowed()},
		"each platform but one":                          {rule: "each", signed: []string{amd64}, run: "tag", want: none},
		"each platform, by a stranger":                   {rule: "each", signed: []string{amd64, arm64}, by: true, run: "tag", want: none},
		"each platform, and the index alone":             {rule: "each", signed: []string{index}, run: "tag", want: allowed()},
		"each platform, before one was added":            {rule: "each", signed: []string{amd64, arm64}, run: "tag", change: more, want: none},
		"each platform, and one is run with the index's": {rule: "each", signed: []string{index}, run: amd64, want: none},
	} {
		for _, layout := range []string{layers, bundles} {
			number++
			repository := fmt.Sprintf("golden/%s/ws%d", c.rule, number)
			t.Run(title+"/"+layout, func(t *testing.T) {
				on := subject{s, t, repository, "", layout}
				platforms := []registrytest.Image{{Repository: repository, User: "1000"}, {Repository: repository, User: "1000", Arch: arm64}}
				digests := map[string]string{}
				var err error
				for i, name := range []string{amd64, arm64} {
					digests[name], err = s.Registry.PushImage(t.Context(), platforms[i])
					must(t, err)
				}
				digests[index], err = s.Registry.PushIndex(t.Context(), repository, "v1.0.0", platforms...)
				must(t, err)
				by := s.Key
				if c.by {
					by = s.OtherKey
				}
				for _, name := range c.signed {
					on.digest = digests[name]
					on.sign(mark{by: registrytest.Signer{Key: by}})
				}
				if c.change != nil {
					c.change(on)
				}
				ref := s.Ref(repository)
				if c.run == "tag" || c.tagged {
					ref += ":v1.0.0"
				}
				if c.run != "tag" {
					ref += "@" + digests[c.run]
				}
				c.want.check(t, s.admit(t, s.pod(image(ref))))
			})
		}
	}
	s.sound(t)
}

// TestSignedOddities: a good signature by the right key makes nothing an image that can be read in two ways (SIG-040), that
// is of an old kind (SIG-042), that is not what the index says (SIG-043), or that is no image at all.
func TestSignedOddities(t *testing.T) {
	const (
		schema1      = "application/vnd.docker.distribution.manifest.v1+prettyjws"
		dockerImage  = "application/vnd.docker.distribution.manifest.v2+json"
		configOfOne  = `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG","size":2}`
		child        = `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"CHILD","size":SIZE,"platform":{"os":"OS","architecture":"amd64"}}`
		noManifests  = `"layers":[]`
		ambiguous    = "sent an ambiguous manifest"
		notSupported = "sent an unsupported manifest type"
	)
	var flips atomic.Int64
	s := newAuthority(t)
	s.world = newWorld(t, registrytest.Config{Referrers: true, Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v2/golden/flip") && strings.Contains(r.URL.Path, "/manifests/") {
				w = &flipping{w, []string{ociIndex, ociManifest}[flips.Add(1)%2]}
			}
			next.ServeHTTP(w, r)
		})
	}}, func(text string) string { return allowDigests(s.trusting(text, trust{signatures: signedAll})) })
	number := 0
	for title, c := range map[string]struct {
		mediaType, body, repository string
		os                          string // of the config; "" is linux
		want                        want
	}{
		"an index with a config (SIG-040)":        {mediaType: ociIndex, body: `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + child + `],` + configOfOne + "}", want: denied(ambiguous)},
		"an image with manifests (SIG-040)":       {mediaType: ociManifest, body: `{"schemaVersion":2,"manifests":[` + child + `],` + noManifests + "," + configOfOne + "}", want: denied(ambiguous)},
		"an index served as image (SIG-040)":      {mediaType: ociManifest, body: `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + child + `]}`, want: denied(ambiguous)},
		"two configs (SIG-040)":                   {mediaType: ociManifest, body: `{"schemaVersion":2,` + configOfOne + `,"layers":[],` + configOfOne + "}", want: denied("sent a")},
		"configs in two spellings (SIG-040)":      {mediaType: ociManifest, body: `{"schemaVersion":2,` + configOfOne + `,"layers":[],"Config":{}}`, want: denied("sent a")},
		"flipping types, ambiguous (SIG-040)":     {repository: "flip", mediaType: ociManifest, body: `{"schemaVersion":2,"manifests":[` + child + `],` + noManifests + "," + configOfOne + "}", want: denied(ambiguous)},
		"schema 1 (SIG-042)":                      {mediaType: schema1, body: `{"schemaVersion":1,"name":"golden/x","tag":"v1.0.0","fsLayers":[]}`, want: denied(notSupported)},
		"schema 1 as an image (SIG-042)":          {mediaType: ociManifest, body: `{"schemaVersion":1,"name":"golden/x","fsLayers":[]}`, want: denied(notSupported)},
		"an index of Windows for Linux (SIG-043)": {mediaType: ociIndex, os: "windows", body: `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + strings.Replace(child, "OS", "linux", 1) + `]}`, want: denied("sent an index that says linux/amd64 of an image for windows/amd64")},
		"Linux for Windows (SIG-043)":             {mediaType: ociIndex, body: `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + strings.Replace(child, "OS", "windows", 1) + `]}`, want: denied("sent an index that says windows/amd64 of an image for linux/amd64")},
		"a child of another type (SIG-040)":       {mediaType: ociIndex, body: `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + strings.NewReplacer("OS", "linux", ociManifest, dockerImage).Replace(child) + `]}`, want: denied(ambiguous)},
		"only what nothing runs":                  {mediaType: ociIndex, body: `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + strings.NewReplacer("OS", "unknown", "amd64", "unknown").Replace(child) + `]}`, want: denied("sent an index without any platform")},
		"an index that says what is true":         {mediaType: ociIndex, body: `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + strings.Replace(child, "OS", "linux", 1) + `]}`, want: allowed()},
	} {
		for _, layout := range []string{layers, bundles} {
			number++
			repository := fmt.Sprintf("golden/odd%s%d", c.repository, number)
			if c.repository != "" {
				repository = fmt.Sprintf("golden/%s%d", c.repository, number)
			}
			t.Run(title+"/"+layout, func(t *testing.T) {
				ctx := t.Context()
				digest, err := s.Registry.PushImage(ctx, registrytest.Image{Repository: repository, OS: c.os, User: "1000"})
				must(t, err)
				manifest, err := s.Registry.Manifest(ctx, repository, digest)
				must(t, err)
				body := strings.NewReplacer("CHILD", digest, "SIZE", fmt.Sprint(len(manifest.Body)),
					"CONFIG", configOf(t, s.Registry, repository, digest)).Replace(c.body)
				odd, err := s.Registry.PushManifest(ctx, repository, "v1.0.0", registrytest.Manifest{MediaType: c.mediaType, Body: []byte(body)})
				must(t, err)
				on := subject{s, t, repository, odd, layout}
				on.sign(mark{by: registrytest.Signer{Key: s.Key}})
				on.judge(c.want)
				c.want.check(t, s.admit(t, s.pod(image(s.Ref(repository)+"@"+odd))))
			})
		}
	}
	t.Run("artefacts as images", func(t *testing.T) {
		on := s.subject(t, "golden/artefact", bundles)
		on.sign(mark{by: registrytest.Signer{Key: s.Key}})
		bundle, err := s.Registry.AttachReferrer(t.Context(), on.repository, on.digest, registrytest.Referrer{
			ArtifactType: registrytest.BundleMediaType, MediaType: registrytest.BundleMediaType, Content: []byte("{}"),
		})
		must(t, err)
		on.layout = layers
		on.sign(mark{by: registrytest.Signer{Key: s.Key}})
		stored, err := s.Registry.Manifest(t.Context(), on.repository, registrytest.SignatureTag(on.digest))
		must(t, err)
		list, err := s.Registry.PushManifest(t.Context(), on.repository, "", stored)
		must(t, err)
		denied("tag: ").check(t, s.admit(t, s.pod(image(s.Ref(on.repository)+":"+registrytest.SignatureTag(on.digest)))))
		for _, digest := range []string{bundle, list} {
			artefact := subject{s, t, on.repository, digest, layers}
			denied("not signed by ci (no signature found)").check(t, s.admit(t, s.pod(image(s.Ref(on.repository)+"@"+digest))))
			artefact.sign(mark{by: registrytest.Signer{Key: s.Key}})
			denied("could not be checked").check(t, s.admit(t, s.pod(image(s.Ref(on.repository)+"@"+digest))))
		}
	})
	s.sound(t)
}

// A flipping answer says another type than the registry.
type flipping struct {
	http.ResponseWriter
	mediaType string
}

func (f *flipping) WriteHeader(status int) {
	if status == http.StatusOK {
		f.Header().Set("Content-Type", f.mediaType)
	}
	f.ResponseWriter.WriteHeader(status)
}
