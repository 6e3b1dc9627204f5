package main

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart/loader"
)

// TestChart: what helm would pack, with the release stamped in and everything else as it was written.
func TestChart(t *testing.T) {
	s := stamp{"v1.2.3", "registry.example.com/hallmark", "sha256:" + strings.Repeat("a", 64), time.Unix(1767225600, 0)}
	packed, err := packChart("testdata/chart", s)
	must(t, err)
	unzipped, err := gzip.NewReader(bytes.NewReader(packed.content))
	must(t, err)
	got := map[string]string{}
	var names []string
	for _, f := range entries(t, unzipped) {
		got[f.name], names = string(f.content), append(names, f.name)
	}
	want := map[string]string{
		"hallmark/.helmignore":        "tests/\n",
		"hallmark/Chart.yaml":         "apiVersion: v2\nname: hallmark\n# Stamped.\nversion: \"1.2.3\"\nappVersion: \"v1.2.3\" # also the tag\n",
		"hallmark/values.yaml":        "# -- Image\nimage:\n  repository: \"registry.example.com/hallmark\"\n  # -- `sha256:…`\n  digest: \"" + s.digest + "\"  # stamped\nreplicas: 3\n",
		"hallmark/templates/map.yaml": "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata: {image: \"{{ .Values.image.digest }}\"}\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if packed.name != "hallmark-1.2.3.tgz" || names[0] != "hallmark/Chart.yaml" {
		t.Errorf("%s begins with %s", packed.name, names[0])
	}
	loaded, err := loader.LoadArchive(bytes.NewReader(packed.content))
	must(t, err)
	if loaded.Metadata.Version != "1.2.3" || loaded.Values["image"].(map[string]any)["digest"] != s.digest {
		t.Errorf("helm reads version %s, image %v", loaded.Metadata.Version, loaded.Values["image"])
	}
}

func TestChartVersion(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "v1.2.3-rc.1": "1.2.3-rc.1", "v1.2.3-4-gabcdef0": "1.2.3-4-gabcdef0", "0123456789ab": "0.0.0-g0123456789ab",
		"v1.2": "0.0.0-gv1-2", "dev": "0.0.0-gdev",
	} {
		if got := (stamp{version: version}).chartVersion(); got != want {
			t.Errorf("%s: got %s, want %s", version, got, want)
		}
	}
}
