package policies_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/hallmark-admission/hallmark/policies"
	"github.com/hallmark-admission/hallmark/webhook/policy"
)

// sources are all Rego files, by path: those that are shipped, and the examples.
func sources(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, from := range []fs.FS{policies.Files(), os.DirFS(".")} {
		err := fs.WalkDir(from, ".", func(name string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, ".rego") {
				return err
			}
			files[name], err = fs.ReadFile(from, name)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func parse(t *testing.T, name string, text []byte) *ast.Module {
	t.Helper()
	module, err := ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{ProcessAnnotation: true})
	if err != nil {
		t.Fatal(err)
	}
	return module
}

// TestRego runs the Rego tests and demands that they reach every line of every rule.
func TestRego(t *testing.T) {
	modules := map[string]*ast.Module{}
	for name, text := range sources(t) {
		modules[name] = parse(t, name, text)
	}
	coverage := cover.New()
	compiler := ast.NewCompiler().WithCapabilities(policy.Capabilities())
	results, err := tester.NewRunner().SetCompiler(compiler).SetModules(modules).SetCoverageQueryTracer(coverage).
		RaiseBuiltinErrors(true).RunTests(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]bool{}
	for result := range results {
		ran[result.Package] = true
		if !result.Pass() {
			t.Errorf("%s.%s at %s failed: %v", result.Package, result.Name, result.Location, result.Error)
		}
	}
	for name := range modules {
		if !strings.HasSuffix(name, "_test.rego") && !ran["data.hallmark.rules."+path.Base(path.Dir(name))+"_test"] {
			t.Errorf("%s has no test that ran", name)
		}
	}
	report := coverage.Report(modules)
	for name, file := range report.Files {
		for _, missed := range file.NotCovered {
			t.Errorf("%s:%d: no test reaches this line", name, missed.Start.Row)
		}
	}
}

// TestFormat holds the rules to the format of "opa fmt".
func TestFormat(t *testing.T) {
	for name, text := range sources(t) {
		formatted, err := format.SourceWithOpts(name, text, format.Opts{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(formatted, text) {
			t.Errorf("%s is not formatted; opa fmt makes of it:\n%s", name, formatted)
		}
	}
}

// TestMetadata demands of every rule what the reference is generated from, and that its package is its directory.
func TestMetadata(t *testing.T) {
	source := policy.Source(sources(t))
	maps.DeleteFunc(source, func(name string, _ []byte) bool { return strings.HasSuffix(name, "_test.rego") })
	schema, err := fs.ReadFile(policies.Files(), "schema/input.json")
	if err != nil {
		t.Fatal(err)
	}
	engine, err := policy.New(t.Context(), policy.Config{Source: source, Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	rules := engine.Metadata()
	for name, m := range rules {
		if m.Title == "" || m.Description == "" || m.Fix == "" || m.ID != name {
			t.Errorf("%s: METADATA needs title, description, custom.id %q and custom.fix; it has %+v", m.File, name, m)
		}
		for _, related := range m.Related {
			if _, ok := rules[related]; !ok {
				t.Errorf("%s: related rule %q does not exist", m.File, related)
			}
		}
	}
	for name, text := range sources(t) {
		want := "data." + strings.ReplaceAll(strings.Replace(path.Dir(name), "examples/", "hallmark/rules/", 1), "/", ".")
		if got := strings.TrimSuffix(parse(t, name, text).Package.Path.String(), "_test"); got != want {
			t.Errorf("%s is package %s, want %s", name, got, want)
		}
	}
}

func TestSchemaIsJSON(t *testing.T) {
	schema, err := fs.ReadFile(policies.Files(), "schema/input.json")
	if err != nil || !json.Valid(schema) {
		t.Fatalf("schema/input.json is not valid JSON (%v)", err)
	}
}
