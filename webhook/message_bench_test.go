package webhook

import (
	"fmt"
	"testing"
)

// BenchmarkRefusal is the validating half up to a message, with rules that find three things of each image at no cost.
func BenchmarkRefusal(b *testing.B) {
	for _, images := range []int{1, 5} {
		r := reviewerWith(b, func(in *Input) (findings []Finding) {
			for _, image := range in.Images {
				findings = append(findings,
					Finding{Rule: "tag", Image: image, Message: `"ubuntu" names a distribution and moves; allowed here: exact, dated`},
					Finding{Rule: "signature", Image: image, Message: "not signed by devex-ci"},
					Finding{Rule: "registry", Image: image, Message: "docker.io is not an internal registry"})
			}
			return findings
		})
		request := &Request{UID: "705ab4f5", Operation: Create, Kind: "Pod", Namespace: "team", Object: benchPod(b, images, 4<<10)}
		b.Run(fmt.Sprint("images=", images), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := r.Validate(b.Context(), request); d.Outcome != Denied || d.Message == "" {
					b.Fatal(d)
				}
			}
		})
	}
}
