package registry_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
)

// send answers with a status, a content type and a body.
func send(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hang never answers: to return would be to answer, which may still reach who has just hung up.
func hang(_ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

func cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func TestHostileManifest(t *testing.T) {
	config := `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + strings.Repeat("a", 64) + `","size":2}`
	layers := `"layers":[]`
	child := `{"mediaType":"` + ociManifest + `","digest":"sha256:` + strings.Repeat("b", 64) + `","size":2,"platform":{"os":"linux","architecture":"amd64"}}`
	tests := []struct {
		name    string
		handle  http.HandlerFunc
		failure webhook.ReadFailure
		reason  string
	}{
		{"401", send(401, "", ""), webhook.Unauthorized, "refused access to golden/base (401)"},
		{"403", send(403, "", ""), webhook.Unauthorized, "refused access to golden/base (403)"},
		{"404", send(404, "", ""), webhook.NotFound, "has no tag v1 of golden/base"},
		{"429", send(429, "", ""), webhook.Unavailable, "is limiting requests (429)"},
		{"503", send(503, "", ""), webhook.Unavailable, "answered 503"},
		{"400", send(400, "", ""), webhook.Invalid, "answered 400"},
		{"204", send(204, "", ""), webhook.Invalid, "answered 204"},
		{"hang", hang, webhook.Unavailable, "did not answer within 60ms"},
		{"cut", cut, webhook.Unavailable, "gave no readable answer"},
		{"body hangs", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", ociManifest)
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		}, webhook.Unavailable, "did not answer within 60ms"},
		{"body cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "{")
		}, webhook.Unavailable, "broke the connection"},
		{"a claimed length over the limit", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99999999999")
		}, webhook.Invalid, "sent a manifest larger than 4 MiB"},
		{"huge header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Huge", strings.Repeat("x", 1<<20))
		}, webhook.Unavailable, "gave no readable answer"},
		{"another digest claimed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("c", 64))
			send(200, ociManifest, "{"+config+","+layers+"}")(w, nil)
		}, webhook.Invalid, "does not have the digest that it claims"},
		{"gzip", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			send(200, ociManifest, "bomb")(w, nil)
		}, webhook.Invalid, "sent a manifest compressed with gzip, which was not asked for"},
		{"a web page", send(200, "text/html; charset=utf-8", "<html>"), webhook.Invalid, "sent an unsupported manifest type text/html"},
		{"a strange type", send(200, "x\"<y>", "{}"), webhook.Invalid, "sent an unsupported manifest type \"x\\\"<y>\""},
		{"no type", send(200, "", "{"+config+","+layers+"}"), webhook.Invalid, "sent an unsupported manifest type text/plain"},
		{"schema 1", send(200, "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"fsLayers":[]}`),
			webhook.Invalid, "sent an unsupported manifest type application/vnd.docker.distribution.manifest.v1+prettyjws"},
		{"schema 1 as oci", send(200, ociManifest, `{"schemaVersion":1,"fsLayers":[]}`), webhook.Invalid, "sent an unsupported manifest type"},
		{"schema 1 inside", send(200, ociManifest, `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v1+json",`+config+"}"),
			webhook.Invalid, "sent an unsupported manifest type application/vnd.docker.distribution.manifest.v1+json"},
		{"an image and an index", send(200, ociManifest, "{"+config+","+layers+`,"manifests":[`+child+"]}"), webhook.Invalid, "ambiguous manifest"},
		{"an index and an image", send(200, ociIndex, `{"manifests":[`+child+`],"config":null}`), webhook.Invalid, "ambiguous manifest"},
		{"an image and schema 1", send(200, ociManifest, "{"+config+","+layers+`,"fsLayers":[]}`), webhook.Invalid, "ambiguous manifest"},
		{"another type inside", send(200, ociIndex, `{"mediaType":"`+ociManifest+`",`+config+","+layers+"}"), webhook.Invalid, "ambiguous manifest"},
		{"a member twice", send(200, ociManifest, "{"+config+","+config+","+layers+"}"), webhook.Invalid, "ambiguous manifest"},
		{"a member in capitals", send(200, ociManifest, "{"+config+","+layers+`,"Config":{}}`), webhook.Invalid, "ambiguous manifest"},
		{"a member by folding", send(200, ociManifest, "{"+config+","+layers+`,"manifeſts":[]}`), webhook.Invalid, "ambiguous manifest"},
		{"an index served as an image", send(200, ociManifest, `{"manifests":[`+child+"]}"), webhook.Invalid, "without the members of its type"},
		{"an index in an index", send(200, ociIndex, `{"manifests":[{"mediaType":"`+ociIndex+`","digest":"sha256:`+strings.Repeat("b", 64)+`","size":2}]}`),
			webhook.Invalid, "sent an index inside an index"},
		{"an empty index", send(200, ociIndex, `{"manifests":[]}`), webhook.Invalid, "sent an index without any platform"},
		{"an index of 51", send(200, ociIndex, `{"manifests":[`+strings.Repeat(child+",", 50)+child+"]}"), webhook.Invalid, "sent an index with more than 50 entries"},
		{"an index of 100,000", send(200, ociIndex, `{"manifests":[`+strings.Repeat("0,", 100_000)+"0]}"), webhook.Invalid, "an entry that is not valid JSON"},
		{"a child without a digest", send(200, ociIndex, `{"manifests":[{"mediaType":"`+ociManifest+`"}]}`), webhook.Invalid, "has no sha256 digest"},
		{"a digest that climbs", send(200, ociIndex, `{"manifests":[{"digest":"sha256:../../../x"}]}`), webhook.Invalid, "has no sha256 digest"},
		{"cut off", send(200, ociManifest, "{"+config), webhook.Invalid, "is not valid JSON"},
		{"text after it", send(200, ociManifest, "{"+config+","+layers+"} {}"), webhook.Invalid, "is not valid JSON"},
		{"nothing", send(200, ociManifest, ""), webhook.Invalid, "is not valid JSON"},
		{"null", send(200, ociManifest, "null"), webhook.Invalid, "is not valid JSON"},
		{"deep", send(200, ociManifest, `{"x":`+strings.Repeat("[", 1_000_000)), webhook.Invalid, "is not valid JSON"},
		{"not UTF-8", send(200, ociManifest, "{\"\xff\":0,"+config+","+layers+"}"), webhook.Invalid, "is not valid JSON"},
		{"a huge number", send(200, ociManifest, `{"schemaVersion":`+strings.Repeat("9", 1000)+","+config+","+layers+"}"), webhook.Invalid, "unsupported manifest type"},
		{"an artifact", send(200, ociManifest, "{"+strings.Replace(config, "oci.image.config", "cncf.helm.config", 1)+","+layers+"}"),
			webhook.Invalid, "is not a runnable image (config type application/vnd.cncf.helm.config.v1+json)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := serve(t, registrytest.Config{Intercept: intercept("/manifests/", test.handle)})
			client := connect(t, r, func(c *registry.Config) {
				if strings.Contains(test.reason, "60ms") {
					c.Limits.Timeout = shortTimeout
				}
			})
			_, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			wantReadError(t, err, test.failure, r.Host(), test.reason)
		})
	}
}

// A balancer drops what is idle for long and tells nobody. None of the connections that were kept works any more, and that
// is no reason to call the registry down.
func TestStaleConnections(t *testing.T) {
	const kept = 12
	var (
		mutex   sync.Mutex
		stale   = map[string]bool{}
		all     sync.WaitGroup
		dropped atomic.Bool
	)
	all.Add(kept)
	r := serve(t, registrytest.Config{PlainHTTP: true, Intercept: intercept("/manifests/", func(w http.ResponseWriter, r *http.Request) {
		mutex.Lock()
		known := stale[r.RemoteAddr]
		if !dropped.Load() {
			stale[r.RemoteAddr] = true
		}
		mutex.Unlock()
		switch {
		case known:
			cut(w, r)
		case dropped.Load():
			send(404, "", "")(w, r)
		default:
			all.Done()
			all.Wait() // each request is under way on a connection of its own
			send(404, "", "")(w, r)
		}
	})})
	client := connect(t, r, nil)
	ask := func() error {
		_, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
		return err
	}
	var asking sync.WaitGroup
	for range kept {
		asking.Go(func() { wantReadError(t, ask(), webhook.NotFound, r.Host(), "has no tag v1") })
	}
	asking.Wait()
	dropped.Store(true)
	wantReadError(t, ask(), webhook.NotFound, r.Host(), "has no tag v1")
}

// A balancer that has nothing behind it accepts connections and closes them.
func TestClosedAtOnce(t *testing.T) {
	host := hangUp(t, func() {})
	for _, plain := range []bool{true, false} {
		for range 50 { // how far the request gets is chance
			client, err := registry.New(registry.Config{Hosts: []registry.Host{{Host: host, PlainHTTP: plain}}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.ReadImage(t.Context(), parse(t, host+"/golden/base:v1"), webhook.WithConfig)
			wantReadError(t, err, webhook.Unavailable, host, "broke the connection")
			client.Close()
		}
	}
}

func TestOtherContent(t *testing.T) {
	for _, what := range []string{"/manifests/sha256:", "/blobs/"} {
		t.Run(what, func(t *testing.T) {
			r := serve(t, registrytest.Config{Intercept: intercept(what, send(200, ociManifest, `{"config":{}}`))})
			digest := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
			_, err := connect(t, r, nil).ReadImage(t.Context(), parse(t, r.Host()+"/golden/base@"+digest), webhook.WithConfig)
			wantReadError(t, err, webhook.Invalid, r.Host(), "returned other content than sha256:")
		})
	}
}

// pushConfig stores an image whose config is any text.
func pushConfig(t *testing.T, r *registrytest.Registry, config string, size int) {
	t.Helper()
	digest, err := r.PushBlob(t.Context(), "golden/base", []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "layers": []any{},
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.PushManifest(t.Context(), "golden/base", "v1", registrytest.Manifest{MediaType: ociManifest, Body: manifest}); err != nil {
		t.Fatal(err)
	}
}

func TestHostileConfig(t *testing.T) {
	tests := []struct {
		name, config, reason string
		size                 int
	}{
		{name: "declared too large", config: `{}`, size: 200 << 20, reason: "sent a config larger than 8 MiB"},
		{name: "is too large", config: `{"x":"` + strings.Repeat("x", 8<<20) + `"}`, size: 10, reason: "sent a config larger than 8 MiB"},
		{name: "not JSON", config: `x`, reason: "sent an image config that is not valid JSON"},
		{name: "an array", config: `[]`, reason: "sent an image config that is not valid JSON"},
		{name: "user twice", config: `{"config":{"User":"1000","User":"0"}}`, reason: "has a member twice, or in another spelling"},
		{name: "user in lower case", config: `{"config":{"User":"1000","user":"0"}}`, reason: "has a member twice, or in another spelling"},
		{name: "user only in lower case", config: `{"config":{"user":"0"}}`, reason: "has a member twice, or in another spelling"},
		{name: "config in capitals", config: `{"config":{"User":"1000"},"Config":{"User":"0"}}`, reason: "has a member twice, or in another spelling"},
		{name: "user by folding", config: `{"config":{"User":"1000","uſer":"0"}}`, reason: "has a member twice, or in another spelling"},
		{name: "user by escapes", config: `{"config":{"User":"1000","\u0055ser":"0"}}`, reason: "has a member twice, or in another spelling"},
		{name: "user is a number", config: `{"config":{"User":0}}`, reason: "is not valid JSON"},
		{name: "label twice", config: `{"config":{"Labels":{"a":"1","a":"2"}}}`, reason: "has a member twice"},
		{name: "label of another type", config: `{"config":{"Labels":{"a":1}}}`, reason: "is not valid JSON"},
		{name: "too many labels", config: `{"config":{"Labels":{` + labels(10_001) + `}}}`, reason: "has too many entries"},
		{name: "too many layers", config: `{"rootfs":{"diff_ids":[` + strings.Repeat(`"x",`, 10_000) + `"x"]}}`, reason: "has too many entries"},
		{name: "deep", config: `{"config":` + strings.Repeat(`{"a":`, 1_000_000), reason: "is not valid JSON"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := serve(t, registrytest.Config{})
			pushConfig(t, r, test.config, test.size)
			_, err := connect(t, r, nil).ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			wantReadError(t, err, webhook.Invalid, r.Host(), test.reason)
		})
	}
}

func labels(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"%d":"",`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

func TestGzipBomb(t *testing.T) {
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	for range 16 {
		_, _ = w.Write(make([]byte, 1<<20))
	}
	_ = w.Close()
	for _, what := range []string{"/manifests/", "/blobs/"} {
		r := serve(t, registrytest.Config{Intercept: intercept(what, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Accept-Encoding"); got != "identity" {
				t.Errorf("asked for encoding %q, want identity", got)
			}
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Type", ociManifest)
			_, _ = w.Write(bomb.Bytes())
		})})
		push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
		_, err := connect(t, r, nil).ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
		wantReadError(t, err, webhook.Invalid, r.Host(), "compressed with gzip, which was not asked for")
	}
}
