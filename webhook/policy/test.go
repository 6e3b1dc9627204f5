package policy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

// A TestConfig says how the tests of rules are run.
type TestConfig struct {
	Library Source         // rules that are there besides, and are neither tested nor covered
	Schema  []byte         // JSON schema of the input
	Data    map[string]any // becomes data.hallmark.config
	Run     string         // regular expression of the tests to run, over PACKAGE.NAME; "" is all
}

// A TestResult is what came of one test_ rule.
type TestResult struct {
	Package, Name string // "hallmark.rules.tag_test", "test_latest_is_denied"
	File          string
	Line          int
	Passed        bool
	Skipped       bool   // its name begins with todo_test_
	Message       string // why it did not pass, when it was not simply false
	Duration      time.Duration
	Output        string // of print
}

// A Coverage is how much of a file the tests have reached.
type Coverage struct {
	File                string
	Covered, NotCovered int      // lines
	Missed              []string // "12" or "14-16"
}

// Test runs the test_ rules of a source and tells which lines of its other rules they reach. Mistakes in the rules are
// errors, as they are when rules are loaded.
func (s Source) Test(ctx context.Context, config TestConfig) ([]TestResult, []Coverage, error) {
	modules, err := s.modules(config)
	if err != nil {
		return nil, nil, err
	}
	covered := cover.New()
	data := map[string]any{"hallmark": map[string]any{"config": config.Data}}
	results, err := tester.NewRunner().SetCompiler(ast.NewCompiler().WithCapabilities(Capabilities()).WithEnablePrintStatements(true)).
		SetStore(inmem.NewFromObject(data)).SetModules(modules).SetCoverageQueryTracer(covered).CapturePrintOutput(true).
		RaiseBuiltinErrors(true).Filter(config.Run).RunTests(ctx, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("run tests: %w", err)
	}
	var ran []TestResult
	for r := range results {
		ran = append(ran, testResult(r))
	}
	slices.SortFunc(ran, func(a, b TestResult) int {
		if byFile := strings.Compare(a.File, b.File); byFile != 0 {
			return byFile
		}
		return a.Line - b.Line
	})
	return ran, s.coverage(covered.Report(modules)), ctx.Err()
}

// modules are the rules, which have to be as good as those that serve, with their tests and the rest of the library.
func (s Source) modules(config TestConfig) (map[string]*ast.Module, error) {
	options := ast.ParserOptions{ProcessAnnotation: true, Capabilities: Capabilities(), RegoVersion: ast.RegoV1}
	modules, own := map[string]*ast.Module{}, map[string]bool{}
	rules := Source{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s)) {
		module, err := ast.ParseModuleWithOpts(name, string(s[name]), options)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case module == nil:
			errs = append(errs, fmt.Errorf("%s: the file is empty", name))
			continue
		case isRule(name):
			rules[name] = s[name]
		}
		modules[name], own[module.Package.Path.String()] = module, true
	}
	for name, text := range config.Library {
		module, err := ast.ParseModuleWithOpts(name, string(text), options)
		if err != nil || module == nil || own[module.Package.Path.String()] {
			continue // the library is known to be good, and a package that is being tested replaces that of the same name
		}
		modules[name], rules[name] = module, text
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("parse policies: %w", err)
	}
	_, err := rules.Compile(config.Schema)
	return modules, err
}

func testResult(r *tester.Result) TestResult {
	t := TestResult{
		Package: strings.TrimPrefix(r.Package, "data."), Name: r.Name, Passed: r.Pass(), Skipped: r.Skip,
		Duration: r.Duration, Output: string(r.Output),
	}
	if r.Location != nil {
		t.File, t.Line = r.Location.File, r.Location.Row
	}
	if r.Error != nil {
		t.Message = errorText(r.Error)
	}
	return t
}

// coverage is that of the rules in the source.
func (s Source) coverage(report cover.Report) []Coverage {
	var all []Coverage
	for _, name := range slices.Sorted(maps.Keys(report.Files)) {
		if _, own := s[name]; !own || !isRule(name) {
			continue
		}
		file := report.Files[name]
		c := Coverage{File: name, Covered: file.CoveredLines, NotCovered: file.NotCoveredLines}
		for _, missed := range file.NotCovered {
			lines := fmt.Sprint(missed.Start.Row)
			if missed.End.Row > missed.Start.Row {
				lines += fmt.Sprintf("-%d", missed.End.Row)
			}
			c.Missed = append(c.Missed, lines)
		}
		all = append(all, c)
	}
	return all
}

// ReadTests gives the rules of a directory with their tests.
func ReadTests(dir string) (Source, error) {
	source := Source{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("read policies: %w", err)
		case entry.IsDir() && name != dir && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".rego"):
			return nil
		}
		source[name], err = os.ReadFile(name)
		return err
	})
	return source, err
}
