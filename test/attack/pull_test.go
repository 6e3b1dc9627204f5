package attack

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestAirGap: a directory that was filled elsewhere admits its images where there is no registry, and no others.
func TestAirGap(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache")
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, func(text string) string {
		return text + fmt.Sprintf("cache: {dir: %q}\n", cache)
	})
	if err != nil {
		t.Fatal(err)
	}
	pull := func(images ...string) (string, error) {
		args := []string{"image", "pull", "--config", filepath.Join(f.Dir, "hallmark.yaml"), "--dir", cache}
		for _, image := range images {
			args = append(args, f.Ref(image))
		}
		out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
		return string(out), err
	}
	out, err := pull("golden/ws:v1.0.0", "golden/multi:v1.0.0")
	if want := f.Digests["golden/ws:v1.0.0"] + " " + f.Ref("golden/ws:v1.0.0") + "\n"; err != nil || !strings.Contains(out, want) {
		t.Fatalf("%s, %v; want %q", out, err, want)
	}
	for image, says := range map[string]string{
		"golden/ws:v9.9.9": "is not signed as the configuration demands", "golden/ws:v4.0.4": "has no tag v4.0.4",
		"golden/WS:v1": "invalid image reference",
	} {
		if out, err := pull(image); err == nil || !strings.Contains(out, says) {
			t.Errorf("%s: %s, %v; want %q", image, out, err, says)
		}
	}
	if err := f.Registry.Close(); err != nil {
		t.Fatal(err)
	}
	hook, err := harness.Serve(t.Context(), binary, f)
	if err != nil {
		t.Fatal(err)
	}
	w := world{f, hook}
	defer func() {
		if err := hook.Stop(); err != nil {
			t.Error(err)
		}
	}()
	allowed().check(t, w.admit(t, w.pod()))
	allowed().check(t, w.admit(t, w.pod(image(w.Ref("golden/multi:v1.0.0")))))
	for _, unproved := range []string{"golden/tools:v1.0.0", "golden/ws:v9.9.9"} {
		want{code: 503, says: []string{"could not be checked"}, without: []string{"not signed"}}.
			check(t, w.admit(t, w.pod(image(w.Ref(unproved)))))
	}
}
