package chart

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/hallmark-admission/hallmark/test/chart/readme"
)

// TestReadme: the README of the chart is what its values say of themselves.
func TestReadme(t *testing.T) {
	want, err := readme.Of(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(chartDir, "README.md"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("charts/hallmark/README.md is not what values.yaml makes of it (%v): go -C test/chart run ./cmd/values", err)
	}
}
