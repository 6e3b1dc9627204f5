package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// BenchmarkReviewScale is a whole review, as in BenchmarkReview, under catalogues and with rules of several sizes: neither
// may matter much.
func BenchmarkReviewScale(b *testing.B) {
	f, err := harness.NewFixture(b.Context(), b.TempDir(), registrytest.Config{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Registry.Close()
	pod, err := harness.Pod([]string{f.Pinned("golden/ws:v1.0.0")}, 4<<10)
	if err != nil {
		b.Fatal(err)
	}
	for _, entries := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint("entries=", entries), func(b *testing.B) {
			benchReview(b, scaledHandler(b, f, entries, 0), "/validate", pod)
		})
	}
	for _, rules := range []int{1, 10, 100} {
		b.Run(fmt.Sprint("rules=", rules), func(b *testing.B) {
			benchReview(b, scaledHandler(b, f, 0, rules), "/validate", pod)
		})
	}
}

// scaledHandler has so many golden images and rules more.
func scaledHandler(b *testing.B, f *harness.Fixture, entries, rules int) http.Handler {
	b.Helper()
	var text strings.Builder
	text.WriteString(f.Configuration())
	for i := range entries {
		fmt.Fprintf(&text, "  - {name: more-%d, repository: %q, owner: devex, signers: [ci]}\n", i, f.Ref(fmt.Sprintf("golden/more/%d", i)))
	}
	source, err := shippedPolicies(nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := range rules {
		source[fmt.Sprintf("extra%d.rego", i)] = []byte(harness.ExtraRule(i))
	}
	return handlerOf(b, []byte(text.String()), source)
}
