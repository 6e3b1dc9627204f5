package registry_test

import (
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

func TestNewReportsEveryProblem(t *testing.T) {
	r := serve(t, registrytest.Config{})
	key := "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
	_, err := registry.New(registry.Config{
		Limits: registry.Limits{ManifestBytes: -1},
		Hosts: []registry.Host{
			{Host: ""},
			{Host: "https://registry.corp.example"},
			{Host: "Registry.corp.example"},
			{Host: "registry"},
			{Host: "index.docker.io"},
			{Host: "twice.example"}, {Host: "twice.example"},
			{Host: "a.example", CAFile: "/does/not/exist/ca.pem"},
			{Host: "b.example", CAPEM: []byte(key)},
			{Host: "c.example", CAPEM: r.CAPEM(), CAFile: "x"},
			{Host: "d.example", CAPEM: r.CAPEM(), PlainHTTP: true},
			{Host: "e.example", TokenHosts: []string{"https://auth.example"}, BlobHosts: []string{"*.example"}},
			{Host: "f.example", CredentialsFile: "/does/not/exist/config.json"},
			{Host: "g.example", CredentialsFile: writeFile(t, `{"auths":{"g.example":{"auth":"s3cr3t!"}}}`)},
			{Host: "fine.example"},
		},
	})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		"a limit is negative",
		`registry "": `,
		`registry "https://registry.corp.example": `,
		`registry "Registry.corp.example": `,
		`registry "registry": no image reference has this host`,
		`registry "index.docker.io": write docker.io`,
		`registry "twice.example": it is configured twice`,
		`registry "a.example": ca: open /does/not/exist/ca.pem`,
		`registry "b.example": the ca holds no certificate in PEM`,
		`registry "c.example": CAFile and CAPEM are both given`,
		`registry "d.example": a ca has no use with plainHTTP`,
		`registry "e.example": tokenHosts, blobHosts: "https://auth.example"`,
		`registry "e.example": tokenHosts, blobHosts: "*.example"`,
		`registry "f.example": credentials /does/not/exist/config.json: open`,
		`registry "g.example": credentials`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q", want)
		}
	}
	if strings.Contains(err.Error(), "fine.example") || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("the error says too much")
	}
	if t.Failed() {
		t.Log(err)
	}
}
