package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// report is what is told at the end.
type report struct {
	out             io.Writer
	lines           []string
	skippedTests    []string
	failed, missing []string
}

func (r *report) add(name string, elapsed time.Duration, t *tests, note string, err error) {
	var notes []string
	if n := t.passed + t.failed + len(t.skipped); n > 0 {
		notes = append(notes, fmt.Sprintf("tests: %d passed, %d failed, %d skipped", t.passed, t.failed, len(t.skipped)))
	}
	if note != "" {
		notes = append(notes, note)
	}
	status := "passed"
	var skip *skipped
	switch {
	case errors.As(err, &skip):
		status = "SKIPPED"
		if !skip.excused {
			r.missing = append(r.missing, name)
		}
		notes = append(notes, skip.reason)
	case err != nil:
		status = "FAILED"
		r.failed = append(r.failed, name)
		notes = append(notes, err.Error())
	}
	line := fmt.Sprintf("  %-6s %-8s %5s  %s", name, status, elapsed.Round(time.Second), strings.Join(notes, "; "))
	r.lines = append(r.lines, strings.TrimRight(line, " "))
	r.skippedTests = append(r.skippedTests, t.skipped...)
}

// finish prints the report. With strict, a suite that did not run is an error.
func (r *report) finish(strict bool) error {
	fmt.Fprintf(r.out, "\nsuites:\n%s\n", strings.Join(r.lines, "\n"))
	if len(r.skippedTests) > 0 {
		fmt.Fprintf(r.out, "tests that were skipped:\n  %s\n", strings.Join(r.skippedTests, "\n  "))
	}
	switch {
	case len(r.failed) > 0:
		return fmt.Errorf("failed: %s", strings.Join(r.failed, ", "))
	case strict && len(r.missing) > 0:
		return fmt.Errorf("did not run: %s", strings.Join(r.missing, ", "))
	}
	return nil
}

// tests is written the events of go test -json. It shows a line a package, and what a failed test said.
type tests struct {
	out            io.Writer
	rest           []byte // of a line that is not complete
	said           map[testName]string
	passed, failed int
	skipped        []string
}

// timing begins a line that a test prints to have it shown whether it passes or not.
const timing = "timing: "

type testName struct{ pkg, test string }

// event is one of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Output string
}

func (t *tests) Write(p []byte) (int, error) {
	t.rest = append(t.rest, p...)
	for {
		line, rest, whole := bytes.Cut(t.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		t.rest = rest
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			fmt.Fprintf(t.out, "%s\n", line) // not an event, but what a program printed
			continue
		}
		t.take(e)
	}
}

func (t *tests) take(e event) {
	if t.said == nil {
		t.said = map[testName]string{}
	}
	name := testName{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "output":
		t.said[name] += e.Output
		if strings.HasPrefix(e.Output, timing) {
			fmt.Fprint(t.out, e.Output)
		}
	case "pass", "fail", "skip":
		t.end(name, e.Action)
		delete(t.said, name)
	}
}

// end is told of every test, and at last of its package.
func (t *tests) end(name testName, result string) {
	said := t.said[name]
	switch {
	case result == "fail":
		if name.test != "" {
			t.failed++
		}
		fmt.Fprint(t.out, said)
	case name.test == "" && result == "pass":
		fmt.Fprint(t.out, said[strings.LastIndex("\n"+strings.TrimRight(said, "\n"), "\n"):])
	case name.test != "" && result == "pass":
		t.passed++
	case name.test != "":
		t.skipped = append(t.skipped, fmt.Sprintf("%s %s: %s", name.pkg, name.test, reason(said)))
	}
}

// reason is the last thing that a test said before it was skipped.
func reason(said string) string {
	reason := "no reason given"
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") && line != "" {
			reason = regexp.MustCompile(`^\S+\.go:\d+: `).ReplaceAllString(line, "")
		}
	}
	return reason
}
