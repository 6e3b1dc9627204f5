package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hallmark-admission/hallmark/test/harness"
)

// TestCheckSchema: the schema does not let everything pass.
func TestCheckSchema(t *testing.T) {
	const good = `{"source": "a", "line": 1, "kind": "Pod", "namespace": "n", "name": "", "decision": "allowed", "message": "", "findings": [], "warnings": [], "patch": []}`
	if mistakes := schemaMistakes(t, []byte("["+good+"]")); len(mistakes) > 0 {
		t.Error(mistakes)
	}
	for title, change := range map[string][2]string{
		"no list":          {good, `{}`},
		"another decision": {`"allowed"`, `"patched"`},
		"a member more":    {`"line": 1`, `"line": 1, "column": 1`},
		"a member less":    {`"line": 1, `, ``},
		"null":             {`"findings": []`, `"findings": null`},
		"half a finding":   {`"findings": []`, `"findings": [{"rule": "tag"}]`},
	} {
		text := "[" + strings.Replace(good, change[0], change[1], 1) + "]"
		if title == "no list" {
			text = change[1]
		}
		if len(schemaMistakes(t, []byte(text))) == 0 {
			t.Errorf("%s passes: %s", title, text)
		}
	}
}

// threeYAML is allowed, denied with a finding, and broken.
func threeYAML(f *harness.Fixture) string {
	return podYAML("good", "team", f.Ref("golden/ws:v1.0.0"), "---\n") + podYAML("bad", "team", "ubuntu:latest", "---\n") +
		podYAML("warned", "warn-x", f.Ref("golden/root:v1.0.0"), "---\n") + "kind: [\n"
}

func TestCheckSARIF(t *testing.T) {
	f := checkWorld(t)
	file := filepath.Join(f.Dir, "all of it.yaml")
	if err := os.WriteFile(file, []byte(threeYAML(f)), 0o600); err != nil {
		t.Fatal(err)
	}
	got := runCheckIn(t, f, "", "-o", "sarif", file)
	var log sarifLog
	if err := json.Unmarshal([]byte(got.out), &log); err != nil {
		t.Fatalf("%v\n%s", err, got.out)
	}
	run := log.Runs[0]
	var found []string
	for _, r := range run.Results {
		place := r.Locations[0].Physical
		if rule := run.Tool.Driver.Rules[*r.RuleIndex]; rule.ID != r.RuleID || rule.Help.Text == "" || rule.ShortDescription.Text == "" {
			t.Errorf("rule %+v of result %s", rule, r.RuleID)
		}
		if want := "file://" + strings.ReplaceAll(file, " ", "%20"); place.Artifact.URI != want {
			t.Errorf("uri %s, want %s", place.Artifact.URI, want)
		}
		found = append(found, fmt.Sprintf("%s %s@%d", r.Level, r.RuleID, place.Region.StartLine))
	}
	if diff := cmp.Diff([]string{"error golden@15", "error registry@15", "error tag@15", "warning user@23"}, found); diff != "" || got.code != 1 {
		t.Errorf("exit %d; -want +got\n%s", got.code, diff)
	}
	if i := run.Invocations[0]; log.Version != "2.1.0" || i.Successful || len(i.Notifications) != 1 || i.Notifications[0].Locations[0].Physical.Region.StartLine != 26 {
		t.Errorf("version %s, invocation %+v", log.Version, i)
	}
}

func TestCheckJUnit(t *testing.T) {
	f := checkWorld(t)
	got := runCheckIn(t, f, threeYAML(f), "-o", "junit", "-")
	var suites junitSuites
	if err := xml.Unmarshal([]byte(got.out), &suites); err != nil {
		t.Fatalf("%v\n%s", err, got.out)
	}
	var cases []string
	for _, c := range suites.Suites[0].Cases {
		result := "passed"
		if c.Failure != nil {
			result = "failed: " + c.Failure.Message
		}
		if c.Error != nil {
			result = "error: " + c.Error.Message
		}
		cases = append(cases, fmt.Sprintf("%s %d %s", c.Name, c.Line, result))
	}
	want := []string{
		"Pod team/good 1 passed",
		"Pod team/bad 9 failed: Image docker.io/library/ubuntu:latest is not allowed.",
		"Pod warn-x/warned 17 passed",
		"document on line 26 26 error: is no valid YAML: did not find expected node content",
	}
	if diff := cmp.Diff(want, cases); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if suites.Tests != 4 || suites.Failures != 1 || suites.Errors != 1 || suites.Suites[0].Name != "stdin" {
		t.Errorf("got %+v", suites)
	}
	if out := suites.Suites[0].Cases[2].Out; !strings.HasPrefix(out, "stdin:23: warn: containers[dev]: user: runs as root") {
		t.Errorf("system-out %q", out)
	}
}

// TestCheckColour: colour is for those who look at it, and names cannot bring their own.
func TestCheckColour(t *testing.T) {
	r := checkResult{Source: "a\x1b[2J.yaml", Line: 1, Kind: "Pod", Name: "ü\u202e\x1b[0m", Decision: checkDenied}
	for colour, want := range map[bool]string{
		true:  `a\x1b[2J.yaml:1: Pod ü\u202e\x1b[0m: ` + "\x1b[31mdenied\x1b[0m\n",
		false: `a\x1b[2J.yaml:1: Pod ü\u202e\x1b[0m: denied` + "\n",
	} {
		var b strings.Builder
		writeCheckText(&b, &r, colour)
		if b.String() != want {
			t.Errorf("got %q, want %q", b.String(), want)
		}
	}
	if isTerminal(&bytes.Buffer{}) {
		t.Error("a buffer is no terminal")
	}
}

// TestCheckGitHubEscapes: nothing in a file can end a workflow command and begin another.
func TestCheckGitHubEscapes(t *testing.T) {
	report := &checkReport{results: []checkResult{{
		Source: "a,b:c%.yaml\n::error::x", Line: 3, Kind: "Pod", Name: "ws\n::set-env::", Decision: checkDenied, Message: "no\r\n::stop-commands::x",
	}}}
	var b strings.Builder
	if err := printCheckGitHub(&b, report); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	const want = `::error file=a%2Cb%3Ac%25.yaml%0A%3A%3Aerror%3A%3Ax,line=3,title=Pod ws\n%3A%3Aset-env%3A%3A::no%0D%0A::stop-commands::x`
	if len(lines) != 2 || lines[0] != want {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
}
