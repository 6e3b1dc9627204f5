package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/evidence"
	"github.com/hallmark-admission/hallmark/webhook/pullsecrets"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const (
	pullPassword  = "hunter2-do-not-print"
	wrongPassword = "wr0ng-do-not-print"
	apiToken      = "api-token-do-not-print"
)

// A pullWorld is a registry that wants a password, a stand-in for the Kubernetes API, and a generation with both.
type pullWorld struct {
	*harness.Fixture
	generation *generation
	store      *evidence.Store
	log        bytes.Buffer
	dir        string

	mutex   sync.Mutex
	objects map[string]any // of the API, by path
	asked   []string       // paths of the API
	seen    []string       // values of Authorization that the registry was sent
	now     time.Time
}

func newPullWorld(t *testing.T, auth registrytest.Auth) *pullWorld {
	t.Helper()
	w := &pullWorld{objects: map[string]any{}, now: time.Now(), dir: t.TempDir()}
	var err error
	w.Fixture, err = harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{Auth: &auth, Intercept: w.watch}, func(text string) string {
		return text + "pullSecrets: {enabled: true}\n"
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Registry.Close() })
	for _, namespace := range []string{"a", "b", "c"} {
		w.put(namespace, "serviceaccounts", "default", map[string]any{})
	}
	disk, err := evidence.OpenDisk(w.dir, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	w.store = evidence.NewStore(evidence.Limits{Bytes: 64 << 20}, disk)
	t.Cleanup(func() { _ = w.store.Close() })
	w.generation = w.load(t, w.kubernetes(t))
	t.Cleanup(func() {
		w.generation.close()
		w.wantNoSecrets(t, w.log.String())
	})
	return w
}

// kubernetes starts the stand-in for the API.
func (w *pullWorld) kubernetes(t *testing.T) pullsecrets.Config {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		w.asked = append(w.asked, r.URL.Path)
		object, ok := w.objects[r.URL.Path]
		switch {
		case r.Method != http.MethodGet || r.Header.Get("Authorization") != "Bearer "+apiToken:
			rw.WriteHeader(http.StatusUnauthorized)
		case !ok:
			rw.WriteHeader(http.StatusNotFound)
		default:
			_ = json.NewEncoder(rw).Encode(object)
		}
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	c := pullsecrets.Config{Server: server.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt")}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := errors.Join(os.WriteFile(c.TokenFile, []byte(apiToken), 0o600), os.WriteFile(c.CAFile, ca, 0o600)); err != nil {
		t.Fatal(err)
	}
	return c
}

// load makes a generation of the file.
func (w *pullWorld) load(t *testing.T, kubernetes pullsecrets.Config) *generation {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.Dir, "hallmark.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := config.Load(text, w.clock())
	if err != nil {
		t.Fatal(err)
	}
	source, err := shippedPolicies(nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGeneration(t.Context(), c, source, outside{
		now: w.clock, store: w.store, kubernetes: kubernetes, log: slog.New(slog.NewJSONHandler(&w.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (w *pullWorld) clock() time.Time {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.now
}

// watch notes what clients show to the registry.
func (w *pullWorld) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mutex.Lock()
		w.seen = append(w.seen, r.Header.Get("Authorization"))
		w.mutex.Unlock()
		next.ServeHTTP(rw, r)
	})
}

func (w *pullWorld) put(namespace, resource, name string, object any) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.objects["/api/v1/namespaces/"+namespace+"/"+resource+"/"+name] = object
}

// secret keeps a secret for registries.
func (w *pullWorld) secret(namespace, name, password string, hosts ...string) {
	auths := map[string]any{}
	for _, host := range hosts {
		auths[host] = map[string]string{"username": "robot", "password": password}
	}
	text, _ := json.Marshal(map[string]any{"auths": auths})
	w.put(namespace, "secrets", name, map[string]any{
		"type": "kubernetes.io/dockerconfigjson", "data": map[string][]byte{".dockerconfigjson": text},
	})
}

// requests gives what the API was asked for since the last time.
func (w *pullWorld) requests() []string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

// pod asks about a pod with one image, whose metadata claims another namespace.
func (w *pullWorld) pod(t *testing.T, namespace, image string, spec map[string]any) *webhook.Request {
	t.Helper()
	full := map[string]any{"containers": []any{map[string]any{"name": "dev", "image": image}}}
	for key, value := range spec {
		full[key] = value
	}
	object, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "ws", "namespace": "a"}, "spec": full,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &webhook.Request{UID: "1", Operation: webhook.Create, Kind: "Pod", Namespace: namespace, Name: "ws", Object: object}
}

func (w *pullWorld) validate(t *testing.T, namespace, image string, spec map[string]any) webhook.Decision {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	d := w.generation.reviewer.Validate(ctx, w.pod(t, namespace, image, spec))
	w.wantNoSecrets(t, fmt.Sprintf("%+v", d))
	return d
}

func (w *pullWorld) mutate(t *testing.T, namespace, image string, spec map[string]any) webhook.Decision {
	t.Helper()
	d := w.generation.reviewer.Mutate(t.Context(), w.pod(t, namespace, image, spec))
	w.wantNoSecrets(t, fmt.Sprintf("%+v", d))
	return d
}

func (w *pullWorld) wantNoSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{pullPassword, wrongPassword, apiToken} {
		encoded := base64.StdEncoding.EncodeToString([]byte("robot:" + secret))
		if strings.Contains(text, secret) || strings.Contains(text, encoded) {
			t.Errorf("%s got out:\n%s", secret, text)
		}
	}
}

func wantAllowed(t *testing.T, d webhook.Decision, what string) {
	t.Helper()
	if !d.Allow() {
		t.Errorf("%s: %s", what, d.Message)
	}
}

// wantRefused wants a refusal that says all of this.
func wantRefused(t *testing.T, d webhook.Decision, what string, says ...string) {
	t.Helper()
	if d.Allow() {
		t.Errorf("%s: allowed", what)
	}
	for _, text := range says {
		if !strings.Contains(d.Message, text) {
			t.Errorf("%s: the message lacks %q:\n%s", what, text, d.Message)
		}
	}
}

func secretsNamed(names ...string) map[string]any {
	list := []any{}
	for _, name := range names {
		list = append(list, map[string]string{"name": name})
	}
	return map[string]any{"imagePullSecrets": list}
}

// TestPullSecrets: an image that wants a password is read with the one of its pod, for those who have it and nobody else,
// however warm everything is.
func TestPullSecrets(t *testing.T) {
	for name, bearer := range map[string]bool{"basic": false, "bearer": true} {
		t.Run(name, func(t *testing.T) {
			w := newPullWorld(t, registrytest.Auth{User: "robot", Password: pullPassword, Bearer: bearer})
			w.secret("a", "corp", pullPassword, w.Registry.Host())
			w.secret("b", "wrong", wrongPassword, w.Registry.Host())
			w.secret("c", "copy", pullPassword, "https://"+w.Registry.Host()+"/v2/")
			tagged, pinned := w.Ref("golden/ws:v1.0.0"), w.Pinned("golden/ws:v1.0.0")
			digest := strings.TrimPrefix(w.Digests["golden/ws:v1.0.0"], "sha256:")

			wantRefused(t, w.validate(t, "b", pinned, secretsNamed("wrong")), "a wrong password, cold", "could not be checked", "refused access to golden/ws")
			wantAllowed(t, w.validate(t, "a", pinned, secretsNamed("corp")), "the right one after a wrong one")
			if d := w.mutate(t, "a", tagged, secretsNamed("corp")); !strings.Contains(string(d.Patch), digest) {
				t.Errorf("not pinned: %s", d.Patch)
			}
			for what, spec := range map[string]map[string]any{
				"no secret": nil, "a wrong password": secretsNamed("wrong"), "another namespace's secret": secretsNamed("corp"),
			} {
				wantRefused(t, w.validate(t, "b", pinned, spec), what, "refused access to golden/ws", "401")
				d := w.validate(t, "b", tagged, spec)
				wantRefused(t, d, what, "refused access to golden/ws")
				m := w.mutate(t, "b", tagged, spec)
				for _, text := range []string{fmt.Sprintf("%+v %+v", d.Message, d.Findings), string(m.Patch)} {
					if strings.Contains(text, digest[:12]) {
						t.Errorf("%s: the digest got out: %s", what, text)
					}
				}
			}
			wantRefused(t, w.validate(t, "b", pinned, secretsNamed("corp")), "another namespace's secret", `pull secret "corp" does not exist`)
			w.requests()
			wantAllowed(t, w.validate(t, "a", pinned, secretsNamed("corp")), "still")
			wantAllowed(t, w.validate(t, "c", pinned, secretsNamed("copy")), "the same credentials elsewhere")
			for _, path := range w.requests() {
				if path != "/api/v1/namespaces/c/secrets/copy" { // what a has is remembered
					t.Errorf("the API was asked for %s", path)
				}
			}
			w.mutex.Lock()
			defer w.mutex.Unlock()
			if slices.ContainsFunc(w.seen, func(s string) bool { return strings.Contains(s, apiToken) }) {
				t.Error("the registry was sent the service-account token")
			}
		})
	}
}

// TestPullSecretsStayOffDisk: what was read with a pod's credentials is not served to others from the directory, after a
// restart neither.
func TestPullSecretsStayOffDisk(t *testing.T) {
	w := newPullWorld(t, registrytest.Auth{User: "robot", Password: pullPassword})
	w.secret("a", "corp", pullPassword, w.Registry.Host())
	wantAllowed(t, w.validate(t, "a", w.Pinned("golden/ws:v1.0.0"), secretsNamed("corp")), "with the secret")
	if blobs, err := os.ReadDir(filepath.Join(w.dir, "blobs", "sha256")); err != nil || len(blobs) > 0 {
		t.Errorf("on disk: %v, %v", blobs, err)
	}
}

// TestPullSecretsOfServiceAccounts: those count only for pods without their own, and one that is not there is told.
func TestPullSecretsOfServiceAccounts(t *testing.T) {
	w := newPullWorld(t, registrytest.Auth{User: "robot", Password: pullPassword})
	w.secret("a", "corp", pullPassword, w.Registry.Host())
	w.secret("a", "wrong", wrongPassword, w.Registry.Host())
	w.put("a", "serviceaccounts", "ws", map[string]any{"imagePullSecrets": []any{map[string]string{"name": "corp"}}})
	pinned := w.Pinned("golden/ws:v1.0.0")
	account := func(key, name string, secrets ...string) map[string]any {
		spec := map[string]any{key: name}
		if secrets != nil {
			spec["imagePullSecrets"] = secretsNamed(secrets...)["imagePullSecrets"]
		}
		return spec
	}
	wantAllowed(t, w.validate(t, "a", pinned, account("serviceAccountName", "ws")), "serviceAccountName")
	wantAllowed(t, w.validate(t, "a", pinned, account("serviceAccount", "ws")), "serviceAccount")
	wantRefused(t, w.validate(t, "a", pinned, nil), "the default account has none", "refused access to golden/ws (401)")
	wantRefused(t, w.validate(t, "a", pinned, account("serviceAccountName", "ws", "wrong")), "the pod's own count", "(401)")
	wantRefused(t, w.validate(t, "b", pinned, account("serviceAccountName", "ws")), "another namespace's account",
		`could not be checked: the service account "ws" could not be read: it does not exist`)
	w.requests()
	wantRefused(t, w.validate(t, "a", pinned, account("serviceAccountName", "../../b/serviceaccounts/default")), "a path", "cannot exist: that is no name")
	wantRefused(t, w.validate(t, "a", "docker.io/evil/ws:latest", account("serviceAccountName", "ws")), "a foreign registry", "docker.io")
	if asked := w.requests(); len(asked) > 0 {
		t.Errorf("the API was asked for %q", asked)
	}
}

// TestPullSecretsGoToTheirHost: of a secret for two registries each is shown its own entry, and a registry that the secret
// does not name is shown nothing.
func TestPullSecretsGoToTheirHost(t *testing.T) {
	w := newPullWorld(t, registrytest.Auth{User: "robot", Password: pullPassword})
	var mutex sync.Mutex
	var shown []string
	spy, err := registrytest.New(registrytest.Config{Intercept: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			mutex.Lock()
			defer mutex.Unlock()
			shown = append(shown, r.Header.Get("Authorization"))
			rw.Header().Add("WWW-Authenticate", `Basic realm="spy"`)
			rw.Header().Add("WWW-Authenticate", `Bearer realm="https://`+r.Host+`/token",service="`+w.Registry.Host()+`"`)
			rw.WriteHeader(http.StatusUnauthorized)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spy.Close() })
	text := w.Configuration() + "pullSecrets: {enabled: true}\n"
	text = strings.Replace(text, "registries:\n", fmt.Sprintf("rules: {golden: 'off'}\nregistries:\n  - {host: %q, ca: %q}\n", spy.Host(), filepath.Join(w.Dir, "spy.crt")), 1)
	if err := errors.Join(w.Write("spy.crt", spy.CAPEM()), w.Write("hallmark.yaml", []byte(text))); err != nil {
		t.Fatal(err)
	}
	w.generation.close()
	w.generation = w.load(t, w.kubernetes(t))
	w.secret("a", "corp", pullPassword, w.Registry.Host(), "*", "*.*", "127.0.0.1")
	wantAllowed(t, w.validate(t, "a", w.Pinned("golden/ws:v1.0.0"), secretsNamed("corp")), "the registry that it is for")
	wantRefused(t, w.validate(t, "a", strings.Replace(w.Pinned("golden/ws:v1.0.0"), w.Registry.Host(), spy.Host(), 1), secretsNamed("corp")), "the spy")
	d := w.generation.reviewer.Mutate(t.Context(), w.pod(t, "a", spy.Host()+"/golden/ws:v1.0.0", secretsNamed("corp")))
	if len(d.Patch) > 0 {
		t.Errorf("patch %s", d.Patch)
	}
	mutex.Lock()
	defer mutex.Unlock()
	if len(shown) == 0 || strings.Join(shown, "") != "" {
		t.Errorf("the spy was shown %q", shown)
	}
}

// TestPullSecretReplaced: a new password counts when the old answer's time is over.
func TestPullSecretReplaced(t *testing.T) {
	w := newPullWorld(t, registrytest.Auth{User: "robot", Password: pullPassword})
	w.secret("a", "corp", wrongPassword, w.Registry.Host())
	pinned := w.Pinned("golden/ws:v1.0.0")
	wantRefused(t, w.validate(t, "a", pinned, secretsNamed("corp")), "wrong", "(401)")
	w.secret("a", "corp", pullPassword, w.Registry.Host())
	w.mutex.Lock()
	w.now = w.now.Add(31 * time.Second)
	w.mutex.Unlock()
	wantAllowed(t, w.validate(t, "a", pinned, secretsNamed("corp")), "replaced")
	old := w.generation
	w.generation = w.load(t, w.kubernetes(t))
	old.close()
	old.close()
	wantAllowed(t, old.reviewer.Validate(t.Context(), w.pod(t, "a", pinned, secretsNamed("corp"))), "a request that still has the old generation")
	wantAllowed(t, w.validate(t, "a", pinned, secretsNamed("corp")), "after a reload")
}

// TestPullSecretsTogether: namespaces do not get in each other's way, and a reload gets in nobody's.
func TestPullSecretsTogether(t *testing.T) {
	w := newPullWorld(t, registrytest.Auth{User: "robot", Password: pullPassword, Bearer: true})
	w.secret("a", "corp", pullPassword, w.Registry.Host())
	w.secret("b", "corp", wrongPassword, w.Registry.Host())
	images := []string{"golden/ws:v1.0.0", "golden/ws:v1.0.1", "golden/tools:v1.0.0", "golden/multi:v1.0.0"}
	var group sync.WaitGroup
	for round := range 24 {
		group.Go(func() {
			namespace := []string{"a", "b", "c"}[round%3]
			request := w.pod(t, namespace, w.Pinned(images[round%len(images)]), secretsNamed("corp"))
			if d := w.generation.reviewer.Validate(t.Context(), request); d.Allow() != (namespace == "a") {
				t.Errorf("%s: %s %s", namespace, d.Outcome, d.Message)
			}
		})
		if round == 12 {
			group.Go(w.generation.close)
		}
	}
	group.Wait()
}

// TestPullSecretsUnreadable: without the API nothing is admitted on other credentials, and the log knows why.
func TestPullSecretsUnreadable(t *testing.T) {
	w := newPullWorld(t, registrytest.Auth{User: "robot", Password: pullPassword})
	w.secret("a", "corp", "", w.Registry.Host())
	pinned := w.Pinned("golden/ws:v1.0.0")
	wantRefused(t, w.validate(t, "a", pinned, secretsNamed("corp")), "no password", "a pull secret could not be used: its entry for "+w.Registry.Host()+" has no user or no password")
	kubernetes := w.kubernetes(t)
	kubernetes.Server = "https://127.0.0.1:1"
	w.generation.close()
	w.generation = w.load(t, kubernetes)
	d := w.validate(t, "a", pinned, secretsNamed("corp"))
	wantRefused(t, d, "no API", `could not be checked: the pull secret "corp" could not be read: the Kubernetes API could not be reached`)
	if d.Outcome != webhook.Undecided || !strings.Contains(w.log.String(), "connection refused") {
		t.Errorf("outcome %s, log %s", d.Outcome, w.log.String())
	}
}

// TestPullSecretsOff: nothing is asked, and nothing of Kubernetes is needed.
func TestPullSecretsOff(t *testing.T) {
	w := newPullWorld(t, registrytest.Auth{User: "robot", Password: pullPassword})
	w.secret("a", "corp", pullPassword, w.Registry.Host())
	if err := w.Write("hallmark.yaml", []byte(w.Configuration())); err != nil {
		t.Fatal(err)
	}
	w.generation.close()
	w.generation = w.load(t, pullsecrets.Config{})
	if w.generation.reviewer.Puller != nil {
		t.Error("there is a puller")
	}
	wantRefused(t, w.validate(t, "a", w.Pinned("golden/ws:v1.0.0"), secretsNamed("corp")), "off", "(401)")
	if asked := w.requests(); len(asked) > 0 {
		t.Errorf("the API was asked for %q", asked)
	}
}

// TestPullerIsBounded: views are kept for so many credentials, and closed when they are dropped and at the end.
func TestPullerIsBounded(t *testing.T) {
	var mutex sync.Mutex
	made, closed := 0, 0
	users := 0
	p := newPuller(func(context.Context, webhook.Pull) (pullsecrets.Found, error) {
		text := fmt.Sprintf(`{"auths":{"r.example":{"username":"u%d","password":"p"}}}`, users)
		return pullsecrets.Found{Configs: [][]byte{[]byte(text)}}, nil
	}, &view{}, map[string]viewMaker{"r.example": func(string, []byte) (*view, error) {
		made++
		return &view{close: func() { mutex.Lock(); defer mutex.Unlock(); closed++ }}, nil
	}})
	for users = range maxViews + 10 {
		for range 2 {
			if _, err := p.Sources(t.Context(), webhook.Pull{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.closing.Wait()
	if made != maxViews+10 || closed != 10 {
		t.Errorf("%d made and %d closed", made, closed)
	}
	p.close()
	if closed != made {
		t.Errorf("%d made and %d closed at the end", made, closed)
	}
}
