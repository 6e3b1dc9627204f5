package server

import (
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
)

// BenchmarkEncode is the answer as it goes over the wire.
func BenchmarkEncode(b *testing.B) {
	request := &webhook.Request{UID: "705ab4f5-6393-11e8-b7cc-42010a800002"}
	patch := []byte(`[{"op":"test","path":"/spec/containers/0/image","value":"registry.corp.example:5000/golden/base:v1.0.0"},` +
		`{"op":"replace","path":"/spec/containers/0/image","value":"registry.corp.example:5000/golden/base:v1.0.0@sha256:` +
		`aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]`)
	image := &webhook.Image{Where: "containers[dev]", Text: "evil.example/x:v1.0.0"}
	for name, decision := range map[string]webhook.Decision{
		"allowed": {ID: "705ab4f5", Outcome: webhook.Allowed},
		"patched": {ID: "705ab4f5", Outcome: webhook.Patched, Patch: patch},
		"denied": {
			ID: "705ab4f5", Outcome: webhook.Denied, Code: 403, Message: "Image evil.example/x:v1.0.0 is not allowed: evil.example is no configured registry.",
			Findings: []webhook.Finding{{Rule: "registry", Mode: webhook.Enforce, Image: image, Message: "evil.example is no configured registry"}},
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := encode(request, decision); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
