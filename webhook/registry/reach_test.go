package registry_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}

// Hosts that are not configured are not even looked up.
func TestOtherHostsAreNotContacted(t *testing.T) {
	r := serve(t, registrytest.Config{})
	s := newSpy(t)
	var dialled []string
	client := connect(t, r, func(c *registry.Config) {
		c.Hosts = append(c.Hosts, registry.Host{Host: "registry.corp"})
		c.DialContext = dialTo(s.address, &dialled)
	})
	for _, image := range []string{
		"registry.corp.evil.com/golden/ws:v1.0.0", "registry.corp:5000/golden/ws:v1", "evil.example/x:v1",
		"kubernetes.default.svc/x:v1", "10.96.0.1:443/x:v1", "localhost/x:v1", s.address + "/x:v1", "ubuntu:24.04",
	} {
		ref := parse(t, image)
		_, err := client.ReadImage(t.Context(), ref, webhook.WithConfig)
		wantReadError(t, err, webhook.NotAllowed, ref.Registry, "is not a registry that may be contacted")
		_, err = client.Manifest(t.Context(), ref, 0)
		wantReadError(t, err, webhook.NotAllowed, ref.Registry, "is not a registry that may be contacted")
	}
	if dialled != nil {
		t.Errorf("dialled %v", dialled)
	}
}

func TestRedirects(t *testing.T) {
	s := newSpy(t)
	to := func(location string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", strings.NewReplacer("HOST", r.Host).Replace(location))
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	}
	tests := []struct {
		name, what string
		handle     http.HandlerFunc
		failure    webhook.ReadFailure
		reason     string
	}{
		{"manifest to another host", "/manifests/", to("https://" + s.address + "/secret?X-Sig=s3cr3t"), webhook.NotAllowed, "redirected the manifest to another host, \"https://" + s.address + `"`},
		{"manifest to plain HTTP", "/manifests/", to("http://HOST/v2/x"), webhook.NotAllowed, "redirected the manifest to another host"},
		{"manifest to metadata", "/manifests/", to("http://169.254.169.254/latest"), webhook.NotAllowed, "redirected the manifest to another host"},
		{"manifest to another name of the same", "/manifests/", to("https://localhost/v2/x"), webhook.NotAllowed, "redirected the manifest to another host"},
		{"blob to another host", "/blobs/", to("https://" + s.address + "/secret?X-Sig=s3cr3t"), webhook.NotAllowed, "which is not one of its blobHosts"},
		{"blob to plain HTTP", "/blobs/", to("http://HOST/x"), webhook.NotAllowed, "which is not one of its blobHosts"},
		{"blob with a user", "/blobs/", to("https://robot:s3cr3t@HOST/x"), webhook.Invalid, "redirected to an address that cannot be read"},
		{"nowhere", "/manifests/", to(""), webhook.Invalid, "redirected to an address that cannot be read"},
		{"unreadable", "/manifests/", to("https://[::1/s3cr3t"), webhook.Invalid, "redirected to an address that cannot be read"},
		{"loop", "/manifests/", to("/v2/golden/base/manifests/v1"), webhook.Invalid, "redirected more than 3 times"},
		{"blob loop", "/blobs/", to("/v2/golden/base/blobs/x"), webhook.Invalid, "redirected more than 3 times"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := serve(t, registrytest.Config{Intercept: intercept(test.what, test.handle)})
			push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
			_, err := connect(t, r, nil).ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			wantReadError(t, err, test.failure, r.Host(), test.reason)
			wantNoSecret(t, err)
		})
	}
}

// A blob host gets the request, and not the credentials.
func TestBlobHost(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	r := serve(t, registrytest.Config{
		Auth: &registrytest.Auth{User: "u", Password: "p"},
		Intercept: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				name, _, _ := strings.Cut(r.Host, ":")
				if strings.Contains(r.URL.Path, "/blobs/") && name == "127.0.0.1" {
					http.Redirect(w, r, strings.Replace("https://"+r.Host+r.URL.Path, "127.0.0.1", "localhost", 1), http.StatusTemporaryRedirect)
					return
				}
				if name == "localhost" {
					mu.Lock()
					seen = append(seen, r.Header.Get("Authorization"))
					mu.Unlock()
					r.SetBasicAuth("u", "p") // what the blob host knows by itself
				}
				next.ServeHTTP(w, r)
			})
		},
	})
	push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	login := withLogin(t, r, "u", "p")
	ref := parse(t, r.Host()+"/golden/base:v1")
	_, err := connect(t, r, login).ReadImage(t.Context(), ref, webhook.WithConfig)
	wantReadError(t, err, webhook.NotAllowed, r.Host(), "which is not one of its blobHosts")
	client := connect(t, r, func(c *registry.Config) {
		login(c)
		c.Hosts[0].BlobHosts = []string{strings.Replace(r.Host(), "127.0.0.1", "localhost", 1)}
	})
	if _, err := client.ReadImage(t.Context(), ref, webhook.WithConfig); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, []string{""}) {
		t.Errorf("the blob host saw the credentials %q, want one request without", seen)
	}
}

func TestRealms(t *testing.T) {
	s := newSpy(t)
	for _, realm := range []string{
		"https://" + s.address + "/token", "http://" + s.address + "/token", "https://localhost" + s.port() + "/token",
		"http://HOST/token", "http://169.254.169.254/", "https://internal.svc/token", "https://127.0.0.1/token",
		"https://2130706433/", "https://127.1/", "https://0.0.0.0/", "https://127.0.0.1.evil.example/token",
	} {
		t.Run(realm, func(t *testing.T) {
			r := serve(t, registrytest.Config{Intercept: tokenServer(func(r *http.Request) string {
				return strings.Replace(realm, "HOST", r.Host, 1)
			}, send(200, "", ""))})
			client := connect(t, r, withLogin(t, r, "robot", "s3cr3t"))
			for range 2 { // the second is no different: the challenge was not remembered
				_, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
				wantReadError(t, err, webhook.NotAllowed, r.Host(), "which is not one of its tokenHosts")
				wantNoSecret(t, err)
			}
			if n := countPath(r, "/token"); n != 0 {
				t.Errorf("%d token requests, want none", n)
			}
		})
	}
	for _, realm := range []string{"file:///etc/passwd", "ftp://HOST/token", "token", "", "https:HOST", "//HOST/token", "https://u:p@HOST/token", "https://HOST/token#x", ":"} {
		t.Run(realm, func(t *testing.T) {
			r := serve(t, registrytest.Config{Intercept: tokenServer(func(r *http.Request) string {
				return strings.Replace(realm, "HOST", r.Host, 1)
			}, send(200, "", ""))})
			_, err := connect(t, r, nil).ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			if err == nil || countPath(r, "/token") != 0 {
				t.Errorf("got %v and requests %v, want an error and no token request", err, r.Requests())
			}
		})
	}
}

// Another host may issue tokens when it is configured, and is shown the credentials; the token goes to the registry.
func TestTokenHost(t *testing.T) {
	login := "Basic " + base64.StdEncoding.EncodeToString([]byte("robot:hunter2"))
	r := serve(t, registrytest.Config{Intercept: tokenServer(
		func(r *http.Request) string {
			return "https://" + strings.Replace(r.Host, "127.0.0.1", "localhost", 1) + "/token"
		},
		func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.Host, "localhost:") || r.Header.Get("Authorization") != login {
				t.Errorf("token request to %s without the credentials", r.Host)
			}
			send(200, "", `{"token":"good"}`)(w, r)
		})})
	push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	configure := withLogin(t, r, "robot", "hunter2")
	client := connect(t, r, func(c *registry.Config) {
		configure(c)
		c.Hosts[0].TokenHosts = []string{strings.Replace(r.Host(), "127.0.0.1", "localhost", 1)}
	})
	if _, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig); err != nil {
		t.Error(err)
	}
}

func TestDockerHub(t *testing.T) {
	var realm string
	r := serve(t, registrytest.Config{
		DNSNames:  []string{"registry-1.docker.io", "auth.docker.io"},
		Intercept: tokenServer(func(*http.Request) string { return realm }, send(200, "", `{"token":"good"}`)),
	})
	realm = "https://auth.docker.io/token"
	digest := push(t, r, registrytest.Image{Repository: "library/ubuntu", Tag: "24.04"})
	var dialled []string
	client := connect(t, r, func(c *registry.Config) {
		c.Hosts[0].Host = "docker.io"
		c.Hosts[0].CredentialsFile = writeFile(t, `{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}`)
		c.DialContext = dialTo(r.Host(), &dialled)
	})
	got, err := client.ReadImage(t.Context(), parse(t, "ubuntu:24.04"), webhook.DigestOnly)
	if err != nil || got.Digest != digest {
		t.Fatalf("got %+v, %v; want %s", got, err, digest)
	}
	if want := []string{"registry-1.docker.io:443", "auth.docker.io:443"}; !slices.Equal(dialled, want) {
		t.Errorf("dialled %v, want %v", dialled, want)
	}
	_, err = client.ReadImage(t.Context(), parse(t, "ubuntu:22.04"), webhook.DigestOnly)
	wantReadError(t, err, webhook.NotFound, "docker.io", "has no tag 22.04 of library/ubuntu")
}
