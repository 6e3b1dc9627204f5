package attack

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// A target is a registry besides the fixture's, as the configuration names it. Each has its own port, so what the
// webhook learns of one says nothing about another.
type target struct {
	host           string
	ca             []byte // nil is plain HTTP
	user, password string // "" is anonymous
	more           string // further keys of the entry: ", blobHosts: [a.example]"
}

// besiege starts a webhook that may contact the targets too, and wants their images signed by ci. Those below pinned/ may
// be named by digest alone. more is added to the configuration.
func besiege(t *testing.T, more string, targets ...target) world {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var registries, signatures, tags strings.Builder
	for i, target := range targets {
		transport := "plainHTTP: true"
		if target.ca != nil {
			transport = fmt.Sprintf("ca: %q", file(fmt.Sprintf("%d.crt", i), target.ca))
		}
		if target.user != "" {
			auth, err := json.Marshal(map[string]any{"auths": map[string]any{target.host: map[string]string{
				"auth": base64.StdEncoding.EncodeToString([]byte(target.user + ":" + target.password)),
			}}})
			if err != nil {
				t.Fatal(err)
			}
			transport += fmt.Sprintf(", credentials: %q", file(fmt.Sprintf("%d.json", i), auth))
		}
		fmt.Fprintf(&registries, "  - {host: %q, %s%s}\n", target.host, transport, target.more)
		fmt.Fprintf(&signatures, "  - {match: [%q], anyOf: [ci]}\n", target.host+"/**")
		fmt.Fprintf(&tags, "    - {match: [%q], allow: [digest, exact]}\n", target.host+"/pinned/**")
	}
	return newWorld(t, registrytest.Config{}, func(text string) string {
		text = strings.Replace(text, "\nregistries:\n", "\nrules: {golden: off}\nregistries:\n"+registries.String(), 1)
		text = strings.Replace(text, "\n  repositories:\n", "\n  repositories:\n"+tags.String(), 1)
		return strings.Replace(text, "\nsignatures:\n", "\nsignatures:\n"+signatures.String(), 1) + more
	})
}

// hostile starts a server that ends with the test.
func hostile(t *testing.T, config harness.HostileConfig) *harness.Hostile {
	t.Helper()
	h, err := harness.NewHostile(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// serving starts a registry whose answers handle may replace; it says whether it did.
func serving(t *testing.T, auth *registrytest.Auth, handle func(http.ResponseWriter, *http.Request) bool) *registrytest.Registry {
	t.Helper()
	r, err := registrytest.New(registrytest.Config{Auth: auth, Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if handle == nil || !handle(w, r) {
				next.ServeHTTP(w, r)
			}
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func targetOf(r *registrytest.Registry) target { return target{host: r.Host(), ca: r.CAPEM()} }

// publish puts a signed image into a registry.
func (w world) publish(t *testing.T, r *registrytest.Registry, repository, tag string) (digest string) {
	t.Helper()
	digest, err := r.PushImage(t.Context(), registrytest.Image{Repository: repository, Tag: tag, User: "1000"})
	if err == nil {
		err = r.Sign(t.Context(), repository, digest, w.Key, registrytest.SignOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// within fails when what f does takes longer than limit.
func within(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if elapsed := time.Since(start); elapsed > limit {
		t.Errorf("it took %v, want at most %v", elapsed.Round(time.Millisecond), limit)
	}
}

// metrics is what the webhook counts.
func (w world) metrics(t *testing.T) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.MetricsURL+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	status, text, err := w.Client.Do(request)
	if err != nil || status != http.StatusOK {
		t.Fatalf("metrics: %d, %v", status, err)
	}
	return string(text)
}

// sound fails when the webhook has panicked or does not admit a good pod any more.
func (w world) sound(t *testing.T) {
	t.Helper()
	allowed().check(t, w.admit(t, w.pod()))
	if !strings.Contains(w.metrics(t), "\nhallmark_panics_total 0\n") || strings.Contains(w.Log(), "panic") {
		t.Error("the webhook has panicked")
	}
}

// wantUntouched fails when anybody connected to a spy.
func wantUntouched(t *testing.T, what string, spy *harness.Hostile) {
	t.Helper()
	if n := spy.Connections(); n > 0 {
		t.Errorf("%s: %d connections, want none; requests: %+v", what, n, spy.Seen())
	}
}

// spyProxy is the proxy of every webhook that is started in the rest of the test. Only what is not on loopback goes
// through a proxy, so it hears of every other name and address that would be contacted, without a network or DNS.
func spyProxy(t *testing.T) *harness.Hostile {
	t.Helper()
	spy := hostile(t, harness.HostileConfig{Plain: true, Handler: http.NotFoundHandler()})
	proxyEnvironment(t, "http://"+spy.Host(), "")
	return spy
}

func proxyEnvironment(t *testing.T, proxy, except string) {
	t.Helper()
	for name, value := range map[string]string{"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "NO_PROXY": except} {
		t.Setenv(name, value)
		t.Setenv(strings.ToLower(name), value)
	}
}

// TestForeignRegistriesAreNotContacted: what is not configured is refused without a look, whatever stands in the pod,
// and whatever cloud the webhook runs in.
func TestForeignRegistriesAreNotContacted(t *testing.T) {
	for name, value := range map[string]string{
		"AZURE_CLIENT_ID": "id", "AZURE_CLIENT_SECRET": "s", "AZURE_TENANT_ID": "t", "AWS_ACCESS_KEY_ID": "id",
		"AWS_SECRET_ACCESS_KEY": "s", "GOOGLE_APPLICATION_CREDENTIALS": "/dev/null", "KUBERNETES_SERVICE_HOST": "10.96.0.1",
	} {
		t.Setenv(name, value)
	}
	proxy, spy := spyProxy(t), hostile(t, harness.HostileConfig{})
	w := newWorld(t, registrytest.Config{}, nil)
	host, port, _ := strings.Cut(w.Registry.Host(), ":")
	var all []any
	for i, ref := range []string{
		"evil.example/x:v1.0.0", "registry.corp.evil.com/golden/ws:v1.0.0", "docker.io/library/ubuntu:v1.0.0", "ubuntu:v1.0.0",
		"kubernetes.default.svc/x:v1.0.0", "10.96.0.1:443/x:v1.0.0", "169.254.169.254/latest:v1.0.0", "metadata.google.internal/x:v1.0.0",
		"[fd00:ec2::254]:80/x:v1.0.0", "localhost/x:v1.0.0", spy.Host() + "/golden/ws:v1.0.0", "localhost:" + spy.Port() + "/golden/ws:v1.0.0",
		"localhost:" + port + "/golden/ws:v1.0.0", host + ".evil.example:" + port + "/golden/ws:v1.0.0", host + ":4" + port + "/golden/ws:v1.0.0",
		"x.azurecr.io.attacker.example/x:v1.0.0", "x.azurecr.io/x:v1.0.0", "1.dkr.ecr.us-east-1.amazonaws.com/x:v1.0.0", "gcr.io/p/x:v1.0.0",
		"evil.example/x@sha256:" + strings.Repeat("a", 64), w.Ref("other/ws:v1.0.0"),
	} {
		denied().check(t, w.admit(t, w.pod(image(ref))))
		denied().check(t, w.admit(t, template("apps/v1", "Deployment", w.pod(image(ref))["spec"].(object))))
		all = append(all, foreign(fmt.Sprintf("c%d", i), ref))
	}
	denied("(and 20 more images)").check(t, w.admit(t, w.pod(with("containers", all))))
	w.noRequests(t)
	wantUntouched(t, "a registry that is not configured", spy)
	wantUntouched(t, "the proxy", proxy)
	if strings.Contains(w.metrics(t), "hallmark_registry_requests_total{") {
		t.Error("a request to a registry was counted")
	}
	w.sound(t)
}
