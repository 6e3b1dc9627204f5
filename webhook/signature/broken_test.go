package signature_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const ociManifest = "application/vnd.oci.image.manifest.v1+json"

// What is wrong with the signature manifest as a whole is an error: nobody knows then whether the image is signed.
func TestUnreadableManifest(t *testing.T) {
	for status, want := range map[int]struct {
		failure webhook.ReadFailure
		reason  string
	}{
		401: {webhook.Unauthorized, "refused access to golden/base (401)"},
		403: {webhook.Unauthorized, "refused access to golden/base (403)"},
		429: {webhook.Unavailable, "is limiting requests (429)"},
		503: {webhook.Unavailable, "answered 503"},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			on := true
			w := newWorld(t, intercept(".sig", &on, status))
			w.sign(w.ci, registrytest.SignOptions{})
			_, err := w.verify()
			w.wantReadError(err, want.failure, want.reason)
		})
	}
	config := `"config":{"mediaType":"x","digest":"sha256:` + strings.Repeat("a", 64) + `","size":2}`
	for name, test := range map[string]struct{ mediaType, body, reason string }{
		"not JSON":          {ociManifest, "signed", "is not valid JSON"},
		"ambiguous":         {ociManifest, "{" + config + `,"layers":[],"manifests":[]}`, "ambiguous manifest"},
		"layers no array":   {ociManifest, "{" + config + `,"layers":{}}`, "a layer that is not valid JSON"},
		"an index":          {"application/vnd.oci.image.index.v1+json", `{"manifests":[]}`, "sent an index without any platform"},
		"endless":           {ociManifest, "{" + config + `,"x":"` + strings.Repeat("x", 5<<20) + `"}`, "sent a manifest larger than 4 MiB"},
		"100,000 junk ones": {ociManifest, "{" + config + `,"layers":[` + strings.Repeat("{},", 9_999) + "{}]}", "has more than 100 signatures"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			_, err := w.registry.PushManifest(t.Context(), "golden/base", registrytest.SignatureTag(w.digest),
				registrytest.Manifest{MediaType: test.mediaType, Body: []byte(test.body)})
			w.must(err)
			_, err = w.verify()
			w.wantReadError(err, webhook.Invalid, test.reason)
		})
	}
	t.Run("an index of images", func(t *testing.T) {
		w := newWorld(t, nil)
		_, err := w.registry.PushIndex(t.Context(), "golden/base", registrytest.SignatureTag(w.digest), registrytest.Image{})
		w.must(err)
		_, err = w.verify()
		w.wantReadError(err, webhook.Invalid, "has something other than signatures for golden/base@sha256:")
	})
}

// What is wrong with one layer hides no other one.
func TestBrokenLayers(t *testing.T) {
	good := base64.StdEncoding.EncodeToString([]byte("x"))
	tests := []struct {
		name     string
		layer    registrytest.Signature
		rejected string
	}{
		{"no annotation", registrytest.Signature{Payload: []byte("p")}, "1 signature in no valid form"},
		{"not base64", registrytest.Signature{Payload: []byte("p"), Base64: "!"}, "1 signature in no valid form"},
		{"base64 with line ends", registrytest.Signature{Payload: []byte("p"), Base64: good + "\n"}, "1 signature in no valid form"},
		{"a huge signature", registrytest.Signature{Payload: []byte("p"), Base64: strings.Repeat("AAAA", 1<<14)}, "1 signature in no valid form"},
		{"another type", registrytest.Signature{Payload: []byte("p"), Base64: good, MediaType: "text/plain"}, "1 signature of another kind than cosign's"},
		{"a huge payload", registrytest.Signature{Payload: []byte(strings.Repeat("x", 8<<20)), Base64: good}, "1 signature too large to be read"},
		{"an empty payload", registrytest.Signature{Base64: good}, "1 signature by an unknown key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.attach(test.layer)
			got, err := w.verify()
			w.want(got, err, nil, 1, test.rejected)
			w.sign(w.ci, registrytest.SignOptions{})
			got, err = w.verify("devex-ci", "release")
			w.want(got, err, []string{"devex-ci"}, 2, test.rejected)
		})
	}
}

func TestLayersByHand(t *testing.T) {
	w := newWorld(t, nil)
	w.sign(w.ci, registrytest.SignOptions{})
	signed, err := w.registry.Manifest(t.Context(), "golden/base", registrytest.SignatureTag(w.digest))
	w.must(err)
	for name, layer := range map[string]string{
		"null": `null`, "a number": `1`, "empty": `{}`, "annotations no object": `{"annotations":1}`,
		"annotation a number": `{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"sha256:` + strings.Repeat("a", 64) + `","size":1,"annotations":{"dev.cosignproject.cosign/signature":1}}`,
		"digest that climbs":  `{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"../../x","size":1,"annotations":{"dev.cosignproject.cosign/signature":"AA=="}}`,
		"negative size":       `{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"sha256:` + strings.Repeat("a", 64) + `","size":-1,"annotations":{"dev.cosignproject.cosign/signature":"AA=="}}`,
	} {
		t.Run(name, func(t *testing.T) {
			body := strings.Replace(string(signed.Body), `"layers":[`, `"layers":[`+layer+",", 1)
			manifest := webhook.Manifest{Digest: "sha256:x", MediaType: ociManifest, Body: []byte(body)}
			w := *w
			w.t, w.config.Fetch = t, fixedManifest{w.config.Fetch, manifest}
			got, err := w.verify("devex-ci", "release")
			w.want(got, err, []string{"devex-ci"}, 2, "1 signature in no valid form")
		})
	}
}

func TestPayloads(t *testing.T) {
	t.Run("missing", func(t *testing.T) {
		w := newWorld(t, nil)
		w.attach(registrytest.Signature{Payload: []byte("gone"), Base64: "AA=="})
		w.must(w.registry.DeleteBlob(t.Context(), "golden/base", w.payloadDigest(0)))
		got, err := w.verify()
		w.want(got, err, nil, 1, "1 signature without its payload")
		w.sign(w.ci, registrytest.SignOptions{})
		got, err = w.verify()
		w.want(got, err, []string{"devex-ci"}, 2)
	})
	t.Run("another content", func(t *testing.T) {
		on := true
		w := newWorld(t, intercept("/blobs/", &on, 200))
		w.sign(w.ci, registrytest.SignOptions{})
		got, err := w.verify()
		w.want(got, err, nil, 1, "1 signature with a broken payload")
	})
	t.Run("larger than it says", func(t *testing.T) {
		w := newWorld(t, nil)
		w.sign(w.ci, registrytest.SignOptions{Payload: []byte(strings.Repeat("x", 50<<10))})
		manifest, err := w.registry.Manifest(t.Context(), "golden/base", registrytest.SignatureTag(w.digest))
		w.must(err)
		manifest.Body = []byte(strings.Replace(string(manifest.Body), `"size":51200`, `"size":1`, 1))
		_, err = w.registry.PushManifest(t.Context(), "golden/base", registrytest.SignatureTag(w.digest), manifest)
		w.must(err)
		got, err := w.verify()
		w.want(got, err, nil, 1, "1 signature with a broken payload")
	})
}

// An image is not called unsigned when a signature could not be looked at; one that was found counts all the same.
func TestUnavailablePayload(t *testing.T) {
	for status, want := range map[int]struct {
		failure webhook.ReadFailure
		reason  string
	}{
		503: {webhook.Unavailable, "answered 503"},
		429: {webhook.Unavailable, "is limiting requests (429)"},
		403: {webhook.Unauthorized, "refused access to golden/base (403)"},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			var failing string
			on := false
			w := newWorld(t, intercept("/blobs/", &on, status))
			w.attach(garbage(1)...)
			w.sign(w.ci, registrytest.SignOptions{})
			on = true
			_, err := w.verify()
			w.wantReadError(err, want.failure, want.reason)

			w = newWorld(t, failBlob(&failing, status))
			w.attach(garbage(1)...)
			w.sign(w.ci, registrytest.SignOptions{})
			failing = w.payloadDigest(0)
			got, err := w.verify("devex-ci")
			w.want(got, err, []string{"devex-ci"}, 2)
			// The one that could not be read might be by release.
			_, err = w.verify("devex-ci", "release")
			w.wantReadError(err, want.failure, want.reason)
		})
	}
}
