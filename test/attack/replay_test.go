package attack

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestRecordAndReplay: what was decided is judged again under another configuration without a registry, and no value of an
// env variable is in the recording.
func TestRecordAndReplay(t *testing.T) {
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	must(t, err)
	recordings := filepath.Join(t.TempDir(), "recordings")
	process, err := harness.Serve(context.WithoutCancel(t.Context()), binary, f, "--record", recordings)
	must(t, err)
	w := world{f, process}
	secret := func(spec object) {
		container := spec["containers"].([]any)[0].(object)
		container["env"] = []any{
			object{"name": "CODER_AGENT_TOKEN", "value": "hunter2-token"},
			object{"name": "CODER_INNER_IMAGE", "value": w.Ref("golden/tools:v1.0.0")},
			object{"name": "ENVBUILDER_FALLBACK_IMAGE", "value": "this is no reference"},
		}
	}
	pod := w.pod(secret)
	pod["metadata"] = object{
		"name": "ws", "namespace": "team",
		"labels":      object{"com.coder.workspace.name": "ws", "com.coder.user.username": "jane", "com.coder.template.name": "base"},
		"annotations": object{"kubectl.kubernetes.io/last-applied-configuration": "hunter2-annotation"},
	}
	w.admit(t, pod)
	allowed().check(t, w.admit(t, w.pod()))
	allowed().check(t, w.admit(t, w.pod(image(w.Ref("golden/tools:v1.0.0")))))
	denied("user: runs as root").check(t, w.admit(t, w.pod(image(w.Ref("golden/root:v1.0.0")))))
	must(t, process.Stop())
	must(t, f.Registry.Close())

	files, err := filepath.Glob(filepath.Join(recordings, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		if strings.Contains(string(text), "hunter2") || !strings.Contains(string(text), w.Ref("golden/tools")) {
			t.Errorf("the recording holds what it must not, or not what it must:\n%s", text)
		}
	}
	replay := func(config string) (string, int) {
		t.Helper()
		name := filepath.Join(t.TempDir(), "tomorrow.yaml")
		must(t, os.WriteFile(name, []byte(config), 0o600))
		command := exec.CommandContext(t.Context(), binary, "replay", "--config", name, recordings)
		var out bytes.Buffer
		command.Stdout, command.Stderr = &out, &out
		_ = command.Run() // the exit code tells
		return out.String(), command.ProcessState.ExitCode()
	}
	if out, code := replay(f.Configuration()); code != 0 || !strings.Contains(out, "4 admissions, 4 the same") {
		t.Errorf("under the same configuration: exit %d\n%s", code, out)
	}
	out, code := replay(f.Configuration() + "\nrules: {user: audit}\n")
	if code != 0 || !strings.Contains(out, "newly allowed by user: 1") || !strings.Contains(out, "4 admissions, 3 the same, 1 newly allowed") {
		t.Errorf("with a weaker rule: exit %d\n%s", code, out)
	}
	out, code = replay(strings.ReplaceAll(f.Configuration(), "golden/tools", "golden/others"))
	if code != 0 || !strings.Contains(out, "newly denied by golden: 1") || !strings.Contains(out, "golden: golden/tools is not a golden image") {
		t.Errorf("with another catalogue: exit %d\n%s", code, out)
	}
	if out, code := replay("nonsense"); code != 2 {
		t.Errorf("with a broken configuration: exit %d\n%s", code, out)
	}
}
