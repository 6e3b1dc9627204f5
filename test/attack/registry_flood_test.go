package attack

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const ociManifest = "application/vnd.oci.image.manifest.v1+json"

// endless writes the same until the client hangs up.
func endless(w http.ResponseWriter, chunk []byte) {
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// bomb is a thousand times smaller than what it unpacks to.
func bomb(t *testing.T, megabytes int) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	zeros := bytes.Repeat([]byte(" "), 1<<20)
	for range megabytes {
		_, _ = w.Write(zeros)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// TestFloods: no answer of a registry has an end that it must have, none costs memory beyond the limits, and each gets
// its refusal long before the deadline.
func TestFloods(t *testing.T) {
	blanks := bytes.Repeat([]byte(" "), 32<<10)
	packed := bomb(t, 64)
	flood := func(status int, contentType string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			endless(w, blanks)
		}
	}
	gzipped := func(encoding string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ociManifest)
			w.Header().Set("Content-Encoding", encoding)
			_, _ = w.Write(packed)
		}
	}
	cases := map[string]struct {
		part   string // of the path
		answer func(http.ResponseWriter, *http.Request)
		says   string
		token  bool
	}{
		"endless manifest":           {"/manifests/v1.0.0", flood(200, ociManifest), "sent a manifest larger than 4 MiB", false},
		"endless manifest by digest": {"/pinned/ws/manifests/sha256:", flood(200, ociManifest), "sent a manifest larger than 4 MiB", false},
		"endless config":             {"/blobs/CONFIG", flood(200, ""), "sent a config larger than 8 MiB", false},
		"endless signature manifest": {".sig", flood(200, ociManifest), "sent a manifest larger than 4 MiB", false},
		"endless payload":            {"/blobs/PAYLOAD", flood(200, ""), "1 signature", false},
		"endless token":              {"/token", flood(200, "application/json"), "sent a token larger than 64 KiB", true},
		"endless everything":         {"/manifests/", flood(200, ociManifest), "sent a manifest larger than 4 MiB", false},
		"endless refusal":            {"/manifests/v1.0.0", flood(401, "text/html"), "refused access to", false},
		"endless error":              {"/manifests/v1.0.0", flood(500, "text/html"), "answered 500", false},
		"endless token refusal":      {"/token", flood(403, "text/html"), "refused access to", true},
		"endless redirect":           {"/manifests/v1.0.0", flood(307, "text/html"), "redirected to an address", false},
		"a length of an exabyte": {"/manifests/v1.0.0", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ociManifest)
			w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<60))
			endless(w, blanks)
		}, "sent a manifest larger than 4 MiB", false},
		"gzip bomb as manifest":           {"/manifests/v1.0.0", gzipped("gzip"), "compressed with gzip, which was not asked for", false},
		"gzip bomb as config":             {"/blobs/CONFIG", gzipped("gzip"), "compressed with gzip, which was not asked for", false},
		"gzip bomb as signature manifest": {".sig", gzipped("gzip"), "compressed with gzip, which was not asked for", false},
		"gzip bomb as token":              {"/token", gzipped("gzip"), "compressed with gzip, which was not asked for", true},
		"gzip bomb that does not say so":  {"/manifests/v1.0.0", gzipped(""), "is not valid JSON", false},
		"gzip bomb twice":                 {"/manifests/v1.0.0", gzipped("identity, gzip, gzip"), "which was not asked for", false},
		"huge header":                     {"/manifests/v1.0.0", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Junk", strings.Repeat("x", 1<<20)) }, "gave no readable answer", false},
		"huge index":                      {"/manifests/v1.0.0", hugeIndex(10_000), "sent an index with more than 50 entries", false},
		"index of 100,000 junk":           {"/manifests/v1.0.0", send("application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[`+strings.Repeat("{},", 99_999)+"{}]}"), "sent an index", false},
		"manifest of 100,000 layers":      {"/manifests/v1.0.0", send(ociManifest, `{"schemaVersion":2,"config":{},"layers":[`+strings.Repeat("{},", 99_999)+"{}]}"), "sent a manifest", false},
	}
	registries, replaced, refs := map[string]*registrytest.Registry{}, map[string]*strings.Replacer{}, map[string]string{}
	var targets []target
	for title, c := range cases {
		var auth *registrytest.Auth
		if c.token {
			auth = &registrytest.Auth{User: robot, Password: robotPassword, Bearer: true}
		}
		r := serving(t, auth, func(rw http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, replaced[title].Replace(c.part)) {
				return false
			}
			c.answer(rw, r)
			return true
		})
		registries[title] = r
		target := targetOf(r)
		if c.token {
			target.user, target.password = robot, robotPassword
		}
		targets = append(targets, target)
	}
	w := besiege(t, "", targets...)
	for title, r := range registries {
		digest := w.publish(t, r, "golden/ws", "v1.0.0")
		refs[title] = r.Host() + "/golden/ws:v1.0.0"
		if strings.HasSuffix(title, "by digest") {
			refs[title] = r.Host() + "/pinned/ws@" + w.publish(t, r, "pinned/ws", "v1.0.0")
		}
		replaced[title] = strings.NewReplacer("CONFIG", configOf(t, r, "golden/ws", digest),
			"PAYLOAD", payloadOf(t, r, "golden/ws", digest))
	}
	w.sound(t)
	before := memoryOf(t, w.PID())
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			before := memoryOf(t, w.PID())
			most := peak(t, w.PID(), func() {
				within(t, 3*time.Second, func() {
					a := w.admit(t, w.pod(image(refs[title])))
					want{code: a.Code, says: []string{c.says}}.check(t, a)
				})
			})
			if most > before+32<<20 {
				t.Errorf("the webhook grew from %d to %d MiB", before>>20, most>>20)
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		// A pod of the smallest deployment has 256 MiB.
		pods := map[string]object{}
		for title, ref := range refs {
			if strings.Contains(title, "endless") || strings.Contains(title, "bomb") {
				for i := range 10 {
					pods[fmt.Sprint(title, i)] = w.pod(image(ref))
				}
			}
		}
		// Different tags of one repository, so that nobody shares an answer.
		for i := range 100 {
			pods[fmt.Sprint("another", i)] = w.pod(image(fmt.Sprintf("%s/golden/ws:v1.0.%d", registries["endless everything"].Host(), i)))
		}
		most := peak(t, w.PID(), func() {
			for title, got := range w.admitAll(t, 100, pods) {
				if got.Allowed || got.took > 17*time.Second {
					t.Errorf("%s: allowed %t after %v", title, got.Allowed, got.took)
				}
			}
		})
		t.Logf("%d admissions at once: %d MiB, %d before", len(pods), most>>20, before>>20)
		// What registries may have under way in memory has to be bounded for all admissions together.
		if most > 256<<20 {
			t.Errorf("the webhook needed %d MiB", most>>20)
		}
	})
	w.sound(t)
	w.wantCleanLog(t)
}

// send answers with a body.
func send(contentType, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body)
	}
}

// hugeIndex has so many platforms.
func hugeIndex(n int) func(http.ResponseWriter, *http.Request) {
	child := fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%s","size":2,"platform":{"os":"linux","architecture":"amd64"}}`, ociManifest, strings.Repeat("b", 64))
	return send("application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[`+strings.Repeat(child+",", n-1)+child+"]}")
}

// payloadOf is the digest of what an image's first signature signs.
func payloadOf(t *testing.T, r *registrytest.Registry, repository, digest string) string {
	t.Helper()
	manifest, err := r.Manifest(t.Context(), repository, registrytest.SignatureTag(digest))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(manifest.Body), `"layers":[`)
	_, rest, _ = strings.Cut(rest, "sha256:")
	return "sha256:" + rest[:64]
}

// garbage are signatures by nobody, each over another payload.
func garbage(n int) []registrytest.Signature {
	list := make([]registrytest.Signature, n)
	for i := range list {
		list[i] = registrytest.Signature{
			Payload: fmt.Appendf(nil, `{"garbage":%d}`, i), Base64: base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "garbage %d", i)),
		}
	}
	return list
}
