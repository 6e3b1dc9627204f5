package attack

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// derivable has others built on golden/ws, as its default tag v2.0.0 names it or as they say themselves.
func derivable(more string) func(string) string {
	return func(text string) string {
		return strings.Replace(text, "{name: ws, ", "{name: ws, allowDerived: true, "+more, 1)
	}
}

// layered pushes an image of these layers, and signs it with the fixture's key, or with that of nobody.
func (w world) layered(t *testing.T, image registrytest.Image, signed bool) string {
	t.Helper()
	if image.User == "" {
		image.User = "1000"
	}
	digest, err := w.Registry.PushImage(t.Context(), image)
	if err == nil && signed {
		err = w.Registry.Sign(t.Context(), image.Repository, digest, w.Key, registrytest.SignOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// TestDerived: an image counts as golden when its layers begin with those of a golden one and both are signed.
func TestDerived(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, derivable("defaultTag: v2.0.0, "))
	base := registrytest.Image{Repository: "golden/ws", Tag: "v2.0.0", Layers: []string{"os", "git"}}
	w.layered(t, base, true)
	older := w.layered(t, registrytest.Image{Repository: "golden/ws", Tag: "v1.9.0", Layers: []string{"old os", "git"}}, true)
	unsigned := w.layered(t, registrytest.Image{Repository: "golden/ws", Tag: "v1.8.0", Layers: []string{"older os", "git"}}, false)
	says := func(digest string) map[string]string {
		return map[string]string{"org.opencontainers.image.base.digest": digest}
	}
	n := 0
	for title, c := range map[string]struct {
		image    registrytest.Image
		unsigned bool
		want     want
	}{
		"built on it":                      {registrytest.Image{Layers: []string{"os", "git", "mine"}}, false, allowed()},
		"the same layers":                  {registrytest.Image{Layers: []string{"os", "git"}}, false, allowed()},
		"fewer layers":                     {registrytest.Image{Layers: []string{"os"}}, false, denied("golden: sandbox/mine is neither a golden image nor built on one")},
		"other order":                      {registrytest.Image{Layers: []string{"git", "os", "mine"}}, false, denied("golden: sandbox/mine is neither")},
		"its layers on top of others":      {registrytest.Image{Layers: []string{"mine", "os", "git"}}, false, denied("golden: sandbox/mine is neither")},
		"built on it, and not signed":      {registrytest.Image{Layers: []string{"os", "git", "unsigned"}}, true, denied("golden: sandbox/mine is built on ws, but not signed by ci", "signature: not signed by ci")},
		"built on it for another platform": {registrytest.Image{Arch: "arm64", Layers: []string{"os", "git", "mine"}}, false, denied("golden: sandbox/mine is neither")},
		"built on an older one":            {registrytest.Image{Layers: []string{"old os", "git", "mine"}}, false, denied("golden: sandbox/mine is neither")},
		"built on an older one, and says":  {registrytest.Image{Layers: []string{"old os", "git", "mine"}, Labels: says(older)}, false, allowed()},
		"says it and is not":               {registrytest.Image{Layers: []string{"mine"}, Labels: says(older)}, false, denied("golden: sandbox/mine is neither")},
		"says what is not there":           {registrytest.Image{Layers: []string{"mine"}, Labels: says("sha256:" + strings.Repeat("a", 64))}, false, denied("golden: sandbox/mine is neither")},
		"built on one that nobody signed":  {registrytest.Image{Layers: []string{"older os", "git", "mine"}, Labels: says(unsigned)}, false, denied("golden: sandbox/mine is built on ws, which is not signed by ci")},
		"built on it, and runs as root":    {registrytest.Image{User: "0", Layers: []string{"os", "git", "mine"}}, false, denied("user: runs as root")},
	} {
		t.Run(title, func(t *testing.T) {
			n++
			c.image.Repository, c.image.Tag = "sandbox/mine", fmt.Sprintf("v1.0.%d", n)
			w.layered(t, c.image, !c.unsigned)
			c.want.check(t, w.admit(t, w.pod(image(w.Ref("sandbox/mine:"+c.image.Tag)))))
		})
	}
}

// TestDerivedWithoutRegistry: what could not be looked at is not called foreign.
func TestDerivedWithoutRegistry(t *testing.T) {
	w := newWorld(t, registrytest.Config{Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/golden/") {
				http.Error(rw, "", http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}}, derivable("defaultTag: v2.0.0, "))
	w.layered(t, registrytest.Image{Repository: "golden/ws", Tag: "v2.0.0", Layers: []string{"os"}}, true)
	w.layered(t, registrytest.Image{Repository: "sandbox/mine", Tag: "v1.0.0", Layers: []string{"os", "mine"}}, true)
	want{code: http.StatusServiceUnavailable, says: []string{"could not be checked", "try again"}, without: []string{"neither"}}.
		check(t, w.admit(t, w.pod(image(w.Ref("sandbox/mine:v1.0.0")))))
}

// TestNotDerivable: without the setting an image that is not golden is refused before anybody is asked.
func TestNotDerivable(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	w.Registry.Reset()
	denied("golden: sandbox/mine is not a golden image").check(t, w.admit(t, w.pod(image(w.Ref("sandbox/mine:v1.0.0")))))
	if n := len(w.Registry.Requests()); n != 0 {
		t.Errorf("%d requests: %v", n, w.Registry.Requests())
	}
}
