package attack

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// configure replaces the configuration file as an admin's tool would.
func (w world) configure(t *testing.T, change func(string) string) {
	t.Helper()
	if err := w.Write("hallmark.yaml", []byte(change(w.Configuration()))); err != nil {
		t.Fatal(err)
	}
}

// TestReload: a changed file takes effect without a restart, and a bad one never does.
func TestReload(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	allowed().check(t, w.admit(t, w.pod()))

	_, otherPEM, err := registrytest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("revoked key", func(t *testing.T) {
		key := strings.ReplaceAll(strings.TrimSpace(w.KeyPEM), "\n", "\n      ")
		other := strings.ReplaceAll(strings.TrimSpace(otherPEM), "\n", "\n      ")
		w.configure(t, func(text string) string { return strings.Replace(text, key, other, 1) })
		eventually(t, "a denial of what the old key signed", func() bool { return !w.admit(t, w.pod()).Allowed })
		denied("signature: not signed by ci (found: 1 signature by an unknown key)").check(t, w.admit(t, w.pod()))
		w.configure(t, func(text string) string { return text })
		eventually(t, "the old key", func() bool { return w.admit(t, w.pod()).Allowed })
	})
	t.Run("bad file", func(t *testing.T) {
		w.configure(t, func(text string) string { return text + "\nregistres: []\n" })
		eventually(t, "the complaint", func() bool { return strings.Contains(w.Log(), `unknown key \"registres\"`) })
		allowed().check(t, w.admit(t, w.pod()))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.MetricsURL+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, metrics, err := w.Client.Do(request)
		if err != nil || !strings.Contains(string(metrics), `hallmark_reloads_total{result="failure",what="config"} 1`) {
			t.Errorf("the failure is not counted (%v)", err)
		}
		w.configure(t, func(text string) string { return text })
	})
}

// TestPolicyDirectory: rules of one's own are judged beside the shipped ones, and reloaded.
func TestPolicyDirectory(t *testing.T) {
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Registry.Close()
	dir := t.TempDir()
	rule := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "host.rego"), []byte("package hallmark.rules.host\n\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rule(`deny contains {"message": "a workspace may not use the host's network", "fix": "remove hostNetwork"} if input.object.spec.hostNetwork`)
	hook, err := harness.Serve(t.Context(), binary, f, "--policies", dir)
	if err != nil {
		t.Fatal(err)
	}
	w := world{f, hook}
	defer func() {
		if err := hook.Stop(); err != nil {
			t.Error(err)
		}
	}()
	host := w.pod(with("hostNetwork", true))
	allowed().check(t, w.admit(t, w.pod()))
	denied("object: host: a workspace may not use the host's network; remove hostNetwork", "Pod ws is not allowed").check(t, w.admit(t, host))

	rule(`deny contains {"message": "no"} if input.object.spec.hostNetwork == to_number(input.request.name)`)
	eventually(t, "the failing rule", func() bool { return strings.Contains(w.admit(t, host).Message, "the rule failed") })
	denied("object: host: could not be checked: the rule failed").check(t, w.admit(t, host))

	rule(`deny contains {"message": "no"} if input.objekt`)
	eventually(t, "the complaint", func() bool { return strings.Contains(w.Log(), "undefined ref: input.objekt") })
	denied("the rule failed").check(t, w.admit(t, host))
}

// TestDecisionsAreConsistent: while the configuration flips a thousand times, every answer is wholly that of one or of
// the other. Most of the files are replaced before they are read; the last twenty are waited for.
func TestDecisionsAreConsistent(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	bad := encode(t, w.pod(image("docker.io/library/ubuntu:latest")))
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := w.Client.Admit(t.Context(), servertest.Object{JSON: bad})
				if err != nil {
					t.Error(err)
					return
				}
				if tag := strings.Contains(a.Message, "tag:"); a.Allowed || tag != strings.Contains(a.Message, "registry:") {
					t.Errorf("half of one configuration and half of another:\n%s", a.Message)
				}
			}
		})
	}
	flip := func(i int) {
		w.configure(t, func(text string) string {
			if i%2 == 0 {
				return text + "rules: {tag: audit, registry: audit}\n"
			}
			return text
		})
	}
	for i := range 980 {
		flip(i)
		time.Sleep(2 * time.Millisecond)
	}
	for i := range 20 {
		flip(i)
		eventually(t, "a reload", func() bool {
			a, err := w.Client.Admit(t.Context(), servertest.Object{JSON: bad})
			return err == nil && strings.Contains(a.Message, "tag:") == (i%2 == 1)
		})
	}
	close(stop)
	group.Wait()
}
