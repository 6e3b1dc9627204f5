package signature

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

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

// FuzzBundle: whatever hangs on an image, it is a signature, an attestation or a reason, and nobody panics.
func FuzzBundle(f *testing.F) {
	b := binding{ref: webhook.Reference{Registry: "registry.corp.example:5000", Repository: "golden/base", Digest: "sha256:" + strings.Repeat("a", 64)}}
	payload := base64.StdEncoding.EncodeToString([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + strings.Repeat("a", 64) + `"}}],"predicateType":"` + signPredicate + `"}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":{"payload":"` + payload + `","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{"rawBytes":"AA=="},"tlogEntries":[{"logIndex":"1"}]},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"AA=="},"signature":"AA=="}}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle+json;version=0.1","verificationMaterial":{"x509CertificateChain":{"certificates":[{}]},"tlogEntries":[null],"timestampVerificationData":{"rfc3161Timestamps":[null]}},"dsseEnvelope":{"signatures":[null]}}`))
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	loadedKey, err := newKey(k.Public())
	if err != nil {
		f.Fatal(err)
	}
	byKey := &signer{name: "k", key: loaded[*key]{loadedKey}, log: Ignored, timestamp: Ignored}
	f.Fuzz(func(t *testing.T, body []byte) {
		x, why := signatureBundle(body, b)
		if (x == nil) == (why == "") {
			t.Fatalf("got %v and %q", x, why)
		}
		if x == nil {
			return
		}
		got, why, err := byKey.hold(t.Context(), x, time.Time{})
		if err != nil || why == "" {
			t.Errorf("it counts: %+v, %v", got, err) // nobody has the key
		}
	})
}

// FuzzProofs: annotations beside a signature, which anybody may write.
func FuzzProofs(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", `{"SignedEntryTimestamp":"AA==","Payload":{"body":"eyJraW5kIjoiaGFzaGVkcmVrb3JkIn0=","integratedTime":1,"logIndex":1,"logID":"aa"}}`, `{"SignedRFC3161Timestamp":"AA=="}`)
	f.Add("", `{"SignedEntryTimestamp":"AA==","Payload":{"body":"e30=","integratedTime":-1,"logIndex":9223372036854775807,"logID":""}}`, `{}`)
	f.Fuzz(func(t *testing.T, certificate, log, timestamp string) {
		var e *entity
		err := guarded(func() (err error) {
			e, err = newEntity(proofs{certificate, log, timestamp}, messageContent([]byte("{}"), "AA=="))
			return err
		})
		if err == nil && (e.content == nil || (e.certificate == nil) != (certificate == "") || (e.entry == nil) != (log == "")) {
			t.Errorf("got %+v of %q %q %q", e, certificate, log, timestamp)
		}
	})
}
