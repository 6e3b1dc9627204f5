package attack

import (
	"compress/gzip"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// logEvent is what a test looks at of an event of OPA's decision log.
type logEvent struct {
	Labels     map[string]string `json:"labels"`
	DecisionID string            `json:"decision_id"`
	Path       string            `json:"path"`
	Bundles    map[string]struct{ Revision string }
	Input      struct {
		Request map[string]any
		Object  json.RawMessage
	}
	Result struct {
		Allowed  bool
		Decision string
		Message  string
		Findings []struct{ Rule, Mode, Where string }
		Images   []struct{ Where, Image, Digest string }
	}
}

// logService collects them.
type logService struct {
	*httptest.Server
	mutex  sync.Mutex
	text   strings.Builder
	events []logEvent
}

func newLogService(t *testing.T) *logService {
	t.Helper()
	s := &logService{}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		unpacked, err := gzip.NewReader(r.Body)
		if err != nil || r.Header.Get("Authorization") != "Bearer t0ken" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		text, err := io.ReadAll(unpacked)
		var events []logEvent
		if err == nil {
			err = json.Unmarshal(text, &events)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
			return
		}
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.text.Write(text)
		s.events = append(s.events, events...)
	}))
	t.Cleanup(s.Close)
	return s
}

// configuration is the section for a webhook, whose files are in a directory.
func (s *logService) configuration(t *testing.T, dir, more string) string {
	t.Helper()
	for name, content := range map[string][]byte{
		"log-token": []byte("t0ken"), "log-ca.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("decisionLog: {url: %s/logs, ca: %s, credentials: %s, labels: {cluster: prod}, every: 100ms%s}\n",
		s.URL, filepath.Join(dir, "log-ca.pem"), filepath.Join(dir, "log-token"), more)
}

// about finds the event of one half about a namespace.
func (s *logService) about(path, namespace string) (found *logEvent) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for i, e := range s.events {
		if e.Path == "hallmark/"+path && e.Input.Request["namespace"] == namespace {
			found = &s.events[i]
		}
	}
	return found
}

// TestDecisionLog: both halves of an admission reach the service with what was decided, the object only when that is
// wanted, values of env variables never; a reload switches it.
func TestDecisionLog(t *testing.T) {
	s, dir := newLogService(t), t.TempDir()
	w := newWorld(t, registrytest.Config{}, func(text string) string { return text + s.configuration(t, dir, "") })
	secret := func(namespace, ref string) object {
		pod := w.pod(image(ref))
		pod["metadata"].(object)["namespace"] = namespace
		pod["metadata"].(object)["annotations"] = object{"kubectl.kubernetes.io/last-applied-configuration": "s3cr3t"}
		pod["spec"].(object)["containers"].([]any)[0].(object)["env"] = []any{object{"name": "CODER_AGENT_TOKEN", "value": "s3cr3t"}}
		return pod
	}
	allowed().check(t, w.admit(t, secret("good", w.Ref("golden/ws:v1.0.0"))))
	denied().check(t, w.admit(t, secret("bad", "docker.io/library/ubuntu:latest")))
	eventually(t, "the refusal in the decision log", func() bool { return s.about("validate", "bad") != nil })
	if e := s.about("mutate", "good"); e == nil || e.Result.Decision != "patched" || e.Input.Object != nil {
		t.Errorf("the mutating half: %+v", e)
	}
	e := s.about("validate", "good")
	if e == nil || !e.Result.Allowed || len(e.Result.Images) != 1 || e.Result.Images[0].Digest != w.Digests["golden/ws:v1.0.0"] {
		t.Errorf("the admission: %+v", e)
	}
	e = s.about("validate", "bad")
	if e.Result.Allowed || e.Labels["cluster"] != "prod" || e.Labels["app"] != "hallmark" || e.Bundles["hallmark"].Revision == "" ||
		!strings.HasPrefix(e.Result.Message, "Image docker.io/library/ubuntu:latest is not allowed") || e.DecisionID == "" {
		t.Errorf("the refusal: %+v", e)
	}
	rules := map[string]bool{}
	for _, f := range e.Result.Findings {
		rules[f.Rule] = f.Mode == "enforce" && f.Where == "containers[dev]"
	}
	if !rules["registry"] || !rules["tag"] {
		t.Errorf("findings %+v", e.Result.Findings)
	}
	t.Run("with objects", func(t *testing.T) {
		w.configure(t, func(text string) string { return text + s.configuration(t, dir, ", input: true") })
		eventually(t, "an object", func() bool {
			w.admit(t, secret("object", w.Ref("golden/ws:v1.0.0")))
			e := s.about("validate", "object")
			return e != nil && len(e.Input.Object) > 0
		})
		if text := string(s.about("validate", "object").Input.Object); !strings.Contains(text, `"CODER_AGENT_TOKEN"`) {
			t.Errorf("object %s", text)
		}
	})
	if m := w.metrics(t); !strings.Contains(m, `hallmark_decision_log_events_total{result="dropped"} 0`) {
		t.Error("something was dropped")
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if strings.Contains(s.text.String(), "s3cr3t") {
		t.Error("a secret was sent")
	}
}

// TestDecisionLogAtTheEnd: what waits is sent before the process ends.
func TestDecisionLogAtTheEnd(t *testing.T) {
	s, dir := newLogService(t), t.TempDir()
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, func(text string) string {
		return text + strings.Replace(s.configuration(t, dir, ""), "100ms", "1h", 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Registry.Close()
	hook, err := harness.Serve(t.Context(), binary, f)
	if err != nil {
		t.Fatal(err)
	}
	w := world{f, hook}
	allowed().check(t, w.admit(t, w.pod()))
	if s.about("validate", "team") != nil {
		t.Error("it was not waited")
	}
	if err := hook.Stop(); err != nil {
		t.Errorf("stop: %v\n%s", err, hook.Log())
	}
	if s.about("mutate", "team") == nil || s.about("validate", "team") == nil {
		t.Errorf("the last decisions are missing; log:\n%s", hook.Log())
	}
}
