package registry

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

func TestParseCredentials(t *testing.T) {
	const host = "registry.corp.example:5000"
	user := authn.AuthConfig{Username: "u", Password: "p", Auth: "dTpw"}
	tests := []struct {
		name, config, host string
		want               credentials
		problem            string
	}{
		{name: "auth", config: `{"auths":{"registry.corp.example:5000":{"auth":"dTpw"},"other.example":{"auth":"eDp5"}}}`,
			want: credentials{{host, user}}},
		{name: "user and password", config: `{"auths":{"https://registry.corp.example:5000/v2/":{"username":"u","password":"p"}}}`,
			want: credentials{{host, user}}},
		{name: "longest first", config: `{"auths":{"registry.corp.example:5000":{"registrytoken":"r"},"registry.corp.example:5000/golden/base":{"auth":"dTpw"},"registry.corp.example:5000/golden":{"identitytoken":"i"}}}`,
			want: credentials{{host + "/golden/base", user}, {host + "/golden", authn.AuthConfig{IdentityToken: "i"}}, {host, authn.AuthConfig{RegistryToken: "r"}}}},
		{name: "Docker Hub", host: "docker.io", config: `{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}`,
			want: credentials{{"docker.io", user}}},
		{name: "another's helper", config: `{"auths":{"registry.corp.example:5000":{"auth":"dTpw"}},"credHelpers":{"gcr.io":"gcloud"}}`,
			want: credentials{{host, user}}},
		{name: "store", config: `{"auths":{"registry.corp.example:5000":{}},"credsStore":"desktop"}`, problem: "keeps credentials in the store desktop, which Hallmark does not run"},
		{name: "helper", config: `{"credHelpers":{"registry.corp.example:5000":"ecr-login"}}`, problem: "from the helper ecr-login, which Hallmark does not run"},
		{name: "none", config: `{"auths":{"registry.corp.example":{"auth":"dTpw"}}}`, problem: "has no credentials for registry.corp.example:5000"},
		{name: "empty entry", config: `{"auths":{"registry.corp.example:5000":{}}}`, problem: "has no credentials for registry.corp.example:5000"},
		{name: "no auths", config: `{}`, problem: "has no credentials for"},
		{name: "not base64", config: `{"auths":{"registry.corp.example:5000":{"auth":"s3cr3t!"}}}`, problem: `the entry "registry.corp.example:5000" cannot be read`},
		{name: "no colon", config: `{"auths":{"registry.corp.example:5000":{"auth":"czNjcjN0"}}}`, problem: "cannot be read"},
		{name: "no password", config: `{"auths":{"registry.corp.example:5000":{"username":"s3cr3t"}}}`, problem: "has no user or no password"},
		{name: "a header ended", config: `{"auths":{"registry.corp.example:5000":{"registrytoken":"s3cr3t\n"}}}`, problem: "cannot be sent in a header"},
		{name: "two that differ", config: `{"auths":{"registry.corp.example:5000":{"auth":"dTpw"},"https://registry.corp.example:5000":{"auth":"eDp5"}}}`, problem: "different credentials"},
		{name: "two that agree", config: `{"auths":{"registry.corp.example:5000":{"auth":"dTpw"},"https://registry.corp.example:5000":{"auth":"dTpw"}}}`,
			want: credentials{{host, user}, {host, user}}},
		{name: "not JSON", config: `s3cr3t`, problem: "is not a Docker config"},
		{name: "twice", config: `{"auths":{},"auths":{}}`, problem: "is not a Docker config"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.host == "" {
				test.host = host
			}
			got, err := parseCredentials([]byte(test.config), test.host)
			if test.problem == "" {
				if err != nil || !reflect.DeepEqual(got, test.want) {
					t.Errorf("got  %v, %v\nwant %v", got, err, test.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.problem) || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("got %v, want %q", err, test.problem)
			}
		})
	}
}

func FuzzParseCredentials(f *testing.F) {
	f.Add([]byte(`{"auths":{"h.example":{"auth":"dTpw"},"https://h.example/v1/":{"username":"u","password":"p"},"h.example/a":{"identitytoken":"x"}}}`))
	f.Add([]byte(`{"auths":{"h.example":null},"credsStore":"x","credHelpers":{"h.example":"y"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := parseCredentials(data, "h.example")
		if (err == nil) != (len(found) > 0) {
			t.Fatalf("%v with %v", found, err)
		}
		for i, entry := range found {
			if entry.name != "h.example" && !strings.HasPrefix(entry.name, "h.example/") {
				t.Errorf("an entry of another host: %q", entry.name)
			}
			if i > 0 && len(entry.name) > len(found[i-1].name) {
				t.Errorf("%q comes after the shorter %q", entry.name, found[i-1].name)
			}
		}
		found.find("h.example/a/b")
	})
}

func TestCredentialsFind(t *testing.T) {
	all := credentials{
		{"h.example/a/b", authn.AuthConfig{Username: "ab"}}, {"h.example/a", authn.AuthConfig{Username: "a"}}, {"h.example", authn.AuthConfig{Username: "host"}},
	}
	for repository, want := range map[string]string{
		"h.example/a/b": "ab", "h.example/a/b/c": "ab", "h.example/a/bc": "a", "h.example/ab": "host", "h.example.evil/a": "",
	} {
		if got := all.find(repository).Username; got != want {
			t.Errorf("%s: got %q, want %q", repository, got, want)
		}
	}
}

func TestParseChallenge(t *testing.T) {
	bearer := challenge{bearer: true, realm: "https://a.example/token", service: "s, t", scope: `x "y"`}
	tests := []struct {
		name    string
		headers []string
		want    challenge
		ok      bool
	}{
		{"none", nil, challenge{}, false},
		{"basic", []string{`Basic realm="x"`}, challenge{}, true},
		{"basic alone", []string{`basic`}, challenge{}, true},
		{"bearer", []string{`Bearer realm="https://a.example/token",service="s, t",scope="x \"y\""`}, bearer, true},
		{"spaces and case", []string{"  BEARER  Realm = \"https://a.example/token\" ,\tSERVICE=\"s, t\", scope=\"x \\\"y\\\"\""}, bearer, true},
		{"after others", []string{`Negotiate abc==`, `Digest realm="d", qop=auth, Bearer realm="https://a.example/token",service="s, t",scope="x \"y\""`}, bearer, true},
		{"first of two", []string{`Bearer realm="r", Basic realm="x"`}, challenge{bearer: true, realm: "r"}, true},
		{"realm twice", []string{`Bearer realm="r",realm="evil"`}, challenge{bearer: true, realm: "r"}, true},
		{"open quotes", []string{`Bearer realm="r`}, challenge{bearer: true}, true},
		{"garbage", []string{`=,"",=="`}, challenge{}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseChallenge(http.Header{"Www-Authenticate": test.headers})
			if got != test.want || ok != test.ok {
				t.Errorf("got %+v %v, want %+v %v", got, ok, test.want, test.ok)
			}
		})
	}
}

func FuzzParseChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://a.example/token",service=s, Basic realm="\x"`)
	f.Add(`Negotiate abc==, ="= ,`)
	f.Fuzz(func(_ *testing.T, value string) { // it ends, and does not panic
		parseChallenge(http.Header{"Www-Authenticate": {value}})
	})
}
