package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
)

// TestBills: what the bills of materials say of the image, and of a program by itself.
func TestBills(t *testing.T) {
	w := open(t)
	_, files := w.release(t)
	_, again := w.release(t, "-image", filepath.Join(w.dir, "single"))
	for name, want := range map[string][]string{
		"hallmark-image.spdx.json": {
			"CONTAINER ghcr.io/hallmark-admission/hallmark v1.2.3", "CONTAINER ghcr.io/hallmark-admission/hallmark v1.2.3",
			"CONTAINER ghcr.io/hallmark-admission/hallmark v1.2.3",
			"APPLICATION github.com/hallmark-admission/hallmark v1.2.3", "APPLICATION github.com/hallmark-admission/hallmark v1.2.3",
		},
		"hallmark-linux-amd64.spdx.json": {"APPLICATION github.com/hallmark-admission/hallmark v1.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			document, err := spdxjson.Read(strings.NewReader(files[name]))
			must(t, err)
			var got []string
			for _, p := range document.Packages {
				if p.PrimaryPackagePurpose != "LIBRARY" {
					got = append(got, p.PrimaryPackagePurpose+" "+p.PackageName+" "+p.PackageVersion)
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("packages:\n got %q\nwant %q", got, want)
			}
			wantModule(t, document)
			if document.CreationInfo.Created != "2026-01-01T00:00:00Z" {
				t.Errorf("created %s, not at the date of the image", document.CreationInfo.Created)
			}
		})
	}
	image, err := spdxjson.Read(strings.NewReader(again["hallmark-image.spdx.json"]))
	must(t, err)
	var held []string
	for _, p := range image.Packages {
		for _, f := range p.Files {
			held = append(held, f.FileName)
		}
	}
	for _, f := range image.Files {
		held = append(held, f.FileName)
	}
	slices.Sort(held)
	if want := []string{"./etc/passwd", "./etc/ssl/certs/ca-certificates.crt", "./hallmark"}; !slices.Equal(slices.Compact(held), want) {
		t.Errorf("files of the image:\n got %q\nwant %q", held, want)
	}
}

// wantModule wants the one dependency of the program, with where it comes from, its hash and its licence; and Go itself.
func wantModule(t *testing.T, document *spdx.Document) {
	t.Helper()
	found := map[string]bool{}
	for _, p := range document.Packages {
		if p.PrimaryPackagePurpose != "LIBRARY" {
			continue
		}
		found[p.PackageName] = true
		locator := "pkg:golang/" + p.PackageName + "@" + p.PackageVersion
		if len(p.PackageExternalReferences) != 1 || p.PackageExternalReferences[0].Locator != locator {
			t.Errorf("%s: external references %+v, want %s", p.PackageName, p.PackageExternalReferences, locator)
		}
		if p.PackageLicenseDeclared != "BSD-3-Clause" {
			t.Errorf("%s: licence %s", p.PackageName, p.PackageLicenseDeclared)
		}
		if p.PackageName != "stdlib" && !strings.HasPrefix(p.PackageSourceInfo, "go.sum h1:") {
			t.Errorf("%s: source %q", p.PackageName, p.PackageSourceInfo)
		}
	}
	if !found["golang.org/x/mod"] || !found["stdlib"] || len(found) != 2 {
		t.Errorf("modules: %v", found)
	}
}

// TestProvenance: it is about every file and digest, and names commit, modules and certificates.
func TestProvenance(t *testing.T) {
	t.Setenv("GITHUB_SERVER_URL", "https://github.com")
	t.Setenv("GITHUB_WORKFLOW_REF", "hallmark-admission/hallmark/.github/workflows/release.yml@refs/tags/v1.2.3")
	t.Setenv("GITHUB_REPOSITORY", "hallmark-admission/hallmark")
	t.Setenv("GITHUB_RUN_ID", "42")
	t.Setenv("GITHUB_RUN_ATTEMPT", "2")
	w := open(t)
	_, files := w.release(t)
	var got struct {
		PredicateType string
		Subject       []subject
		Predicate     struct {
			BuildDefinition struct {
				ExternalParameters   map[string]any
				ResolvedDependencies []struct {
					Name, URI string
					Digest    map[string]string
				}
			}
			RunDetails struct {
				Builder  struct{ ID string }
				Metadata struct{ InvocationID string }
			}
		}
	}
	must(t, json.Unmarshal([]byte(files["provenance.json"]), &got))
	subjects := map[string]bool{}
	for _, s := range got.Subject {
		subjects[s.Digest["sha256"]] = true
	}
	for line := range strings.Lines(files["SHA256SUMS"]) {
		if hash, name, _ := strings.Cut(line, " "); !subjects[hash] {
			t.Errorf("%s is no subject", name)
		}
	}
	contents, err := readImage(filepath.Join(w.dir, "image"))
	must(t, err)
	for _, d := range contents.digests() {
		if !subjects[d.Digest.Hex] {
			t.Errorf("the digest %s is no subject", d.Digest)
		}
	}
	materials := map[string]string{}
	for _, m := range got.Predicate.BuildDefinition.ResolvedDependencies {
		for algorithm, value := range m.Digest {
			materials[algorithm] += value
		}
	}
	if materials["gitCommit"] != w.commit || len(materials["dirHash"]) != 64 || len(materials["sha256"]) != 64 {
		t.Errorf("materials: %v", materials)
	}
	run := got.Predicate.RunDetails
	if run.Builder.ID != "https://github.com/hallmark-admission/hallmark/.github/workflows/release.yml@refs/tags/v1.2.3" ||
		run.Metadata.InvocationID != "https://github.com/hallmark-admission/hallmark/actions/runs/42/attempts/2" {
		t.Errorf("built by %+v", run)
	}
	if got.PredicateType != provenancePredicate || got.Predicate.BuildDefinition.ExternalParameters["version"] != version {
		t.Errorf("got %s of %v", got.PredicateType, got.Predicate.BuildDefinition.ExternalParameters)
	}
}
