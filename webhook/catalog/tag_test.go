package catalog

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
)

func TestClassifyTag(t *testing.T) {
	tests := map[string]string{
		"latest": Rolling, "next": Rolling, "nightly": Rolling, "latest-gpu": Rolling, "stable-slim": Rolling, "LATEST": Rolling,
		"main": Branch, "release-test": Branch, "main-gha.34488": Branch, "pr-12": Branch, "dev": Branch,
		"ubuntu": Distro, "bookworm": Distro, "ubuntu24.04": Distro, "ubi9": Distro, "ubi9-latest": Distro,
		"ubuntu-22.04": Distro, "alpine-3.19.1": Distro, "noble-slim": Distro,
		"v1": Major, "13": Major, "2019-latest": Major, "3-ubuntu24.04": Major, "0-1.19-bullseye": Major, "V2": Major,
		"v1.3": Minor, "22.04": Minor, "1.22-bullseye": Minor, "2023.1": Minor,
		"v1.3.1": Exact, "4.133.0-39": Exact, "9.5-1733126338": Exact, "rm-2023.2.5": Exact, "1.2.3.4": Exact,
		"1.2.3-rc.1": Exact, "1.2.3rc1": Exact, "release-1.2.3": Exact, "2024.1.4": Exact, "1733126338": Exact,
		"v1.2.3-4-g0cb5d78": Exact, "1.2.3-0cb5d78": Exact,
		"20260319": Dated, "v20260319": Dated, "20241111-123456": Dated, "ubuntu-20240812": Dated, "2023-03": Dated,
		"2024-08-12": Dated, "nightly-20240812": Dated, "nightly-2024-08-12": Dated, "1.2-20240812": Dated,
		"ubi8-38da5c2": SHA, "10-0cb5d78": SHA, "0.9-217f798": SHA, "0123456789ab-26.04": SHA,
		"main-0cb5d78": SHA, "sha-0cb5d78": SHA,
		"commit-b38092639d1783a1957894ddd4f492b3cdc9794a-latest": SHA,
		"jdk-11": Named, "coder-v2": Named, "pre-nix": Named, "dind": Named, "hello-world": Named,
		"r2023a": Named, "no-args": Named, "1234567": Named, "8u402-jdk": Named, "_": Named, "__": Named,
		"sha256-" + strings.Repeat("a1", 32) + ".sig": Named, "sha256-" + strings.Repeat("a1", 32): Named,
		"20261340": Named, "1.x": Named, "v": Named,
	}
	for tag, want := range tests {
		if got := ClassifyTag(tag, false); got.Class != want {
			t.Errorf("ClassifyTag(%q) = %s, want %s", tag, got.Class, want)
		}
	}
}

// Sha keeps the table above readable beside the initialism of the constant.

// TestRealReferences reads the table of references that people really use, where it lies beside the repository.
func TestRealReferences(t *testing.T) {
	file, err := os.Open("../../../shared/cases/image-refs.tsv")
	if err != nil {
		t.Skip("the table of real references is not here: ", err)
	}
	defer file.Close()
	aliases := map[string]string{
		"calver-exact": Exact, "calver-minor": Minor, "implicit-latest": Untagged, "dated-month": Dated,
	}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		field := strings.Split(lines.Text(), "\t")
		if field[0] == "ref" || field[5] == "pattern" {
			continue
		}
		ref, err := webhook.ParseReference(field[0])
		if err != nil {
			t.Errorf("ParseReference(%q): %v", field[0], err)
			continue
		}
		if registry := strings.Replace(field[1], "index.docker.io", "docker.io", 1); ref.Registry != registry ||
			ref.Repository != field[2] || ref.Tag != field[3] || !strings.HasPrefix(ref.Digest, field[4]) {
			t.Errorf("ParseReference(%q) = %+v, want %v", field[0], ref, field[1:5])
		}
		want := field[5]
		if alias, ok := aliases[want]; ok {
			want = alias
		}
		if want == "tag+digest" {
			want = strings.TrimPrefix(field[7], "tag part: ")
		}
		if got := ClassifyTag(ref.Tag, ref.Digest != ""); got.Class != want {
			t.Errorf("ClassifyTag(%q) = %s, want %s", ref.Tag, got.Class, want)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}
