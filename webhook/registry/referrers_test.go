package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// pushReferrer stores a manifest such as a bundle has, with a subject. It gives its digest and its entry in a list.
func pushReferrer(t *testing.T, r *registrytest.Registry, subject, text string) (digest, entry string) {
	t.Helper()
	blobs := []string{"{}", text}
	for i, blob := range blobs {
		digest, err := r.PushBlob(t.Context(), "golden/base", []byte(blob))
		if err != nil {
			t.Fatal(err)
		}
		blobs[i] = fmt.Sprintf(`"digest":%q,"size":%d}`, digest, len(blob))
	}
	body := []byte(`{"schemaVersion":2,"mediaType":"` + ociManifest + `","artifactType":"` + bundleType + `",` +
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json",` + blobs[0] + `,"layers":[{"mediaType":"` + bundleType + `",` + blobs[1] + `],` +
		`"subject":{"mediaType":"` + ociManifest + `","digest":"` + subject + `","size":2}}`)
	digest, err := r.PushManifest(t.Context(), "golden/base", "", registrytest.Manifest{MediaType: ociManifest, Body: body})
	if err != nil {
		t.Fatal(err)
	}
	return digest, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"artifactType":%q}`, ociManifest, digest, len(body), bundleType)
}

func listOf(entries ...string) string {
	return `{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + strings.Join(entries, ",") + "]}"
}

func fallbackTag(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// pushList stores a list under the tag that stands for the referrers API.
func pushList(t *testing.T, r *registrytest.Registry, subject, list string) {
	t.Helper()
	manifest := registrytest.Manifest{MediaType: ociIndex, Body: []byte(list)}
	if _, err := r.PushManifest(t.Context(), "golden/base", fallbackTag(subject), manifest); err != nil {
		t.Fatal(err)
	}
}

// wantReferrers wants a list of these digests, in any order, with the digest of its own bytes.
func wantReferrers(t *testing.T, got webhook.Manifest, err error, want ...string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		SchemaVersion int
		MediaType     string
		Manifests     []struct{ MediaType, Digest string }
	}
	if err := json.Unmarshal(got.Body, &index); err != nil {
		t.Fatal(err)
	}
	var digests []string
	for _, entry := range index.Manifests {
		digests = append(digests, entry.Digest)
	}
	slices.Sort(digests)
	slices.Sort(want)
	if !slices.Equal(digests, want) {
		t.Errorf("got %v, want %v", digests, want)
	}
	if got.Digest != webhook.DigestOf(got.Body) || got.MediaType != ociIndex || index.MediaType != ociIndex || index.SchemaVersion != 2 {
		t.Errorf("got %s of the type %s: %s", got.Digest, got.MediaType, got.Body)
	}
}

// What a list names can be read: the manifest of a bundle is no image, and yet a manifest.
func TestReferrers(t *testing.T) {
	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprintf("api=%v", api), func(t *testing.T) {
			r := serve(t, registrytest.Config{Referrers: api})
			image := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
			first, firstEntry := pushReferrer(t, r, image, "first")
			second, secondEntry := pushReferrer(t, r, image, "second")
			pushReferrer(t, r, first, "of another")
			if !api {
				pushList(t, r, image, listOf(firstEntry, secondEntry))
			}
			client := connect(t, r, nil)
			ref := parse(t, r.Host()+"/golden/base:v1@"+image)
			got, err := client.Referrers(t.Context(), ref, 0)
			wantReferrers(t, got, err, first, second)
			bundle, err := client.Manifest(t.Context(), ref.WithTag("").WithDigest(first), 4<<10)
			if err != nil || webhook.DigestOf(bundle.Body) != first || bundle.MediaType != ociManifest {
				t.Errorf("got %+v, %v", bundle, err)
			}
			_, err = client.Manifest(t.Context(), ref.WithTag("").WithDigest(first), 100)
			wantReadError(t, err, webhook.Invalid, r.Host(), "sent a manifest larger than 100 bytes")
			_, err = client.ReadImage(t.Context(), ref.WithTag("").WithDigest(first), webhook.WithConfig)
			wantReadError(t, err, webhook.Invalid, r.Host(), "is not a runnable image (config type application/vnd.oci.empty.v1+json)")
		})
	}
}

func TestNoReferrers(t *testing.T) {
	t.Run("an empty list", func(t *testing.T) {
		r := serve(t, registrytest.Config{Referrers: true})
		image := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
		got, err := connect(t, r, nil).Referrers(t.Context(), parse(t, r.Host()+"/golden/base@"+image), 0)
		wantReferrers(t, got, err)
	})
	t.Run("an empty list at the tag", func(t *testing.T) {
		r := serve(t, registrytest.Config{})
		image := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
		pushList(t, r, image, listOf())
		got, err := connect(t, r, nil).Referrers(t.Context(), parse(t, r.Host()+"/golden/base@"+image), 0)
		wantReferrers(t, got, err)
	})
	t.Run("neither", func(t *testing.T) {
		r := serve(t, registrytest.Config{})
		image := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
		_, err := connect(t, r, nil).Referrers(t.Context(), parse(t, r.Host()+"/golden/base@"+image), 0)
		wantReadError(t, err, webhook.NotFound, r.Host(), "has no referrers of "+webhook.ShortDigest(image)+" of golden/base")
	})
	t.Run("the image itself at the tag, as cosign copies it", func(t *testing.T) {
		r := serve(t, registrytest.Config{})
		image := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
		index, err := r.PushIndex(t.Context(), "golden/base", "v2", registrytest.Image{}, registrytest.Image{Arch: "arm64"})
		if err != nil {
			t.Fatal(err)
		}
		for _, digest := range []string{image, index} {
			if err := r.Tag(t.Context(), "golden/base", fallbackTag(digest), digest); err != nil {
				t.Fatal(err)
			}
			_, err := connect(t, r, nil).Referrers(t.Context(), parse(t, r.Host()+"/golden/base@"+digest), 0)
			wantReadError(t, err, webhook.NotFound, r.Host(), "has no referrers of "+webhook.ShortDigest(digest)+" of golden/base")
		}
	})
	t.Run("no digest", func(t *testing.T) {
		r := serve(t, registrytest.Config{Referrers: true})
		_, err := connect(t, r, nil).Referrers(t.Context(), parse(t, r.Host()+"/golden/base:v1"), 0)
		wantReadError(t, err, webhook.Invalid, r.Host(), "without a digest")
	})
	t.Run("another host", func(t *testing.T) {
		r := serve(t, registrytest.Config{Referrers: true})
		ref := parse(t, "evil.example/x@sha256:"+strings.Repeat("a", 64))
		_, err := connect(t, r, nil).Referrers(t.Context(), ref, 0)
		wantReadError(t, err, webhook.NotAllowed, "evil.example", "is not a registry that may be contacted")
	})
}

// A repository that has the tag and not the API is not asked for the API again for ten minutes. Its neighbours are.
func TestAbsenceIsRemembered(t *testing.T) {
	r := serve(t, registrytest.Config{})
	image := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	push(t, r, registrytest.Image{Repository: "golden/other", Tag: "v1"})
	_, entry := pushReferrer(t, r, image, "a")
	pushList(t, r, image, listOf(entry))
	now := time.Now()
	client := connect(t, r, func(c *registry.Config) { c.Now = func() time.Time { return now } })
	absent := "sha256:" + strings.Repeat("a", 64)
	for _, step := range []struct {
		what, image string
		after       time.Duration
		want        []string
	}{
		{"neither is there: that says nothing", "/golden/base@" + absent, 0, []string{"referrers 404", "manifests 404"}},
		{"and is asked again", "/golden/base@" + absent, 0, []string{"referrers 404", "manifests 404"}},
		{"the tag is there", "/golden/base@" + image, 0, []string{"referrers 404", "manifests 200"}},
		{"so there is no API", "/golden/base@" + image, 0, []string{"manifests 200"}},
		{"for another image too", "/golden/base@" + absent, 9 * time.Minute, []string{"manifests 404"}},
		{"but it may come", "/golden/base@" + image, 2 * time.Minute, []string{"referrers 404", "manifests 200"}},
		{"another repository", "/golden/other@" + image, 0, []string{"v2/golden/other/referrers/" + image + " 404",
			"v2/golden/other/manifests/" + fallbackTag(image) + " 404"}},
	} {
		now = now.Add(step.after)
		r.Reset()
		_, err := client.Referrers(t.Context(), parse(t, r.Host()+step.image), 0)
		if missing := strings.Contains(step.want[len(step.want)-1], "404"); missing != (err != nil) {
			t.Errorf("%s: %v", step.what, err)
		}
		if got := statuses(r); !slices.Equal(got, step.want) {
			t.Errorf("%s: got %v, want %v", step.what, got, step.want)
		}
	}
}

// What a registry answers decides between the tag and an error; only a 404 is remembered.
func TestWithoutAPI(t *testing.T) {
	for name, test := range map[string]struct {
		handle  http.HandlerFunc
		reason  string // "" reads the tag
		failure webhook.ReadFailure
		again   bool // the second time the API is asked again
	}{
		"404":         {handle: send(404, "text/plain", "404 page not found"), again: false},
		"400":         {handle: send(400, "", ""), again: true},
		"405":         {handle: send(405, "", ""), again: true},
		"406":         {handle: send(406, "", ""), again: true},
		"501":         {handle: send(501, "", ""), again: true},
		"a web page":  {handle: send(200, "text/html", "<html>"), again: true},
		"other JSON":  {handle: send(200, "application/json", `{"manifests":[]}`), again: true},
		"an image":    {handle: send(200, ociManifest, `{"config":{},"layers":[]}`), again: true},
		"an old list": {handle: send(200, "application/vnd.docker.distribution.manifest.list.v2+json", `{"manifests":[]}`), again: true},
		"401":         {handle: send(401, "", ""), reason: "refused access to golden/base (401)", failure: webhook.Unauthorized},
		"403":         {handle: send(403, "", ""), reason: "refused access to golden/base (403)", failure: webhook.Unauthorized},
		"429":         {handle: send(429, "", ""), reason: "is limiting requests (429)", failure: webhook.Unavailable},
		"500":         {handle: send(500, "", ""), reason: "answered 500", failure: webhook.Unavailable},
		"503":         {handle: send(503, "", ""), reason: "answered 503", failure: webhook.Unavailable},
		"418":         {handle: send(418, "", ""), reason: "answered 418", failure: webhook.Invalid},
		"hang":        {handle: hang, reason: "did not answer within 60ms", failure: webhook.Unavailable},
		"cut":         {handle: cut, reason: "gave no readable answer", failure: webhook.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			r := serve(t, registrytest.Config{Intercept: intercept("/referrers/", func(w http.ResponseWriter, req *http.Request) {
				asked.Add(1)
				test.handle(w, req)
			})})
			image := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
			digest, entry := pushReferrer(t, r, image, "a")
			pushList(t, r, image, listOf(entry))
			client := connect(t, r, func(c *registry.Config) {
				if name == "hang" {
					c.Limits.Timeout = shortTimeout
				}
			})
			ref := parse(t, r.Host()+"/golden/base@"+image)
			got, err := client.Referrers(t.Context(), ref, 0)
			if test.reason != "" {
				wantReadError(t, err, test.failure, r.Host(), test.reason)
				if n := countPath(r, "/v2/golden/base/manifests/"+fallbackTag(image)); n != 0 {
					t.Errorf("the tag was read %d times after a failure", n)
				}
				return
			}
			wantReferrers(t, got, err, digest)
			got, err = client.Referrers(t.Context(), ref, 0)
			wantReferrers(t, got, err, digest)
			if again := asked.Load() == 2; again != test.again {
				t.Errorf("the API was asked %d times", asked.Load())
			}
		})
	}
}

// The API is asked with the same credentials, behind the same gate, and counted under its own name.
func TestReferrersCredentials(t *testing.T) {
	for name, auth := range map[string]registrytest.Auth{
		"basic": {User: "u", Password: "p"}, "bearer": {User: "u", Password: "p", Bearer: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, registrytest.Config{Referrers: true, Auth: &auth})
			image := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
			digest, _ := pushReferrer(t, r, image, "a")
			login := withLogin(t, r, "u", "p")
			var seen []string
			client := connect(t, r, func(c *registry.Config) {
				login(c)
				c.Observe = func(_ context.Context, _, operation string, code int, _ time.Duration) {
					seen = append(seen, fmt.Sprint(operation, " ", code))
				}
			})
			got, err := client.Referrers(t.Context(), parse(t, r.Host()+"/golden/base@"+image), 0)
			wantReferrers(t, got, err, digest)
			want := []string{"referrers 401", "token 200", "referrers 200"}
			if !auth.Bearer {
				want = []string{"referrers 401", "referrers 200"}
			}
			if !slices.Equal(seen, want) {
				t.Errorf("observed %v, want %v", seen, want)
			}
			_, err = connect(t, r, withLogin(t, r, "u", "s3cr3t")).Referrers(t.Context(), parse(t, r.Host()+"/golden/base@"+image), 0)
			wantReadError(t, err, webhook.Unauthorized, r.Host(), "refused access to golden/base")
			wantNoSecret(t, err)
		})
	}
}

// A registry that fails is left alone by this as by everything else.
func TestReferrersBehindTheGate(t *testing.T) {
	r := serve(t, registrytest.Config{Intercept: intercept("/v2/", send(503, "", ""))})
	client := connect(t, r, nil)
	ref := parse(t, r.Host()+"/golden/base@sha256:"+strings.Repeat("a", 64))
	for range 20 {
		_, err := client.Referrers(t.Context(), ref, 0)
		wantReadError(t, err, webhook.Unavailable, r.Host(), "answered 503")
	}
	if n := len(r.Requests()); n > 6 {
		t.Errorf("%d requests to a registry that fails", n)
	}
}
