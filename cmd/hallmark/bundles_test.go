package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/server"
)

// oneRule is an unsigned bundle with a rule of a name.
func oneRule(t *testing.T, name, message string) []byte {
	t.Helper()
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	files := tar.NewWriter(zipped)
	for file, text := range map[string]string{
		".manifest":    fmt.Sprintf(`{"roots": ["hallmark/rules/%s"]}`, name),
		name + ".rego": fmt.Sprintf("package hallmark.rules.%s\n\ndeny contains {\"message\": %q} if input.object.kind\n", name, message),
	} {
		if err := files.WriteHeader(&tar.Header{Name: file, Mode: 0o600, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// TestBundlesAndFilesTogether: while bundles arrive and the configuration changes, there always is a generation, wholly
// of one configuration with all of its bundles, and in the end the newest of everything.
func TestBundlesAndFilesTogether(t *testing.T) {
	const last = 8
	var asked atomic.Int64
	served := map[string][][]byte{}
	for _, name := range []string{"a", "b"} {
		for i := range last + 1 {
			served["/"+name] = append(served["/"+name], oneRule(t, name, fmt.Sprint(i)))
		}
	}
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := min(asked.Add(1)/2, last)
		_, _ = w.Write(served[r.URL.Path][i])
	}))
	defer source.Close()
	file := filepath.Join(t.TempDir(), "hallmark.yaml")
	write := func(more string) {
		text := fmt.Sprintf(`apiVersion: hallmark.dev/v1alpha1
kind: Configuration
registries: [{host: "registry.corp:5000"}]
tags: {allow: [exact]}
policies:
  bundles:
    - {url: "%[1]s/a", every: 1s, unsigned: true}
    - {url: "%[1]s/b", every: 1s, unsigned: true}
%[2]s`, source.URL, more)
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Error(err)
		}
	}
	write("")
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	l := newLoader(file, nil, outside{now: time.Now, log: log}, server.NewMetrics())
	if err := l.load(t.Context()); err != nil && !unfinished(err) {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() { watched <- l.watch(ctx) }()
	deadline := time.After(30 * time.Second)
	for i := 0; ; i++ {
		write(fmt.Sprintf("message: {helpURL: \"https://help/%d\"}\n", i))
		g := l.generation.Load()
		if g != nil && strings.Count(verdict(t, g), "a ")+strings.Count(verdict(t, g), "b ") != 2 {
			t.Errorf("a generation with a part of the bundles: %q", verdict(t, g))
		}
		if g != nil && verdict(t, g) == fmt.Sprintf("a %d, b %d", last, last) {
			break
		}
		select {
		case <-deadline:
			t.Fatal("the last bundles did not come in force")
		case <-time.After(150 * time.Millisecond):
		}
	}
	stop()
	if err := <-watched; err != nil {
		t.Error(err)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if len(l.following) > 0 {
		t.Errorf("%d bundles are followed after the end", len(l.following))
	}
}

// verdict gives what the rules of the bundles say of a pod.
func verdict(t *testing.T, g *generation) string {
	t.Helper()
	d := g.reviewer.Validate(t.Context(), &webhook.Request{
		UID: "1", Operation: webhook.Create, Kind: "Pod", Namespace: "team",
		Object: []byte(`{"kind":"Pod","spec":{"containers":[{"name":"a","image":"registry.corp:5000/a:v1.0.0"}]}}`),
	})
	var said []string
	for _, f := range d.Findings {
		if f.Rule == "a" || f.Rule == "b" {
			said = append(said, f.Rule+" "+f.Message)
		}
	}
	return strings.Join(said, ", ")
}

// TestBundleIdentity: a following is replaced when something that it was made from has changed, and only then.
func TestBundleIdentity(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("key", "1")
	write("docker", "{}")
	base := fmt.Sprintf(`registries: [{host: "registry.corp:5000", credentials: %[1]s/docker}]
tags: {allow: [exact]}
policies:
  bundles:
    - {url: "https://policies.corp/a", verification: {keyFile: %[1]s/key}}
    - {oci: "registry.corp:5000/a:v1", verification: {keyFile: %[1]s/key}}
`, dir)
	identities := func(text string) (url, oci string) {
		t.Helper()
		c := parsed(t, "apiVersion: hallmark.dev/v1alpha1\nkind: Configuration\n"+text)
		url, err := bundleIdentity(c.Policies.Bundles[0], c, outside{})
		if err != nil {
			t.Fatal(err)
		}
		oci, err = bundleIdentity(c.Policies.Bundles[1], c, outside{})
		if err != nil {
			t.Fatal(err)
		}
		return url, oci
	}
	url, oci := identities(base)
	for name, c := range map[string]struct {
		text       string
		file       string
		urlChanged bool
		ociChanged bool
	}{
		"nothing":              {base, "", false, false},
		"another part":         {base + "mode: warn\n", "", false, false},
		"another scope":        {strings.Replace(base, "/key}", "/key, scope: a}", 1), "", true, false},
		"how often":            {strings.Replace(base, "policies.corp/a\"", "policies.corp/a\", every: 5s", 1), "", true, false},
		"another key":          {base, "key", true, true},
		"another login":        {base, "docker", false, true},
		"in the clear":         {strings.Replace(base, "credentials:", "plainHTTP: true, credentials:", 1), "", false, true},
		"somewhere to be kept": {base + "cache: {dir: /a}\n", "", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			write("key", "1")
			write("docker", "{}")
			if c.file != "" {
				write(c.file, "2")
			}
			newURL, newOCI := identities(c.text)
			if (newURL != url) != c.urlChanged || (newOCI != oci) != c.ociChanged {
				t.Errorf("url changed %t, oci changed %t", newURL != url, newOCI != oci)
			}
		})
	}
}

// TestBundleLayer: one layer of the right type, whatever else there is.
func TestBundleLayer(t *testing.T) {
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(nil))
	layer := fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q}`, digest)
	for name, c := range map[string]struct{ body, says string }{
		"one":           {`{"layers":[` + layer + `]}`, ""},
		"beside others": {`{"layers":[{"mediaType":"text/plain","digest":"x"},` + layer + `]}`, ""},
		"none":          {`{"layers":[]}`, "has 0 layers"},
		"two":           {`{"layers":[` + layer + `,` + layer + `]}`, "has 2 layers"},
		"an index":      {`{"manifests":[]}`, "names an index"},
		"two readings":  {`{"layers":[` + layer + `],"layers":[]}`, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := bundleLayer(webhook.Manifest{Body: []byte(c.body)})
			if c.says == "" && (err != nil || got != digest) || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%q, %v; want %q", got, err, c.says)
			}
		})
	}
}

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	c, _, err := config.Load([]byte(text), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}
