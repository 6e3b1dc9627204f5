package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDebug: what kubectl debug puts into a pod is judged and pinned by itself.
func TestDebug(t *testing.T) {
	s := newSession(t, "debug")
	s.ok(newPod("ws", w.ref("golden/ws:v1.0.0")), "create", "-f", "-")
	good := w.ref("golden/tools:v1.0.0")
	debug := func(name, image string, more ...string) []string {
		return append([]string{"debug", "ws", "--container=" + name, "--image=" + image}, more...)
	}
	t.Run("bad image", func(t *testing.T) {
		s := s.on(t)
		s.checkRefusal(s.refused(nil, debug("bad", foreignImage)...), onServer,
			"Image "+foreignImage+" is not allowed.",
			"- ephemeralContainers[bad]: golden: x is not a golden image",
			"- ephemeralContainers[bad]: registry: evil.example is not an internal registry")
	})
	t.Run("not signed", func(t *testing.T) {
		s := s.on(t)
		s.contains(s.refused(nil, debug("bad", w.ref("golden/ws:v9.9.9"))...), "- ephemeralContainers[bad]: signature: not signed by ci")
	})
	t.Run("good image as root", func(t *testing.T) {
		s := s.on(t)
		custom := filepath.Join(t.TempDir(), "custom.json")
		if err := os.WriteFile(custom, []byte(`{"securityContext":{"runAsUser":0}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		s.contains(s.refused(nil, debug("bad", good, "--custom="+custom)...),
			"- ephemeralContainers[bad]: user: runs as root (securityContext of the container)")
	})
	t.Run("good image", func(t *testing.T) {
		s := s.on(t)
		s.ok(nil, debug("good", good)...)
		got := placesOf(&s.pod("ws").Spec)
		if want := w.pinned("golden/tools:v1.0.0"); got["ephemeralContainers[good]"] != want || len(got) != 2 {
			t.Errorf("the pod has %v, want ephemeralContainers[good] %s and dev", got, want)
		}
	})
	t.Run("copy of a pinned pod", func(t *testing.T) {
		s := s.on(t)
		s.ok(nil, debug("good", good, "--copy-to=copy")...)
		got := placesOf(&s.pod("copy").Spec)
		if got["containers[dev]"] != w.pinned("golden/ws:v1.0.0") || got["containers[good]"] != w.pinned("golden/tools:v1.0.0") {
			t.Errorf("the copy has %v", got)
		}
	})
	t.Run("copy with another image", func(t *testing.T) {
		s := s.on(t)
		s.contains(s.refused(nil, debug("good", good, "--copy-to=evil", "--set-image=dev="+foreignImage)...),
			"- containers[dev]: registry: evil.example is not an internal registry")
		s.absent("evil")
	})
}
