package signature_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

func TestClaims(t *testing.T) {
	const unbound = webhook.RepositoryAny
	claim := func(kind, digest, identity string) []byte {
		return fmt.Appendf(nil, `{"critical":{"identity":%s,"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, identity, digest, kind)
	}
	const kind = "cosign container image signature"
	identity := func(w *world) string { return fmt.Sprintf(`{"docker-reference":%q}`, w.ref.Name()) }
	tests := []struct {
		name     string
		opts     func(*world) registrytest.SignOptions
		bind     webhook.RepositoryClaim
		rejected string // "" is valid
	}{
		{"as cosign signs", func(*world) registrytest.SignOptions { return registrytest.SignOptions{} }, "", ""},
		{"annotated", func(*world) registrytest.SignOptions {
			return registrytest.SignOptions{Optional: map[string]any{"build": 1, "tag": "v1"}}
		}, "", ""},
		{"with a tag", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{DockerReference: w.ref.Name() + ":v1"}
		}, "", ""},
		{"other repository", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{DockerReference: w.registry.Host() + "/golden/other"}
		}, "", `right key, other repository "HOST/golden/other"`},
		{"other registry", func(*world) registrytest.SignOptions {
			return registrytest.SignOptions{DockerReference: "evil.example/golden/base"}
		}, "", `right key, other repository "evil.example/golden/base"`},
		{"repository with a suffix", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{DockerReference: w.ref.Name() + "-evil"}
		}, "", `right key, other repository "HOST/golden/base-evil"`},
		{"unreadable repository", func(*world) registrytest.SignOptions {
			return registrytest.SignOptions{DockerReference: "GOLDEN\n/" + strings.Repeat("x", 300)}
		}, "", `right key, other repository "GOLDEN\n/` + strings.Repeat("x", 28) + "..." + strings.Repeat("x", 36) + `"`},
		{"other repository, not bound", func(*world) registrytest.SignOptions {
			return registrytest.SignOptions{DockerReference: "evil.example/golden/base"}
		}, unbound, ""},
		{"no identity", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{Payload: claim(kind, w.digest, "{}")}
		}, "", "right key, no repository in the signature"},
		{"no identity, not bound", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{Payload: claim(kind, w.digest, "null")}
		}, unbound, ""},
		{"other digest", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{Payload: claim(kind, "sha256:"+strings.Repeat("a", 64), identity(w))}
		}, "", "right key, other digest"},
		{"other digest, not bound", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{Payload: claim(kind, "sha256:"+strings.Repeat("a", 64), identity(w))}
		}, unbound, "right key, other digest"},
		{"empty digest", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{Payload: claim(kind, "", identity(w))}
		}, "", "right key, no digest in the signature"},
		{"other type", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{Payload: claim("atomic container signature", w.digest, identity(w))}
		}, "", "right key, but not a signature of an image"},
		{"no type", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{Payload: claim("", w.digest, identity(w))}
		}, "", "right key, but not a signature of an image"},
		{"in capitals", func(w *world) registrytest.SignOptions {
			return registrytest.SignOptions{Payload: []byte(strings.Replace(string(claim(kind, w.digest, identity(w))), "critical", "Critical", 1))}
		}, "", "right key, but not a signature of an image"},
		{"twice", func(w *world) registrytest.SignOptions {
			body := string(claim(kind, w.digest, identity(w)))
			return registrytest.SignOptions{Payload: []byte(body[:len(body)-1] + `,"critical":{}}`)}
		}, "", "right key, unreadable payload"},
		{"not JSON", func(*world) registrytest.SignOptions {
			return registrytest.SignOptions{Payload: []byte("signed")}
		}, "", "right key, unreadable payload"},
		{"deep", func(*world) registrytest.SignOptions {
			return registrytest.SignOptions{Payload: []byte(strings.Repeat("[", 30_000))}
		}, "", "right key, unreadable payload"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.rule.Repository = test.bind
			w.sign(w.ci, test.opts(w))
			got, err := w.verify()
			if test.rejected == "" {
				w.want(got, err, []string{"devex-ci"}, 1)
				return
			}
			w.want(got, err, nil, 1, strings.ReplaceAll(test.rejected, "HOST", w.registry.Host()))
		})
	}
}
