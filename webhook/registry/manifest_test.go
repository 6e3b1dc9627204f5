package registry

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func FuzzParseManifest(f *testing.F) {
	config := `"config":{"mediaType":"` + ociConfig + `","digest":"sha256:` + strings.Repeat("a", 64) + `","size":2}`
	f.Add([]byte("{\"schemaVersion\":2,"+config+`,"layers":[{"mediaType":"x"}]}`), ociManifest)
	f.Add([]byte(`{"manifests":[{"digest":"sha256:`+strings.Repeat("b", 64)+`","platform":{"os":"linux","architecture":"amd64"}}]}`), ociIndex)
	f.Add([]byte(`{"Manifests":null,"config":1e9}`), "application/json; x=y")
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		doc, err := parseManifest(body, contentType, 50)
		if err != nil {
			if text := err.Error(); text == "" || len(text) > 1000 || strings.ContainsAny(text, "\r\n\x00\x1b") {
				t.Errorf("unfit for a message: %q", text)
			}
			return
		}
		if !isManifestType(doc.mediaType) || doc.index != (len(doc.children) > 0) || len(doc.children) > 50 {
			t.Fatalf("got %+v", doc)
		}
		for _, child := range doc.children {
			if !isDigest(child.digest) {
				t.Errorf("a child has the digest %q", child.digest)
			}
		}
		if !doc.index && !isDigest(doc.config.digest) {
			t.Errorf("the config has the digest %q", doc.config.digest)
		}
		agreesWithRuntime(t, body, doc)
		_ = doc.checkRunnable()
	})
}

// agreesWithRuntime reads the manifest as container runtimes do, with encoding/json.
func agreesWithRuntime(t *testing.T, body []byte, doc *document) {
	t.Helper()
	var runtime struct {
		MediaType string `json:"mediaType"`
		Config    struct {
			Digest string `json:"digest"`
		} `json:"config"`
		Manifests []struct {
			Digest string `json:"digest"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(body, &runtime); err != nil {
		return // a runtime does not run it
	}
	var children []string
	for _, child := range runtime.Manifests {
		children = append(children, child.Digest)
	}
	var ours []string
	for _, child := range doc.children {
		ours = append(ours, child.digest)
	}
	if runtime.Config.Digest != doc.config.digest || !slices.Equal(children, ours) {
		t.Errorf("a runtime reads %+v, we read %+v", runtime, doc)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","architecture":"amd64","created":"2026-01-01T00:00:00Z","config":{"User":"1000","Env":["A=b"],"Labels":{"a":"b"}},"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}`))
	f.Add([]byte(`{"config":{"User":"1","user":"0"}}`))
	f.Add([]byte(`{"config":null,"Config":{"User":"0"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseConfig(body)
		if err != nil {
			return
		}
		// As container runtimes read it.
		var runtime struct {
			OS           string `json:"os"`
			Architecture string `json:"architecture"`
			Config       struct {
				User   string
				Labels map[string]string
			} `json:"config"`
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			} `json:"rootfs"`
		}
		if err := json.Unmarshal(body, &runtime); err != nil {
			return
		}
		if got.User != runtime.Config.User || got.OS != runtime.OS || got.Architecture != runtime.Architecture ||
			len(got.Labels) != len(runtime.Config.Labels) || !slices.Equal(got.Layers, runtime.RootFS.DiffIDs) {
			t.Errorf("a runtime reads %+v, we read %+v", runtime, got)
		}
	})
}
