package webhook

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// The stages of a review that stand in this package, one benchmark each. BenchmarkReview in cmd/hallmark is all of them.

// benchPod is a workspace of so many containers and about so many bytes.
func benchPod(b *testing.B, images, size int) []byte {
	b.Helper()
	var refs []string
	for i := range images {
		refs = append(refs, fmt.Sprintf("registry.corp.example:5000/golden/image-%d:v1.0.0", i))
	}
	pod, err := harness.Pod(refs, size)
	if err != nil {
		b.Fatal(err)
	}
	return pod
}

func benchBody(b *testing.B, pod []byte) []byte {
	b.Helper()
	review, err := servertest.NewReview("705ab4f5-6393-11e8-b7cc-42010a800002", servertest.Object{JSON: pod})
	if err != nil {
		b.Fatal(err)
	}
	body, err := json.Marshal(review)
	if err != nil {
		b.Fatal(err)
	}
	return body
}

// BenchmarkReadReview is the envelope alone.
func BenchmarkReadReview(b *testing.B) {
	for _, size := range []int{4 << 10, 20 << 10} {
		body := benchBody(b, benchPod(b, 1, size))
		b.Run(fmt.Sprint("bytes=", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ReadReview(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecode is the envelope and the object in it.
func BenchmarkDecode(b *testing.B) {
	kind, _ := podKindOf("", "Pod")
	for _, images := range []int{1, 5} {
		for _, size := range []int{4 << 10, 20 << 10} {
			body := benchBody(b, benchPod(b, images, size))
			b.Run(fmt.Sprintf("images=%d/bytes=%d", images, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					request, err := ReadReview(body)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := readObject(kind, request.Object, request.decoder); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSelect(b *testing.B) {
	kind, _ := podKindOf("", "Pod")
	for _, images := range []int{1, 2, 5} {
		o, err := readObject(kind, benchPod(b, images, 4<<10), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint("images=", images), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if list, err := selectImages(o, EnvImages{Names: []string{"CODER_INNER_IMAGE"}}); err != nil || len(list) != images {
					b.Fatal(len(list), err)
				}
			}
		})
	}
}

// BenchmarkPatch is the mutating half without a registry and without rules: what is left is select and patch.
func BenchmarkPatch(b *testing.B) {
	for _, images := range []int{1, 5} {
		r := reviewerWith(b, func(*Input) []Finding { return nil })
		r.Catalogue = CataloguerFunc(covered)
		request := &Request{UID: "705ab4f5", Operation: Create, Kind: "Pod", Namespace: "team", Object: benchPod(b, images, 4<<10)}
		b.Run(fmt.Sprint("images=", images), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := r.Mutate(b.Context(), request); d.Outcome != Patched {
					b.Fatal(d)
				}
			}
		})
	}
}
