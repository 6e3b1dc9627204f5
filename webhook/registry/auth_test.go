package registry_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// withLogin configures a Docker config with a user and a password for the registry.
func withLogin(t *testing.T, r *registrytest.Registry, user, password string) func(*registry.Config) {
	t.Helper()
	return withAuths(t, map[string]any{r.Host(): map[string]string{
		"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password)),
	}})
}

func withAuths(t *testing.T, auths map[string]any) func(*registry.Config) {
	t.Helper()
	content, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, string(content))
	return func(c *registry.Config) { c.Hosts[0].CredentialsFile = path }
}

func countPath(r *registrytest.Registry, path string) (n int) {
	for _, request := range r.Requests() {
		if request.Path == path {
			n++
		}
	}
	return n
}

func statuses(r *registrytest.Registry) (all []string) {
	for _, request := range r.Requests() {
		kind := strings.Trim(request.Path, "/")
		if _, rest, found := strings.Cut(request.Path, "/golden/base/"); found {
			kind, _, _ = strings.Cut(rest, "/")
		}
		all = append(all, fmt.Sprint(kind, " ", request.Status))
	}
	return all
}

func TestLogin(t *testing.T) {
	basic := registrytest.Auth{User: "robot", Password: "hunter2"}
	bearer := registrytest.Auth{User: "robot", Password: "hunter2", Bearer: true, IdentityToken: "refresh-me"}
	auth := base64.StdEncoding.EncodeToString([]byte("robot:hunter2"))
	wrong := base64.StdEncoding.EncodeToString([]byte("robot:s3cr3t"))
	tests := []struct {
		name   string
		auth   registrytest.Auth
		key    string // of the entry; %s is the host
		entry  map[string]string
		reason string
		want   []string // requests
	}{
		{"basic", basic, "%s", map[string]string{"auth": auth}, "", []string{"manifests 401", "manifests 200", "blobs 200"}},
		{"basic, user and password", basic, "%s", map[string]string{"username": "robot", "password": "hunter2"}, "", []string{"manifests 401", "manifests 200", "blobs 200"}},
		{"basic, by URL", basic, "https://%s/v2/", map[string]string{"auth": auth}, "", []string{"manifests 401", "manifests 200", "blobs 200"}},
		{"basic, by path", basic, "%s/golden", map[string]string{"auth": auth}, "", []string{"manifests 401", "manifests 200", "blobs 200"}},
		{"basic, for another path", basic, "%s/gold", map[string]string{"auth": auth}, "refused access to golden/base (401)", []string{"manifests 401"}},
		{"basic, wrong", basic, "%s", map[string]string{"auth": wrong}, "refused access to golden/base (401)", []string{"manifests 401", "manifests 401"}},
		{"basic, none", basic, "", nil, "refused access to golden/base (401)", []string{"manifests 401"}},
		{"bearer", bearer, "%s", map[string]string{"auth": auth}, "", []string{"manifests 401", "token 200", "manifests 200", "blobs 200"}},
		{"bearer, identity token", bearer, "%s", map[string]string{"identitytoken": "refresh-me"}, "", []string{"manifests 401", "token 200", "manifests 200", "blobs 200"}},
		{"bearer, wrong", bearer, "%s", map[string]string{"auth": wrong}, "refused access to golden/base (its token service answered 401)", []string{"manifests 401", "token 401"}},
		{"bearer, wrong registry token", bearer, "%s", map[string]string{"registrytoken": "s3cr3t"}, "refused access to golden/base (401)", []string{"manifests 401", "manifests 401"}},
		{"bearer, none", bearer, "", nil, "refused access to golden/base (its token service answered 401)", []string{"manifests 401", "token 401"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := serve(t, registrytest.Config{Auth: &test.auth})
			digest := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
			var tweak func(*registry.Config)
			if test.entry != nil {
				tweak = withAuths(t, map[string]any{fmt.Sprintf(test.key, r.Host()): test.entry})
			}
			got, err := connect(t, r, tweak).ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			if test.reason != "" {
				wantReadError(t, err, webhook.Unauthorized, r.Host(), test.reason)
				wantNoSecret(t, err)
			} else if err != nil || got.Digest != digest {
				t.Errorf("got %+v, %v; want %s", got, err, digest)
			}
			if got := statuses(r); !slices.Equal(got, test.want) {
				t.Errorf("got requests %v, want %v", got, test.want)
			}
		})
	}
}

// wantNoSecret looks for credentials in everything that an error says.
func wantNoSecret(t *testing.T, err error) {
	t.Helper()
	encoded := base64.StdEncoding.EncodeToString([]byte("robot:s3cr3t"))
	for ; err != nil; err = errors.Unwrap(err) {
		for _, secret := range []string{"s3cr3t", "hunter2", encoded, "Bearer ", "Basic "} {
			if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, secret) {
				t.Errorf("the error has a secret: %s", text)
			}
		}
	}
}

// Later reads send at once what the first one learned, and one token serves one repository only.
func TestTokensAreKept(t *testing.T) {
	r := serve(t, registrytest.Config{Auth: &registrytest.Auth{User: "u", Password: "p", Bearer: true}})
	push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	push(t, r, registrytest.Image{Repository: "golden/other", Tag: "v1"})
	now := time.Now()
	login := withLogin(t, r, "u", "p")
	client := connect(t, r, func(c *registry.Config) { login(c); c.Now = func() time.Time { return now } })
	read := func(repository string, want int) {
		t.Helper()
		r.Reset()
		if _, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/"+repository+":v1"), webhook.DigestOnly); err != nil {
			t.Fatal(err)
		}
		if n := len(r.Requests()); n != want {
			t.Errorf("%s: got requests %v, want %d", repository, r.Requests(), want)
		}
	}
	read("golden/base", 3)  // 401, token, manifest
	read("golden/base", 1)  // manifest
	read("golden/other", 2) // token, manifest
	now = now.Add(4*time.Minute + 29*time.Second)
	read("golden/base", 1)
	now = now.Add(2 * time.Second) // less than a tenth of the token's five minutes is left
	read("golden/base", 2)
}
