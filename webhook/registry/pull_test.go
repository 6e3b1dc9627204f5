package registry_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

func TestPullCredentials(t *testing.T) {
	const host = "registry.corp.example:5000"
	login := func(name, user string) string {
		return `"` + name + `":{"username":"` + user + `","password":"pw"}`
	}
	config := func(entries ...string) string { return `{"auths":{` + strings.Join(entries, ",") + `}}` }
	for _, tt := range []struct {
		name    string
		configs []string
		want    string // users by name, "" for nothing
		err     string
	}{
		{"nothing", nil, "", ""},
		{"of others alone", []string{config(login("evil.example", "a"), login("registry.corp.example", "b"), login("registry.corp.example:443", "c"))}, "", ""},
		{"exact", []string{config(login(host, "a"))}, config(login(host, "a")), ""},
		{"with scheme and version", []string{config(login("https://"+host+"/v2/", "a"))}, config(login(host, "a")), ""},
		{"auth is the same as user and password", []string{config(`"` + host + `":{"auth":"YTpwdw=="}`)}, config(login(host, "a")), ""},
		{"of a repository", []string{config(login(host, "a"), login(host+"/golden", "b"))}, config(login(host, "a"), login(host+"/golden", "b")), ""},
		{"the first secret counts", []string{config(login(host, "a")), config(login("https://"+host, "b"), login(host+"/x", "c"))}, config(login(host, "a"), login(host+"/x", "c")), ""},
		{"a glob", []string{config(login("*.corp.example:5000", "a"))}, config(login(host, "a")), ""},
		{"a name before a glob", []string{config(login("*.corp.example:5000", "a"), login(host, "b"))}, config(login(host, "b")), ""},
		{"a glob is one label", []string{config(login("*.example:5000", "a"), login("*", "b"), login("*:5000", "c"))}, "", ""},
		{"a glob of another port", []string{config(login("*.corp.example", "a"))}, "", ""},
		{"a broken glob", []string{config(login("[.corp.example:5000", "a"))}, "", ""},
		{"helpers are not run", []string{`{"credsStore":"ecr","credHelpers":{"` + host + `":"evil"}}`}, "", ""},
		{"an empty entry", []string{config(`"` + host + `":{}`)}, "", ""},
		{"no Docker config", []string{`["hunter2"]`}, "", "it is not a Docker config"},
		{"auth that is not base64", []string{config(`"` + host + `":{"auth":"hunter2!"}`)}, "", "its entry for " + host + " cannot be read"},
		{"no password", []string{config(`"` + host + `":{"username":"hunter2"}`)}, "", "has no user or no password"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var configs [][]byte
			for _, c := range tt.configs {
				configs = append(configs, []byte(c))
			}
			got, err := registry.PullCredentials(host, configs)
			switch {
			case tt.err == "" && err != nil, tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Fatalf("got error %v, want %q", err, tt.err)
			case err != nil && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("the error quotes the secret: %v", err)
			}
			if canonical(t, string(got)) != canonical(t, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// canonical brings a config into the form of PullCredentials.
func canonical(t *testing.T, config string) string {
	t.Helper()
	if config == "" {
		return ""
	}
	got, err := registry.PullCredentials("registry.corp.example:5000", [][]byte{[]byte(config)})
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// TestCredentialsAsBytes: what a pod brings along counts first, the file's counts for the rest, and neither is shown to
// another registry.
func TestCredentialsAsBytes(t *testing.T) {
	var mutex sync.Mutex
	users := map[string]string{} // by repository
	asking := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, _, ok := r.BasicAuth()
			if !ok {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			mutex.Lock()
			defer mutex.Unlock()
			users[strings.Split(r.URL.Path, "/manifests/")[0]] = user
			next.ServeHTTP(w, r)
		})
	}
	r := serve(t, registrytest.Config{Intercept: asking})
	other := serve(t, registrytest.Config{Intercept: asking})
	pod := []byte(`{"auths":{"` + r.Host() + `/golden":{"username":"pod","password":"pw"}}}`)
	client := connect(t, r, func(c *registry.Config) {
		c.Hosts[0].Credentials = pod
		c.Hosts[0].CredentialsFile = writeFile(t, `{"auths":{"`+r.Host()+`":{"username":"file","password":"pw"},"`+
			r.Host()+`/golden/special":{"username":"file","password":"pw"}}}`)
		c.Hosts = append(c.Hosts, registry.Host{Host: other.Host(), CAPEM: other.CAPEM()})
	})
	for _, repository := range []string{"golden/base", "golden/special", "else/base"} {
		push(t, r, registrytest.Image{Repository: repository, Tag: "v1"})
		if _, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/"+repository+":v1"), webhook.DigestOnly); err != nil {
			t.Error(err)
		}
	}
	_, err := client.ReadImage(t.Context(), parse(t, other.Host()+"/golden/base:v1"), webhook.DigestOnly)
	wantReadError(t, err, webhook.Unauthorized, other.Host(), "refused access to golden/base (401)")
	mutex.Lock()
	defer mutex.Unlock()
	if users["/v2/golden/base"] != "pod" || users["/v2/golden/special"] != "pod" || users["/v2/else/base"] != "file" || len(users) != 3 {
		t.Errorf("users by repository: %v", users)
	}
}
