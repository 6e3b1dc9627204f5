package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-admission/hallmark/policies"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/policy"
)

type testFlags struct {
	run      string
	output   string
	coverage float64
	verbose  bool
	watch    bool
}

func newTest(io streams) *cobra.Command {
	var f testFlags
	cmd := &cobra.Command{
		Use:   "test [DIR]",
		Short: "Run the tests of policies: Rego tests with coverage, and suites of whole admissions",
		Long: `Test runs what a policy author has written below a directory (the present one when none is given):

  *_test.rego    test_ rules, as "opa test" runs them, with the lines of the rules that no test reaches
  *_suite.yaml   workspaces, a configuration, what the registry would answer, and the findings that are expected

The shipped rules are there for suites and to be imported. A rule that would not load is a mistake, as it is for serve.
Exit code 0: all passed; 1: some did not; 2: they could not be run.`,
		Example: "  hallmark test policies --coverage 100\n  hallmark test --watch",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			if f.watch {
				return watchTests(cmd.Context(), io, dir, f)
			}
			return runTests(cmd.Context(), io, dir, f)
		},
	}
	cmd.Flags().StringVar(&f.run, "run", "", "run only tests whose PACKAGE.NAME or suite and case match this `regexp`")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "`format`: text or json")
	cmd.Flags().Float64Var(&f.coverage, "coverage", 0, "fail below this coverage of the rules, in `percent`")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "show the tests that pass, too")
	cmd.Flags().BoolVar(&f.watch, "watch", false, "run again whenever a file changes")
	return cmd
}

// A testReport is what -o json prints; docs/cli.md describes it.
type testReport struct {
	Tests    []testOutcome  `json:"tests"`
	Coverage []fileCoverage `json:"coverage"`
	Percent  float64        `json:"percent"` // lines of rules that tests reach
	Passed   int            `json:"passed"`
	Failed   int            `json:"failed"`
	Skipped  int            `json:"skipped"`
}

type testOutcome struct {
	Name    string `json:"name"` // PACKAGE.NAME, or SUITE: CASE
	File    string `json:"file"`
	Line    int    `json:"line"`
	Result  string `json:"result"` // pass, fail or skip
	Message string `json:"message,omitempty"`
	Output  string `json:"output,omitempty"`
}

type fileCoverage struct {
	File    string   `json:"file"`
	Percent float64  `json:"percent"`
	Missed  []string `json:"missed"` // lines: "12", "14-16"
}

func runTests(ctx context.Context, io streams, dir string, f testFlags) error {
	if f.output != "text" && f.output != "json" {
		return hinted{fmt.Errorf("there is no output format %q", f.output), "want text or json"}
	}
	report, err := testDir(ctx, dir, f)
	if err != nil {
		return err
	}
	if f.output == "json" {
		encoder := json.NewEncoder(io.out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		err = encoder.Encode(report)
	} else {
		err = printTests(io, report, f)
	}
	if err == nil && (report.Failed > 0 || report.Percent < f.coverage) {
		err = errNo
	}
	return err
}

func testDir(ctx context.Context, dir string, f testFlags) (*testReport, error) {
	source, err := policy.ReadTests(dir)
	if err != nil {
		return nil, err
	}
	suites, err := filesBelow(dir, "_suite.yaml")
	if err != nil {
		return nil, err
	}
	if len(source) == 0 && len(suites) == 0 {
		return nil, hinted{fmt.Errorf("there is nothing to test in %s", dir), "tests are in files whose names end in _test.rego or _suite.yaml"}
	}
	shipped, err := shippedPolicies(nil)
	if err != nil {
		return nil, err
	}
	schema, err := fs.ReadFile(policies.Files(), "schema/input.json")
	if err != nil {
		return nil, err
	}
	results, coverage, err := source.Test(ctx, policy.TestConfig{Library: shipped, Schema: schema, Run: f.run})
	if err != nil {
		return nil, err
	}
	report := &testReport{Tests: []testOutcome{}, Coverage: []fileCoverage{}, Percent: 100}
	for _, r := range results {
		report.add(testOutcome{
			Name: r.Package + "." + r.Name, File: r.File, Line: r.Line, Message: r.Message, Output: r.Output,
		}, r.Passed, r.Skipped)
	}
	report.cover(coverage)
	for _, file := range suites {
		outcomes, err := runSuite(ctx, file, source, f.run)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, o := range outcomes {
			report.add(o, o.Message == "", false)
		}
	}
	return report, nil
}

func filesBelow(dir, suffix string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(name, suffix) {
			found = append(found, name)
		}
		return err
	})
	return found, err
}

func (r *testReport) add(o testOutcome, passed, skipped bool) {
	switch {
	case skipped:
		o.Result = "skip"
		r.Skipped++
	case passed:
		o.Result = "pass"
		r.Passed++
	default:
		o.Result = "fail"
		r.Failed++
	}
	r.Tests = append(r.Tests, o)
}

func (r *testReport) cover(files []policy.Coverage) {
	covered, all := 0, 0
	for _, c := range files {
		covered, all = covered+c.Covered, all+c.Covered+c.NotCovered
		r.Coverage = append(r.Coverage, fileCoverage{c.File, percent(c.Covered, c.Covered+c.NotCovered), nonNil(c.Missed)})
	}
	r.Percent = percent(covered, all)
}

func percent(part, all int) float64 {
	if all == 0 {
		return 100
	}
	return float64(part) * 100 / float64(all)
}

func printTests(io streams, report *testReport, f testFlags) error {
	var b strings.Builder
	for _, t := range report.Tests {
		if t.Result == "pass" && !f.verbose {
			continue
		}
		fmt.Fprintf(&b, "%-4s %s (%s:%d)\n", t.Result, t.Name, t.File, t.Line)
		for _, text := range []string{t.Message, t.Output} {
			for line := range strings.Lines(text) {
				fmt.Fprintf(&b, "     %s\n", strings.TrimRight(line, "\n"))
			}
		}
	}
	for _, c := range report.Coverage {
		if len(c.Missed) > 0 {
			fmt.Fprintf(&b, "not reached by any test: %s, lines %s\n", c.File, strings.Join(c.Missed, ", "))
		}
	}
	fmt.Fprintf(&b, "%d passed, %d failed", report.Passed, report.Failed)
	if report.Skipped > 0 {
		fmt.Fprintf(&b, ", %d skipped", report.Skipped)
	}
	if len(report.Coverage) > 0 {
		fmt.Fprintf(&b, "; coverage of the rules %.1f %%", report.Percent)
		if report.Percent < f.coverage {
			fmt.Fprintf(&b, ", which is below %g %%", f.coverage)
		}
	}
	b.WriteString("\n")
	_, err := fmt.Fprint(io.out, b.String())
	return err
}

// watchTests runs the tests now and whenever a file below the directory changes, until ctx ends.
func watchTests(ctx context.Context, io streams, dir string, f testFlags) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	once := func() {
		fmt.Fprintf(io.out, "-- %s\n", time.Now().Format(time.TimeOnly))
		if err := runTests(ctx, io, dir, f); err != nil && !errors.Is(err, errNo) {
			fmt.Fprintln(io.err, "error:", err)
		}
	}
	return config.Watch(ctx, func() []string { return dirs }, once)
}
