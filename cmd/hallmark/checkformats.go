package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/hallmark-admission/hallmark/webhook"
)

// printCheckJSON is for programs. docs/check.schema.json describes it.
func printCheckJSON(out io.Writer, report *checkReport) error {
	results := report.results
	if results == nil {
		results = []checkResult{}
	}
	return writeIndented(out, results)
}

func writeIndented(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// JUnit XML as Jenkins, GitLab and GitHub actions read it: a suite is a file, a case is an object.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string     `xml:"name,attr"`
		Class   string     `xml:"classname,attr"`
		File    string     `xml:"file,attr"`
		Line    int        `xml:"line,attr,omitempty"`
		Failure *junitText `xml:"failure,omitempty"` // denied
		Error   *junitText `xml:"error,omitempty"`   // could not be checked
		Out     string     `xml:"system-out,omitempty"`
	}
	junitText struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

func printCheckJUnit(out io.Writer, report *checkReport) error {
	all := junitSuites{Name: "hallmark check"}
	for i := range report.results {
		r := &report.results[i]
		if len(all.Suites) == 0 || all.Suites[len(all.Suites)-1].Name != r.file() {
			all.Suites = append(all.Suites, junitSuite{Name: r.file()})
		}
		suite := &all.Suites[len(all.Suites)-1]
		c := junitCaseOf(r)
		suite.Tests, all.Tests = suite.Tests+1, all.Tests+1
		if c.Failure != nil {
			suite.Failures, all.Failures = suite.Failures+1, all.Failures+1
		}
		if c.Error != nil {
			suite.Errors, all.Errors = suite.Errors+1, all.Errors+1
		}
		suite.Cases = append(suite.Cases, c)
	}
	text, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s%s\n", xml.Header, text)
	return err
}

func junitCaseOf(r *checkResult) junitCase {
	c := junitCase{Name: r.title(), Class: r.file(), File: r.file(), Line: r.Line}
	text := r.said()
	first, _, _ := strings.Cut(text, "\n")
	switch r.Decision {
	case checkDenied:
		c.Failure = &junitText{Message: first, Type: checkDenied, Text: text}
	case checkUndecided:
		c.Error = &junitText{Message: first, Type: checkUndecided, Text: text}
	}
	var lines []string
	for i := range r.Findings {
		f := &r.Findings[i]
		lines = append(lines, fmt.Sprintf("%s:%d: %s: %s", r.file(), f.Line, f.Mode, f.text()))
	}
	c.Out = strings.Join(lines, "\n")
	return c
}

// title names a result in a list of results.
func (r *checkResult) title() string {
	switch {
	case r.Kind != "":
		return r.object()
	case r.Line == 0:
		return "file"
	}
	return fmt.Sprintf("document on line %d", r.Line)
}

// A remark is one thing to show at one line: a finding, or the message of a result that has none.
type remark struct {
	rule, mode string
	title      string
	text       string
	line       int
}

// remarks are what a result has to say, one by one.
func (r *checkResult) remarks() []remark {
	var list []remark
	enforced := false
	for i := range r.Findings {
		f := &r.Findings[i]
		enforced = enforced || f.Mode == string(webhook.Enforce)
		list = append(list, remark{f.Rule, f.Mode, r.title() + ": " + f.Rule, f.text(), f.Line})
	}
	if r.Decision == checkAllowed || enforced {
		return list
	}
	return append(list, remark{"", string(webhook.Enforce), r.title(), r.said(), r.Line})
}

// said is the message with what to do about a part that could not be read.
func (r *checkResult) said() string {
	if r.hint == "" {
		return r.Message
	}
	return r.Message + "; " + r.hint
}

// printCheckGitHub writes workflow commands, which GitHub shows beside the lines of a pull request.
func printCheckGitHub(out io.Writer, report *checkReport) error {
	data := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	var b strings.Builder
	for i := range report.results {
		r := &report.results[i]
		for _, m := range r.remarks() {
			command := "error"
			switch webhook.Mode(m.mode) {
			case webhook.Warn:
				command = "warning"
			case webhook.Audit:
				command = "notice"
			}
			fmt.Fprintf(&b, "::%s file=%s,line=%d,title=%s::%s\n", command, property.Replace(r.file()), max(m.line, 1),
				property.Replace(m.title), data.Replace(m.text))
		}
	}
	b.WriteString(data.Replace(report.summary()) + "\n")
	_, err := io.WriteString(out, b.String())
	return err
}
