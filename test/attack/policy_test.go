package attack

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// withRule starts the webhook with one more rule, data.hallmark.rules.mine.
func withRule(t *testing.T, rego string, change func(string) string) world {
	t.Helper()
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, change)
	must(t, err)
	t.Cleanup(func() { must(t, f.Registry.Close()) })
	hook, err := harness.Serve(context.WithoutCancel(t.Context()), binary, f, "--policies", ruleDirectory(t, rego))
	must(t, err)
	t.Cleanup(func() { must(t, hook.Stop()) })
	return world{f, hook}
}

func ruleDirectory(t *testing.T, rego string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "mine.rego"), []byte("package hallmark.rules.mine\n\n"+rego), 0o600))
	return dir
}

// TestRulesWithoutAnAnswer: a rule that gives nothing usable denies, in one line that names it (RGO-001, RGO-003, RGO-004).
func TestRulesWithoutAnAnswer(t *testing.T) {
	for title, c := range map[string]struct{ rego, says string }{
		"undefined (RGO-001)":                {`deny := set() if input.request.kind == "Node"`, "undefined"},
		"no set (RGO-001)":                   {`deny := false`, "not a set"},
		"to_number of a word (RGO-003)":      {`deny contains {"message": "no"} if to_number(input.request.namespace) == 1`, "the rule failed"},
		"division by zero (RGO-003)":         {`deny contains {"message": "no"} if 1 / (count(input.images) - 1) == 1`, "the rule failed"},
		"two values of one rule (RGO-004)":   {"deny contains {\"message\": _m}\n_m := \"a\" if input.images\n_m := \"b\" if input.request", "the rule failed"},
		"two values of a function (RGO-004)": {"deny contains {\"message\": _f(1)}\n_f(_) := \"a\"\n_f(_) := \"b\"", "the rule failed"},
	} {
		t.Run(title, func(t *testing.T) {
			w := withRule(t, c.rego, nil)
			denied("object: mine: could not be checked", c.says).check(t, w.admit(t, w.pod()))
		})
	}
}

// TestRulesOutOfBounds: what a rule must not have keeps the webhook from starting, with file and line (RGO-006).
func TestRulesOutOfBounds(t *testing.T) {
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	must(t, err)
	defer f.Registry.Close()
	for title, rego := range map[string]string{
		"http.send":          `deny contains {"message": "no"} if http.send({"url": "http://127.0.0.1", "method": "get"}).status_code == 200`,
		"net.lookup_ip_addr": `deny contains {"message": "no"} if net.lookup_ip_addr("localhost")`,
		"opa.runtime":        `deny contains {"message": "no"} if opa.runtime().env.HOME`,
		"time.now_ns":        `deny contains {"message": "no"} if time.now_ns() > 0`,
		"rand.intn":          `deny contains {"message": "no"} if rand.intn("a", 2) == 1`,
		"regsitry":           `deny contains {"message": "no"} if input.images[_].regsitry == "docker.io"`,
	} {
		t.Run(title, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), binary, "serve", "--config", filepath.Join(f.Dir, "hallmark.yaml"),
				"--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--tls-cert", filepath.Join(f.Dir, "tls.crt"),
				"--tls-key", filepath.Join(f.Dir, "tls.key"), "--policies", ruleDirectory(t, rego))
			out, err := command.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "mine.rego:3") || !strings.Contains(string(out), title) {
				t.Errorf("got %v:\n%s\nwant an error that names mine.rego:3 and %s", err, out, title)
			}
		})
	}
}

// TestEndlessRule: a rule that does not end is cut off by the deadline, and whom it does not concern is served meanwhile
// (RGO-007).
func TestEndlessRule(t *testing.T) {
	w := withRule(t, `deny contains {"message": "no"} if {
	input.request.namespace == "slow"
	n := numbers.range(1, 100000)
	some a in n
	some b in n
	some c in n
	a + b + c < 0
}`, func(text string) string { return text + "\nlimits: {deadline: 1s}\n" })
	quick, slow := w.pod(), w.pod()
	slow["metadata"] = object{"name": "ws", "namespace": "slow"}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			start := time.Now()
			got, err := w.Client.Admit(t.Context(), servertest.Object{JSON: encode(t, slow)})
			if err != nil || got.Allowed || !strings.Contains(got.Message, "could not be evaluated") {
				t.Errorf("allowed %t after %v: %q, %v", got.Allowed, time.Since(start), got.Message, err)
			}
		})
	}
	for range 5 {
		allowed().check(t, w.admit(t, quick))
	}
	group.Wait()
	allowed().check(t, w.admit(t, quick))
}

// TestRulesSeeParts: a rule compares parts of a reference that is spelled out, not a text that could be spelled otherwise
// (RGO-009).
func TestRulesSeeParts(t *testing.T) {
	w := withRule(t, `deny contains {"image": image.where, "message": "{text}", "args": {"text": text}} if {
	some image in input.images
	text := concat(" ", [image.registry, image.repository, image.tag])
}`, func(text string) string {
		return strings.Replace(text, "mode: enforce", "mode: audit\nrules: {mine: enforce}", 1)
	})
	for spelled, parts := range map[string]string{
		"ubuntu:24.04":                          "docker.io library/ubuntu 24.04",
		"index.docker.io/library/ubuntu:24.04":  "docker.io library/ubuntu 24.04",
		"registry-1.docker.io/ubuntu:24.04":     "docker.io library/ubuntu 24.04",
		"codercom/enterprise-base:ubuntu":       "docker.io codercom/enterprise-base ubuntu",
		w.Ref("golden/ws:v1.0.0"):               w.Registry.Host() + " golden/ws v1.0.0",
		w.Pinned("golden/ws:v1.0.0"):            w.Registry.Host() + " golden/ws v1.0.0",
		"localhost/golden/ws:v1.0.0":            "localhost golden/ws v1.0.0",
		"registry.corp.example/a/b/c:v1.0.0-rc": "registry.corp.example a/b/c v1.0.0-rc",
	} {
		denied("mine: "+parts).check(t, w.admit(t, w.pod(image(spelled))))
	}
}

// TestRulesDoNotPrint: what a rule prints goes nowhere (RGO-012).
func TestRulesDoNotPrint(t *testing.T) {
	w := withRule(t, `deny contains {"message": "no"} if {
	print("printed", input)
	input.object.spec.hostNetwork
}`, nil)
	object := w.pod(func(spec object) {
		spec["containers"].([]any)[0].(object)["env"] = []any{object{"name": "TOKEN", "value": "hunter2"}}
	})
	allowed().check(t, w.admit(t, object))
	if log := w.Log(); strings.Contains(log, "printed") || strings.Contains(log, "hunter2") {
		t.Errorf("the log has it:\n%s", log)
	}
}
