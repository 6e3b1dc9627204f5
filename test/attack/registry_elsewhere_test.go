package attack

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const robot, robotPassword = "robot", "hunter2-s3cret"

// TestRealms: a registry cannot have the webhook take its credentials, or any request at all, to another place. Whatever
// is not on loopback would show at the proxy, what is at the spy.
func TestRealms(t *testing.T) {
	proxy, spy := spyProxy(t), hostile(t, harness.HostileConfig{Handler: http.NotFoundHandler()})
	realms := []string{
		"http://169.254.169.254/", "https://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/", "https://metadata.google.internal/token",
		"https://SPY/token", "http://SPY/token", "https://localhost:PORT/token", "http://localhost:PORT/token", "https://internal.svc/token",
		"https://127.0.0.1/token", "https://2130706433:PORT/", "https://127.1:PORT/", "https://0.0.0.0:PORT/", "https://0x7f000001:PORT/",
		"https://[::ffff:127.0.0.1]:PORT/", "https://SELF.evil.example/token", "https://evil.example#@SELF/token", "https://evil.example\\@SELF/token",
		"https://SELF@evil.example/token", "http://SELF/token", "file:///etc/passwd", "ftp://SELF/token", "gopher://SPY/", "//SPY/token", "token", "",
		"https:SPY", "https://" + robot + ":" + robotPassword + "@SELF/token", "https://SELF/token#x", ":", "javascript:x", "https://SPY:443:443/token",
	}
	var hosts []*harness.Hostile
	var targets []target
	for _, realm := range realms {
		h := hostile(t, harness.HostileConfig{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			realm := strings.NewReplacer("SELF", r.Host, "SPY", spy.Host(), "PORT", spy.Port()).Replace(realm)
			rw.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=%q", realm, "s"))
			rw.WriteHeader(http.StatusUnauthorized)
		})})
		hosts = append(hosts, h)
		targets = append(targets, target{host: h.Host(), ca: h.CAPEM(), user: robot, password: robotPassword})
	}
	w := besiege(t, "", targets...)
	t.Run("realms", func(t *testing.T) {
		for i, realm := range realms {
			t.Run(realm, func(t *testing.T) {
				t.Parallel()
				for range 2 { // the challenge is not remembered either
					want{says: []string{"could not be checked"}, without: []string{robotPassword, "not signed"}}.
						check(t, w.admit(t, w.pod(image(hosts[i].Host()+"/golden/ws:v1.0.0"))))
				}
				for _, seen := range hosts[i].Seen() {
					if seen.Header.Get("Authorization") != "" || !strings.HasPrefix(seen.URI, "/v2/golden/ws/manifests/") {
						t.Errorf("asked %+v", seen)
					}
				}
				if n := len(hosts[i].Seen()); n > 8 {
					t.Errorf("%d requests", n)
				}
			})
		}
	})
	wantUntouched(t, "another host", spy)
	wantUntouched(t, "the proxy", proxy)
	if strings.Contains(w.Log(), robotPassword) {
		t.Error("the password is in the log")
	}
	w.sound(t)
}

// TestRedirects: a manifest comes from its registry, a blob from there or from a blob host, and credentials stay home.
func TestRedirects(t *testing.T) {
	proxy, spy := spyProxy(t), hostile(t, harness.HostileConfig{Handler: http.NotFoundHandler()})
	places := []string{
		"https://SPY/secret?sig=s3cret", "http://SPY/secret", "https://localhost:PORT/v2/", "http://internal.svc/secret", "http://169.254.169.254/latest",
		"https://evil.example/v2/golden/ws/manifests/v1.0.0", "http://SELF/v2/", "https://robot@SELF/v2/", "https://SELF@evil.example/", "//SPY/x", "\\\\SPY\\x",
		"https://SELF.evil.example/", "file:///etc/passwd", "", "https://[::1", "/v2/golden/ws/manifests/v1.0.0", "?x", "../../../../x",
	}
	statuses := []int{301, 302, 303, 307, 308}
	var hosts []*harness.Hostile
	var targets []target
	for i, place := range places {
		h := hostile(t, harness.HostileConfig{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if user, _, _ := r.BasicAuth(); user != robot {
				rw.Header().Set("WWW-Authenticate", "Basic")
				rw.WriteHeader(http.StatusUnauthorized)
				return
			}
			rw.Header().Set("Location", strings.NewReplacer("SELF", r.Host, "SPY", spy.Host(), "PORT", spy.Port()).Replace(place))
			rw.WriteHeader(statuses[i%len(statuses)])
		})})
		hosts = append(hosts, h)
		targets = append(targets, target{host: h.Host(), ca: h.CAPEM(), user: robot, password: robotPassword})
	}
	// A blob that is redirected to a host that is not for blobs, and to one that is.
	var leaked atomic.Bool
	blobHost := serving(t, nil, func(_ http.ResponseWriter, r *http.Request) bool {
		leaked.Store(leaked.Load() || r.Header.Get("Authorization") != "")
		return false
	})
	config := ""
	blobsTo := func(to string) func(http.ResponseWriter, *http.Request) bool {
		return func(rw http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/blobs/"+config) {
				return false
			}
			http.Redirect(rw, r, "https://"+to+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
	}
	auth := &registrytest.Auth{User: robot, Password: robotPassword}
	bad, good := serving(t, auth, blobsTo(spy.Host())), serving(t, auth, blobsTo(blobHost.Host()))
	w := besiege(t, "", append(targets,
		target{bad.Host(), bad.CAPEM(), robot, robotPassword, ""},
		target{good.Host(), slices.Concat(good.CAPEM(), blobHost.CAPEM()), robot, robotPassword, fmt.Sprintf(", blobHosts: [%q]", blobHost.Host())})...)
	for _, r := range []*registrytest.Registry{bad, good, blobHost} {
		digest := w.publish(t, r, "golden/ws", "v1.0.0")
		config = configOf(t, r, "golden/ws", digest)
	}

	t.Run("manifests", func(t *testing.T) {
		for i, place := range places {
			t.Run(place, func(t *testing.T) {
				t.Parallel()
				want{says: []string{"could not be checked"}, without: []string{"s3cret", "not signed"}}.
					check(t, w.admit(t, w.pod(image(hosts[i].Host()+"/golden/ws:v1.0.0"))))
				// Two halves, each with a request that is challenged and at most three redirects.
				if n := len(hosts[i].Seen()); n > 2*(1+1+3) {
					t.Errorf("%d requests: %+v", n, hosts[i].Seen())
				}
			})
		}
	})
	denied("redirected the", "to another host", "which is not one of its blobHosts").check(t, w.admit(t, w.pod(image(bad.Host()+"/golden/ws:v1.0.0"))))
	allowed().check(t, w.admit(t, w.pod(image(good.Host()+"/golden/ws:v1.0.0"))))
	if n := len(blobHost.Requests()); n == 0 || leaked.Load() {
		t.Errorf("the blob host got %d requests, with credentials: %t", n, leaked.Load())
	}
	wantUntouched(t, "another host", spy)
	wantUntouched(t, "the proxy", proxy)
	w.sound(t)
}

// TestNamesThatLeadInside: a configured name that resolves to this machine is not dialled (DNS rebinding).
func TestNamesThatLeadInside(t *testing.T) {
	proxyEnvironment(t, "", "")
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Skip("no file of hosts here: ", err)
	}
	var names []string
	for line := range strings.Lines(string(hosts)) {
		line, _, _ = strings.Cut(line, "#")
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[0], "127.") {
			for _, name := range fields[1:] {
				if name != "localhost" && !strings.ContainsAny(name, "_") && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	if len(names) == 0 {
		t.Skip("the file of hosts has no name of loopback but localhost; webhook/registry tests the same with a resolver of its own")
	}
	spy := hostile(t, harness.HostileConfig{Handler: http.NotFoundHandler(), Names: names})
	var targets []target
	for _, name := range names {
		targets = append(targets, target{host: name + ":" + spy.Port(), ca: spy.CAPEM()})
	}
	w := besiege(t, "", append(targets, target{host: "registry.invalid", ca: spy.CAPEM()})...)
	for _, target := range targets {
		denied("has a name that leads to a loopback address").check(t, w.admit(t, w.pod(image(target.host+"/golden/ws:v1.0.0"))))
	}
	wantUntouched(t, "loopback", spy)
	// A name that nobody knows is no verdict about the image.
	within(t, 17*time.Second, func() {
		want{code: 503, says: []string{"could not be checked"}}.check(t, w.admit(t, w.pod(image("registry.invalid/golden/ws:v1.0.0"))))
	})
	w.sound(t)
}

// configOf is the digest of an image's config.
func configOf(t *testing.T, r *registrytest.Registry, repository, reference string) string {
	t.Helper()
	manifest, err := r.Manifest(t.Context(), repository, reference)
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ Config struct{ Digest string } }
	if err := json.Unmarshal(manifest.Body, &body); err != nil {
		t.Fatal(err)
	}
	return body.Config.Digest
}
