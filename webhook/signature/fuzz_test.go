package signature

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
)

func FuzzParseManifest(f *testing.F) {
	layer := `{"mediaType":"` + simpleSigning + `","digest":"sha256:` + strings.Repeat("a", 64) + `","size":2,"annotations":{"` + signatureAnnotation + `":"AA==","dev.sigstore.cosign/bundle":"{"}}`
	f.Add([]byte(`{"layers":[` + layer + "," + layer + `]}`))
	f.Add([]byte(`{"layers":[null,1,{"annotations":{}}],"layers":[]}`))
	f.Add([]byte(`{"layers":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		attached, err := parseManifest(webhook.Manifest{MediaType: ociManifest, Body: body}, signatureLayers, 10)
		if err != nil {
			return
		}
		if len(attached) > 10 {
			t.Fatalf("%d layers", len(attached))
		}
		for _, a := range attached {
			if a.broken != "" {
				continue
			}
			if _, err := base64.StdEncoding.DecodeString(a.base64); err != nil || !isDigest(a.payload) || a.size < 0 {
				t.Errorf("got %+v, %v", a, err)
			}
		}
	})
}

func FuzzCheckClaim(f *testing.F) {
	ref := webhook.Reference{Registry: "registry.corp.example:5000", Repository: "golden/base", Digest: "sha256:" + strings.Repeat("a", 64)}
	f.Add([]byte(`{"critical":{"identity":{"docker-reference":"registry.corp.example:5000/golden/base"},"image":{"docker-manifest-digest":"` + ref.Digest + `"},"type":"cosign container image signature"},"optional":null}`))
	f.Add([]byte(`{"critical":{"identity":null},"Critical":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		why := checkClaim(body, binding{ref: ref})
		if strings.ContainsAny(string(why), "\r\n\x00\x1b") || len(why) > 1000 {
			t.Errorf("unfit for a message: %q", why)
		}
		if why != "" {
			return
		}
		// What was accepted says so member by member.
		var says struct{ Critical map[string]any }
		if err := json.Unmarshal(body, &says); err != nil {
			return // cosign reads it like this, and refuses it
		}
		identity, _ := says.Critical["identity"].(map[string]any)
		name, _ := identity["docker-reference"].(string)
		signed, err := webhook.ParseReference(name)
		if err != nil || signed.Name() != ref.Name() || says.Critical["type"] != "cosign container image signature" {
			t.Errorf("accepted %s", body)
		}
	})
}
