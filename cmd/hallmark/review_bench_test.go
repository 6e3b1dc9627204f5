package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/evidence"
	"github.com/hallmark-admission/hallmark/webhook/policy"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/server"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// BenchmarkReview is a whole review through the real handler, all shipped rules on, everything known already: decode,
// select, catalogue, judge twice, encode. Only TLS and the wire are left out.
func BenchmarkReview(b *testing.B) {
	f, err := harness.NewFixture(b.Context(), b.TempDir(), registrytest.Config{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Registry.Close()
	handler := benchHandler(b, f)
	for _, images := range []int{1, 2, 5} {
		for _, size := range []int{4 << 10, 20 << 10} {
			tagged, pinned := benchPod(b, f, images, size)
			for _, half := range []struct {
				path string
				pod  []byte
			}{{"/mutate", tagged}, {"/validate", pinned}} {
				b.Run(fmt.Sprintf("%s/images=%d/bytes=%d", half.path[1:], images, size), func(b *testing.B) {
					benchReview(b, handler, half.path, half.pod)
				})
			}
		}
	}
}

func benchReview(b *testing.B, handler http.Handler, path string, pod []byte) {
	review, err := servertest.NewReview("705ab4f5-6393-11e8-b7cc-42010a800002", servertest.Object{JSON: pod})
	if err != nil {
		b.Fatal(err)
	}
	body, err := json.Marshal(review)
	if err != nil {
		b.Fatal(err)
	}
	send := func() *httptest.ResponseRecorder {
		request := httptest.NewRequestWithContext(b.Context(), http.MethodPost, path+"?timeout=10s", strings.NewReader(string(body)))
		request.Header.Set("Content-Type", "application/json")
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		return response
	}
	if text := send().Body.String(); !strings.Contains(text, `"allowed":true`) {
		b.Fatal(text)
	}
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
}

// benchPod makes a pod of about size bytes, as the mutating half gets it and as the validating half does.
func benchPod(b *testing.B, f *harness.Fixture, images, size int) (tagged, pinned []byte) {
	b.Helper()
	pod := func(ref func(string) string) []byte {
		var containers []map[string]any
		for i := range images {
			containers = append(containers, map[string]any{
				"name": fmt.Sprintf("c%d", i), "image": ref(fmt.Sprintf("golden/%s:v1.0.0", [...]string{"ws", "tools", "multi", "old", "envbox"}[i])),
				"env": []any{map[string]any{"name": "SCRIPT", "value": strings.Repeat("x", size/images)}},
			})
		}
		text, err := json.Marshal(map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "ws", "namespace": "team"},
			"spec": map[string]any{"containers": containers, "securityContext": map[string]any{"runAsUser": 1000}},
		})
		if err != nil {
			b.Fatal(err)
		}
		return text
	}
	return pod(f.Ref), pod(f.Pinned)
}

func benchHandler(b *testing.B, f *harness.Fixture) http.Handler {
	b.Helper()
	text := f.Configuration()
	text = strings.Replace(text, "roles: [builder]", "roles: [sidecar, builder]", 1)
	if err := f.Write("hallmark.yaml", []byte(text)); err != nil {
		b.Fatal(err)
	}
	source, err := shippedPolicies(nil)
	if err != nil {
		b.Fatal(err)
	}
	return handlerOf(b, []byte(text), source)
}

// handlerOf is the real handler under a configuration and rules; it words its log, and throws it away.
func handlerOf(tb testing.TB, text []byte, source policy.Source) http.Handler {
	tb.Helper()
	c, _, err := config.Load(text, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	g, err := newGeneration(tb.Context(), c, source, outside{now: time.Now, store: evidence.NewStore(evidence.Limits{Bytes: 64 << 20}, nil)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(g.close)
	return server.Handler(server.Config{
		Current: func() server.Reviewer { return g.reviewer }, Deadline: func() time.Duration { return 8 * time.Second },
		Log: slog.New(slog.NewJSONHandler(io.Discard, nil)), Metrics: server.NewMetrics(),
	})
}
