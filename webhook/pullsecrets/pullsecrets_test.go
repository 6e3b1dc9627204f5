package pullsecrets_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/pullsecrets"
)

const password = "hunter2-do-not-print"

// A cluster speaks the two paths of the Kubernetes API, and checks the token.
type cluster struct {
	*httptest.Server
	client *pullsecrets.Client
	dir    string // with the files token and ca.crt

	mutex    sync.Mutex
	token    string
	now      time.Time
	objects  map[string]string                                 // by path
	override func(w http.ResponseWriter, r *http.Request) bool // answers instead
	asked    []string                                          // paths
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{token: "first", now: time.Now(), objects: map[string]string{}, dir: t.TempDir()}
	c.Server = httptest.NewTLSServer(c)
	t.Cleanup(c.Close)
	c.write(t, "token", "first\n")
	c.write(t, "ca.crt", authority(c.Server))
	c.account("team", "default")
	var err error
	c.client, err = pullsecrets.New(pullsecrets.Config{
		Server: c.URL, TokenFile: filepath.Join(c.dir, "token"), CAFile: filepath.Join(c.dir, "ca.crt"),
		CacheTTL: 30 * time.Second, Timeout: 2 * time.Second, Now: c.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	return c
}

func authority(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mutex.Lock()
	c.asked = append(c.asked, r.URL.EscapedPath())
	token, override, object := c.token, c.override, c.objects[r.URL.Path]
	c.mutex.Unlock()
	switch {
	case override != nil && override(w, r):
	case r.Method != http.MethodGet || r.Header.Get("Authorization") != "Bearer "+token:
		http.Error(w, password, http.StatusUnauthorized)
	case object == "":
		http.Error(w, `{"kind":"Status"}`, http.StatusNotFound)
	default:
		_, _ = w.Write([]byte(object))
	}
}

func (c *cluster) clock() time.Time {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.now
}

func (c *cluster) set(f func()) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	f()
}

// paths gives what was asked for since the last time.
func (c *cluster) paths() []string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	asked := c.asked
	c.asked = nil
	return asked
}

func (c *cluster) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// secret keeps a secret whose only user has its name.
func (c *cluster) secret(namespace, name string) {
	c.object(namespace, "secrets", name, map[string]any{
		"type": "kubernetes.io/dockerconfigjson", "data": map[string]any{".dockerconfigjson": []byte(dockerConfig(name))},
	})
}

func dockerConfig(user string) string {
	return `{"auths":{"registry.corp.example":{"username":"` + user + `","password":"` + password + `"}}}`
}

func (c *cluster) account(namespace, name string, secrets ...string) {
	list := []map[string]string{}
	for _, s := range secrets {
		list = append(list, map[string]string{"name": s})
	}
	c.object(namespace, "serviceaccounts", name, map[string]any{"imagePullSecrets": list})
}

func (c *cluster) object(namespace, resource, name string, object any) {
	text, _ := json.Marshal(object)
	c.set(func() { c.objects["/api/v1/namespaces/"+namespace+"/"+resource+"/"+name] = string(text) })
}

// users reads, and gives the users of what was found and what was noted.
func (c *cluster) users(t *testing.T, pull webhook.Pull) (users, notes []string, err error) {
	t.Helper()
	found, err := c.client.Read(t.Context(), pull)
	for _, config := range found.Configs {
		var parsed struct {
			Auths map[string]struct{ Username string }
		}
		if err := json.Unmarshal(config, &parsed); err != nil {
			t.Fatal(err)
		}
		for _, auth := range parsed.Auths {
			users = append(users, auth.Username)
		}
	}
	if err != nil {
		var own *webhook.PullError
		if !errors.As(err, &own) {
			t.Errorf("%T is no *webhook.PullError", err)
		}
		for _, text := range []string{password, base64.StdEncoding.EncodeToString([]byte(password)), "first"} {
			if strings.Contains(err.Error(), text) {
				t.Errorf("the error holds a secret: %v", err)
			}
		}
	}
	return users, found.Notes, err
}

func TestRead(t *testing.T) {
	c := newCluster(t)
	c.secret("team", "a")
	c.secret("team", "b")
	c.secret("team", "of-account")
	c.secret("other", "theirs")
	c.account("team", "ws", "of-account", "gone")
	c.account("team", "plain")
	c.object("team", "secrets", "old", map[string]any{
		"type": "kubernetes.io/dockercfg", "data": map[string]any{".dockercfg": []byte(`{"registry.corp.example":{"username":"old"}}`)},
	})
	c.object("team", "secrets", "opaque", map[string]any{
		"type": "Opaque", "data": map[string]any{".dockerconfigjson": []byte(dockerConfig("opaque"))},
	})
	c.object("team", "secrets", "broken", map[string]any{
		"type": "kubernetes.io/dockerconfigjson", "data": map[string]any{".dockerconfigjson": []byte(password)},
	})
	c.object("team", "secrets", "large", map[string]any{
		"type": "kubernetes.io/dockerconfigjson", "data": map[string]any{".dockerconfigjson": []byte(dockerConfig(strings.Repeat("x", 150<<10)))},
	})
	for _, tt := range []struct {
		name  string
		pull  webhook.Pull
		users []string
		notes []string
		asked []string
		err   string
	}{
		{name: "in the pod's order", pull: webhook.Pull{Secrets: []string{"b", "a"}}, users: []string{"b", "a"}, asked: []string{"secrets/b", "secrets/a"}},
		{name: "the pod's replace its service account's", pull: webhook.Pull{Secrets: []string{"a"}, ServiceAccount: "ws"}, users: []string{"a"}, asked: []string{"secrets/a"}},
		{name: "the service account's", pull: webhook.Pull{ServiceAccount: "ws"}, users: []string{"of-account"}, notes: []string{`pull secret "gone" does not exist`}, asked: []string{"serviceaccounts/ws", "secrets/of-account", "secrets/gone"}},
		{name: "the default service account", asked: []string{"serviceaccounts/default"}},
		{name: "a service account without any", pull: webhook.Pull{ServiceAccount: "plain"}, asked: []string{"serviceaccounts/plain"}},
		{name: "empty names are secrets of the pod's own", pull: webhook.Pull{Secrets: []string{""}, ServiceAccount: "ws"}},
		{name: "the older format", pull: webhook.Pull{Secrets: []string{"old"}}, users: []string{"old"}, asked: []string{"secrets/old"}},
		{name: "a missing secret is passed over", pull: webhook.Pull{Secrets: []string{"none", "a"}}, users: []string{"a"}, notes: []string{`pull secret "none" does not exist`}, asked: []string{"secrets/none", "secrets/a"}},
		{name: "another type is passed over", pull: webhook.Pull{Secrets: []string{"opaque"}}, notes: []string{`pull secret "opaque" is of another type`}, asked: []string{"secrets/opaque"}},
		{name: "another namespace's", pull: webhook.Pull{Secrets: []string{"theirs"}}, notes: []string{`pull secret "theirs" does not exist`}, asked: []string{"secrets/theirs"}},
		{name: "a path", pull: webhook.Pull{Secrets: []string{"../../other/secrets/theirs", "a?x", "..", "A", "%2e%2e"}}, notes: []string{
			`pull secret "../../other/secrets/theirs" cannot exist: that is no name`, `pull secret "a?x" cannot exist: that is no name`,
			`pull secret ".." cannot exist: that is no name`, `pull secret "A" cannot exist: that is no name`,
			`pull secret "%2e%2e" cannot exist: that is no name`,
		}},
		{name: "a broken secret", pull: webhook.Pull{Secrets: []string{"broken"}}, asked: []string{"secrets/broken"}, err: `the pull secret "broken" could not be read: it is not a Docker config`},
		{name: "a missing service account", pull: webhook.Pull{ServiceAccount: "nobody"}, asked: []string{"serviceaccounts/nobody"}, err: `the service account "nobody" could not be read: it does not exist`},
		{name: "a service account that is a path", pull: webhook.Pull{ServiceAccount: "../x"}, err: "it cannot exist: that is no name"},
		{name: "a namespace that is a path", pull: webhook.Pull{Namespace: "team/../other", Secrets: []string{"theirs"}}, err: "the request has no proper namespace"},
		{name: "no namespace", pull: webhook.Pull{Namespace: "-", Secrets: []string{"a"}}, err: "the request has no proper namespace"},
		{name: "too large", pull: webhook.Pull{Secrets: []string{"large", "large"}}, asked: []string{"secrets/large", "secrets/large"}, err: "together they are larger than 256 KiB"},
		{name: "too many", pull: webhook.Pull{Secrets: slices.Repeat([]string{"a"}, 33)}, err: "there are 33, and more than 32 are not"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.set(func() { c.now = c.now.Add(time.Hour) }) // nothing is remembered
			c.paths()
			if tt.pull.Namespace == "" {
				tt.pull.Namespace = "team"
			}
			users, notes, err := c.users(t, tt.pull)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("got error %v, want %q", err, tt.err)
			}
			var asked []string
			for _, path := range c.paths() {
				asked = append(asked, strings.TrimPrefix(path, "/api/v1/namespaces/team/"))
			}
			if !slices.Equal(users, tt.users) || !slices.Equal(notes, tt.notes) || !slices.Equal(asked, tt.asked) {
				t.Errorf("got  users %q notes %q requests %q\nwant users %q notes %q requests %q", users, notes, asked, tt.users, tt.notes, tt.asked)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	c := newCluster(t)
	c.secret("team", "a")
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect was followed")
	}))
	t.Cleanup(elsewhere.Close)
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(code)
			_, _ = w.Write([]byte(password))
			return true
		}
	}
	body := func(text string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte(text))
			return true
		}
	}
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for _, tt := range []struct {
		name     string
		override func(http.ResponseWriter, *http.Request) bool
		err      string
		retry    bool
	}{
		{"no right", status(403), "the Kubernetes API does not allow it to Hallmark (403)", false},
		{"token refused", status(401), "the Kubernetes API answered 401", true},
		{"overloaded", status(429), "the Kubernetes API answered 429", true},
		{"broken", status(500), "the Kubernetes API answered 500", true},
		{"redirected", status(302), "the Kubernetes API answered 302", false},
		{"cut", func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, "the Kubernetes API could not be reached", true},
		{"endless", body(strings.Repeat(" ", 1<<20+1)), "it is larger than 1 MiB", false},
		{"no JSON", body(password), "the answer of the Kubernetes API cannot be read", true},
		{"two readings", body(`{"type":"a","type":"` + password + `"}`), "the answer of the Kubernetes API cannot be read", true},
		{"silent", func(http.ResponseWriter, *http.Request) bool { <-release; return true }, "the Kubernetes API did not answer within 2s", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.set(func() { c.override = tt.override })
			_, _, err := c.users(t, webhook.Pull{Namespace: "team", Secrets: []string{"a"}})
			var own *webhook.PullError
			if !errors.As(err, &own) || !strings.Contains(own.Reason, `the pull secret "a" could not be read: `+tt.err) || own.Retry != tt.retry {
				t.Errorf("got %v, want %q and retry %t", err, tt.err, tt.retry)
			}
		})
	}
	c.set(func() { c.override = nil })
	if users, _, err := c.users(t, webhook.Pull{Namespace: "team", Secrets: []string{"a"}}); err != nil || len(users) != 1 {
		t.Errorf("a failure was remembered: %v", err)
	}
}

// TestRotation: token and authority are read anew, and nobody else's certificate will do.
func TestRotation(t *testing.T) {
	c := newCluster(t)
	c.secret("team", "a")
	read := func() error {
		c.set(func() { c.now = c.now.Add(time.Hour) })
		_, _, err := c.users(t, webhook.Pull{Namespace: "team", Secrets: []string{"a"}})
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	c.set(func() { c.token = "second" })
	if err := read(); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with the old token: %v", err)
	}
	c.write(t, "token", "second")
	if err := read(); err != nil {
		t.Errorf("with the new token: %v", err)
	}
	c.write(t, "token", "")
	if err := read(); err == nil || !strings.Contains(err.Error(), "no token") {
		t.Errorf("without a token: %v", err)
	}
	c.write(t, "token", "second")
	c.write(t, "ca.crt", "not PEM")
	if err := read(); err == nil || !strings.Contains(err.Error(), "no authority") {
		t.Errorf("without an authority: %v", err)
	}
	c.write(t, "ca.crt", otherAuthority)
	c.paths()
	if err := read(); err == nil || !strings.Contains(err.Error(), "could not be reached") || len(c.paths()) > 0 {
		t.Errorf("with another authority: %v", err)
	}
	c.write(t, "ca.crt", otherAuthority+authority(c.Server))
	if err := read(); err != nil {
		t.Errorf("with both authorities: %v", err)
	}
}

func TestCache(t *testing.T) {
	c := newCluster(t)
	c.secret("team", "a")
	c.secret("other", "a")
	read := func(namespace string, names ...string) {
		t.Helper()
		if _, _, err := c.users(t, webhook.Pull{Namespace: namespace, Secrets: names}); err != nil {
			t.Error(err)
		}
	}
	for _, step := range []struct {
		name string
		do   func()
		want int
	}{
		{"first", func() { read("team", "a") }, 1},
		{"again", func() { read("team", "a") }, 0},
		{"another namespace", func() { read("other", "a") }, 1},
		{"after its time", func() { c.set(func() { c.now = c.now.Add(30 * time.Second) }); read("team", "a") }, 1},
		{"what is not there is not remembered", func() { read("team", "late"); read("team", "late") }, 2},
	} {
		c.paths()
		if step.do(); len(c.paths()) != step.want {
			t.Errorf("%s: wanted %d requests", step.name, step.want)
		}
	}
}

// TestShared: callers share a request, and one that goes away fails nobody.
func TestShared(t *testing.T) {
	c := newCluster(t)
	c.secret("team", "a")
	arrived, release := make(chan struct{}, 8), make(chan struct{})
	c.set(func() {
		c.override = func(http.ResponseWriter, *http.Request) bool { arrived <- struct{}{}; <-release; return false }
	})
	pull := webhook.Pull{Namespace: "team", Secrets: []string{"a"}}
	impatient, leave := context.WithCancel(t.Context())
	results := make(chan error, 4)
	go func() {
		_, err := c.client.Read(impatient, pull)
		results <- err
	}()
	<-arrived
	for range 3 {
		go func() {
			_, err := c.client.Read(t.Context(), pull)
			results <- err
		}()
	}
	leave()
	if err := <-results; err == nil || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "did not answer in time") {
		t.Errorf("the impatient caller got %v", err)
	}
	close(release)
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := len(c.paths()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestNew(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token, ca := file("token", "x"), file("ca.crt", otherAuthority)
	for _, tt := range []struct {
		name   string
		host   string
		config pullsecrets.Config
		err    []string
	}{
		{"outside of a cluster", "", pullsecrets.Config{}, []string{"this is not a pod"}},
		{"nothing mounted", "10.0.0.1", pullsecrets.Config{}, []string{"service-account token", "cluster's authority"}},
		{"in a pod", "10.0.0.1", pullsecrets.Config{TokenFile: token, CAFile: ca}, nil},
		{"IPv6", "fd00::1", pullsecrets.Config{TokenFile: token, CAFile: ca}, nil},
		{"plain HTTP", "", pullsecrets.Config{Server: "http://10.0.0.1", TokenFile: token, CAFile: ca}, []string{"want the address of the API server"}},
		{"a path", "", pullsecrets.Config{Server: "https://10.0.0.1/x", TokenFile: token, CAFile: ca}, []string{"want the address of the API server"}},
		{"everything at once", "", pullsecrets.Config{Server: "x", TokenFile: file("empty", "\n"), CAFile: token}, []string{"want the address", "holds no token", "holds no certificate"}},
		{"two lines", "10.0.0.1", pullsecrets.Config{TokenFile: file("lines", "a\nb"), CAFile: ca}, []string{"holds no token"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", tt.host)
			t.Setenv("KUBERNETES_SERVICE_PORT", "443")
			client, err := pullsecrets.New(tt.config)
			if err == nil {
				client.Close()
			}
			if tt.err == nil != (err == nil) {
				t.Fatalf("got error %v, want %q", err, tt.err)
			}
			for _, text := range tt.err {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("got error %v, want %q", err, text)
				}
			}
		})
	}
}

// otherAuthority is a certificate of nobody; its key was dropped when it was made.
const otherAuthority = `-----BEGIN CERTIFICATE-----
MIIBjjCCATWgAwIBAgIUeN2hYsPS45S/DOQCYZnKzJ6Y2BgwCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRYW5vdGhlciBhdXRob3JpdHkwIBcNMjYxMTIxMTEwMjUzWhgP
MjEyNjEwMjgxMTAyNTNaMBwxGjAYBgNVBAMMEWFub3RoZXIgYXV0aG9yaXR5MFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeb9cmjDTXM40wQosdVxVMYpXRoYssbR1
QpVb+SOYHlfTAXlVy7Wgh/HnyfhTYOxCEom08UwdhANTO7qYHR2h0KNTMFEwHQYD
VR0OBBYEFDz2j24uuMuQq0hZdZysx1vtNA0xMB8GA1UdIwQYMBaAFDz2j24uuMuQ
q0hZdZysx1vtNA0xMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIg
bd1zTXxJEj0UywkG38Ge6mZEoBPcVM1XEc9+O9o87ZMCIHtbyDLT4y9K867aa/PR
DzjNoRnQQIgxZKQEU0t12Llr
-----END CERTIFICATE-----
`
