// Package attack runs attacks and failures against the real binary over HTTPS, with a real registry on loopback. A case
// is named after what it tries; each bypass that is ever found becomes one.
package attack

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// binary is the path of the program under test.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hallmark-attack-")
	if err == nil {
		binary, err = harness.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// world is a fixture and a webhook that judges by it.
type world struct {
	*harness.Fixture
	*harness.Webhook
}

// newWorld starts one; change may alter the configuration.
func newWorld(t *testing.T, config registrytest.Config, change func(string) string) world {
	t.Helper()
	f, err := harness.NewFixture(t.Context(), t.TempDir(), config, change)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Registry.Close() })
	w, err := harness.Serve(context.WithoutCancel(t.Context()), binary, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, w.Log())
		}
		if t.Failed() {
			t.Logf("log of the webhook:\n%s", w.Log())
		}
	})
	return world{f, w}
}

// object is a Kubernetes object under construction.
type object map[string]any

// pod is the smallest good one; fields are set in its spec.
func (w world) pod(set ...func(spec object)) object {
	spec := object{"containers": []any{w.container("dev", "golden/ws:v1.0.0")}}
	for _, f := range set {
		f(spec)
	}
	return object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "ws", "namespace": "team"}, "spec": spec,
	}
}

// container has an image of the fixture.
func (w world) container(name, image string) object {
	return object{"name": name, "image": w.Ref(image)}
}

// foreign has any image.
func foreign(name, image string) object { return object{"name": name, "image": image} }

// image replaces the containers by one with that image.
func image(ref string) func(object) {
	return func(spec object) { spec["containers"] = []any{foreign("dev", ref)} }
}

// with sets a field of the spec.
func with(name string, value any) func(object) {
	return func(spec object) { spec[name] = value }
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// admit sends an object through both halves.
func (w world) admit(t *testing.T, o any) servertest.Admission {
	t.Helper()
	return w.admitObject(t, servertest.Object{JSON: encode(t, o)})
}

func (w world) admitObject(t *testing.T, o servertest.Object) servertest.Admission {
	t.Helper()
	a, err := w.Client.Admit(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// want is the outcome of a case.
type want struct {
	allowed bool
	code    int32    // 403 when denied and 0
	says    []string // parts of the message
	without []string // what the message may not say
}

func (want want) check(t *testing.T, got servertest.Admission) {
	t.Helper()
	code := want.code
	if code == 0 && !want.allowed {
		code = 403
	}
	if got.Allowed != want.allowed || got.Code != code {
		t.Errorf("allowed %t with code %d, want %t with %d; message:\n%s", got.Allowed, got.Code, want.allowed, code, got.Message)
	}
	for _, part := range want.says {
		if !strings.Contains(got.Message, part) {
			t.Errorf("message lacks %q:\n%s", part, got.Message)
		}
	}
	for _, part := range want.without {
		if strings.Contains(got.Message, part) {
			t.Errorf("message has %q:\n%s", part, got.Message)
		}
	}
	checkMessage(t, got.Message)
}

// checkMessage holds every rejection to its limits.
func checkMessage(t *testing.T, message string) {
	t.Helper()
	first, _, _ := strings.Cut(message, "\n")
	if len(message) > 800 || len(first) > 160 {
		t.Errorf("message has %d bytes and its first line %d:\n%s", len(message), len(first), message)
	}
}

// allowed is the outcome of what must go on working.
func allowed() want { return want{allowed: true} }

// denied says what a rejection must contain.
func denied(parts ...string) want { return want{says: parts} }

// noRequests fails when anybody asked the registry for anything.
func (w world) noRequests(t *testing.T) {
	t.Helper()
	if requests := w.Registry.Requests(); len(requests) > 0 {
		t.Errorf("the registry was asked: %+v", requests)
	}
}

// eventually waits for a condition that another process brings about.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come about", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
