package attack

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// malformed are documents that no parser may take for what they are meant to be, nor stumble over. HEAD is how a good one
// of the kind begins, without the closing brace.
func malformed() map[string]string {
	nest := strings.Repeat
	return map[string]string{
		"empty": "", "null": "null", "a number": "1", "a string": `"x"`, "an array": "[]", "cut off": "HEAD", "cut off in a string": `HEAD,"x":"y`,
		"two documents": "HEAD} {}", "a trailing comma": "HEAD,}", "a comment": "HEAD/**/}", "a mark of byte order": "\ufeffHEAD}",
		"UTF-16": "\xff\xfe{\x00}\x00", "NUL": "HEAD}\x00", "invalid UTF-8 in a name": "HEAD,\"\xff\xfe\":1}", "invalid UTF-8 in a value": "HEAD,\"x\":\"\xc3\x28\"}",
		"half a surrogate": `HEAD,"x":"\ud800"}`, "deep arrays": `HEAD,"x":` + nest("[", 1_000_000), "deep objects": `HEAD,"x":` + nest(`{"x":`, 500_000),
		"a deep and whole one": `HEAD,"x":` + nest("[", 100_000) + nest("]", 100_000) + "}", "a huge number": `HEAD,"x":` + nest("9", 1_000_000) + "e",
		"a number beyond all": `HEAD,"schemaVersion":1e999999999}`, "an integer beyond all": `HEAD,"schemaVersion":` + nest("9", 100_000) + "}",
		"a name twice": `HEAD,"schemaVersion":2,"schemaVersion":2}`, "bad escapes": `HEAD,"x":"\x"}`, "a control character": "HEAD,\"x\":\"\n\"}",
		"a million names": `HEAD` + manyNames(100_000) + "}x", "HTML": "<html><script>alert(1)</script>", "gzip": "\x1f\x8b\x08\x00\x00\x00\x00\x00",
	}
}

func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"n%d":0`, i)
	}
	return b.String()
}

// TestMalformedJSON: in every place where a registry sends JSON. Nothing panics, nothing takes long, nothing is admitted.
func TestMalformedJSON(t *testing.T) {
	documents := malformed()
	names := map[string]string{} // repository by title
	tokens := map[string]string{}
	for title := range documents {
		names[title] = "golden/" + strings.ReplaceAll(strings.ToLower(title), " ", "-")
		tokens["repository:"+names[title]+":pull"] = strings.Replace(documents[title], "HEAD", `{"token":"x"`, 1)
	}
	registry := serving(t, nil, nil)
	tokenRegistry := serving(t, nil, func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			_, _ = rw.Write([]byte(tokens[r.URL.Query().Get("scope")]))
			return true
		}
		rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="s"`, r.Host))
		rw.WriteHeader(http.StatusUnauthorized)
		return true
	})
	w := besiege(t, "", targetOf(registry), targetOf(tokenRegistry))
	good := configBlob(t, registry, "golden/good", `{"os":"linux","architecture":"amd64","config":{"User":"1000"}}`)
	for title, document := range documents {
		repository := names[title]
		push := func(tag, mediaType, body string) string {
			t.Helper()
			digest, err := registry.PushManifest(t.Context(), repository, tag, registrytest.Manifest{MediaType: mediaType, Body: []byte(body)})
			if err != nil {
				t.Fatal(title, err)
			}
			return digest
		}
		replace := func(head string) string { return strings.Replace(document, "HEAD", head, 1) }
		sign := func(digest string) {
			t.Helper()
			if err := registry.Sign(t.Context(), repository, digest, w.Key, registrytest.SignOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		manifestHead := `{"mediaType":"` + ociManifest + `","layers":[],"config":` + good
		sign(push("v1.0.0", ociManifest, replace(manifestHead)))
		config := configBlob(t, registry, repository,
			strings.ReplaceAll(replace(`{"os":"linux","architecture":"amd64","config":{"User":"1000"}`), "schemaVersion", "variant"))
		sign(push("v2.0.0", ociManifest, `{"schemaVersion":2,"mediaType":"`+ociManifest+`","layers":[],"config":`+config+"}"))
		// A good image, with a signature manifest that is not one, and one whose payload is none though the key has signed it.
		if _, err := registry.PushBlob(t.Context(), repository, []byte(`{"os":"linux","architecture":"amd64","config":{"User":"1000"}}`)); err != nil {
			t.Fatal(err)
		}
		image := func(label string) string {
			return `{"schemaVersion":2,"mediaType":"` + ociManifest + `","annotations":{"x":"` + label + `"},"layers":[],"config":` + good + "}"
		}
		unsigned := push("v3.0.0", ociManifest, image("manifest "+repository))
		push(registrytest.SignatureTag(unsigned), ociManifest, replace(manifestHead))
		broken := push("v4.0.0", ociManifest, image("payload "+repository))
		payload := []byte(replace(`{"critical":{"type":"cosign container image signature","identity":{"docker-reference":"` + registry.Host() + "/" + repository +
			`"},"image":{"docker-manifest-digest":"` + broken + `"}}`))
		if title == "a number beyond all" || title == "an integer beyond all" || title == "a deep and whole one" {
			payload = append(payload, 'x') // they are payloads that can be read; nobody looks at the number
		}
		encoded, err := registrytest.SignPayload(w.Key, payload, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := registry.Attach(t.Context(), repository, broken, registrytest.Signature{Payload: payload, Base64: encoded}); err != nil {
			t.Fatal(err)
		}
	}
	for title := range documents {
		for tag, says := range map[string]string{
			"v1.0.0": "could not be checked: " + registry.Host() + " sent ", "v2.0.0": "could not be checked: " + registry.Host() + " sent an image config that ",
			"v3.0.0": "", "v4.0.0": "not signed by ci",
		} {
			t.Run(title+" "+tag, func(t *testing.T) {
				within(t, 2*time.Second, func() {
					a := w.admit(t, w.pod(image(registry.Host()+"/"+names[title]+":"+tag)))
					want{says: []string{says}, without: []string{"internal", "alert"}}.check(t, a)
				})
			})
		}
		t.Run(title+" token", func(t *testing.T) {
			within(t, 2*time.Second, func() {
				a := w.admit(t, w.pod(image(tokenRegistry.Host()+"/"+names[title]+":v1.0.0")))
				want{says: []string{"could not be checked"}, without: []string{"not signed", "alert"}}.check(t, a)
			})
		})
	}
	w.sound(t)
	w.wantCleanLog(t)
}

// configBlob stores a config and gives its descriptor.
func configBlob(t *testing.T, r *registrytest.Registry, repository, config string) string {
	t.Helper()
	digest, err := r.PushBlob(t.Context(), repository, []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d}`, digest, len(config))
}

// TestAbsurdChallenges: a challenge can be anything too.
func TestAbsurdChallenges(t *testing.T) {
	challenges := []string{
		"", "Bearer", "Bearer realm", `Bearer realm="`, `Bearer realm=`, `Bearer realm="x" realm="y"`, strings.Repeat("Bearer ", 5000), strings.Repeat(`a="b",`, 5000),
		`Bearer realm="https://` + strings.Repeat("a.", 10_000) + `"`, `Digest realm="x", nonce="y"`, "Negotiate", "NTLM " + base64.StdEncoding.EncodeToString(make([]byte, 9000)),
		`Bearer realm="\"\\\"\`, "Bearer\trealm=\x80", `,,,,=,=,"`, `Basic realm="x", Bearer realm="https://169.254.169.254/"`,
	}
	registry := serving(t, nil, func(rw http.ResponseWriter, r *http.Request) bool {
		var i int
		if _, err := fmt.Sscanf(r.URL.Path, "/v2/golden/c%d/", &i); err != nil {
			return false
		}
		rw.Header()["Www-Authenticate"] = []string{challenges[i]}
		rw.WriteHeader(http.StatusUnauthorized)
		return true
	})
	w := besiege(t, "", targetOf(registry))
	for i := range challenges {
		within(t, 2*time.Second, func() {
			want{says: []string{"could not be checked"}, without: []string{"not signed"}}.
				check(t, w.admit(t, w.pod(image(fmt.Sprintf("%s/golden/c%d:v1.0.0", registry.Host(), i)))))
		})
	}
	w.sound(t)
}
