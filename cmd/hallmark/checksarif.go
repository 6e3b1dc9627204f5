package main

import (
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hallmark-admission/hallmark/webhook"
)

// SARIF 2.1.0 (OASIS), as far as code scanning tools read it.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		Results     []sarifResult     `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string    `json:"id"`
		ShortDescription sarifText `json:"shortDescription"`
		FullDescription  sarifText `json:"fullDescription"`
		Help             sarifText `json:"help"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifInvocation struct {
		Successful    bool                `json:"executionSuccessful"`
		Notifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId,omitempty"`
		RuleIndex *int            `json:"ruleIndex,omitempty"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
)

const (
	sarifSchema    = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	informationURI = "https://github.com/hallmark-admission/hallmark"
)

// printCheckSARIF writes findings as results. What could not be read is a notification: it is about the run, not about
// what is in the file.
func printCheckSARIF(out io.Writer, report *checkReport) error {
	version, _, _ := buildInfo()
	run := sarifRun{
		Tool: sarifTool{sarifDriver{
			Name: "hallmark", Version: version, InformationURI: informationURI, Rules: sarifRules(report.rules),
		}},
		Results: []sarifResult{},
	}
	invocation := sarifInvocation{Successful: true}
	for i := range report.results {
		r := &report.results[i]
		for _, m := range r.remarks() {
			location := []sarifLocation{sarifPlace(r.file(), m.line)}
			if r.Kind == "" {
				invocation.Successful = false
				invocation.Notifications = append(invocation.Notifications, sarifNotification{"error", sarifText{m.text}, location})
				continue
			}
			result := sarifResult{
				RuleID: m.rule, Level: sarifLevel(m.mode), Message: sarifText{r.object() + ": " + m.text}, Locations: location,
			}
			index := slices.IndexFunc(report.rules, func(rule ruleDescription) bool { return rule.Name == m.rule })
			if index >= 0 {
				result.RuleIndex = &index
			}
			run.Results = append(run.Results, result)
		}
	}
	run.Invocations = []sarifInvocation{invocation}
	return writeIndented(out, sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{run}})
}

// sarifRules says of each rule what its METADATA says. The standard demands texts, which METADATA may leave out.
func sarifRules(rules []ruleDescription) []sarifRule {
	text := func(texts ...string) sarifText {
		i := slices.IndexFunc(texts, func(s string) bool { return s != "" })
		return sarifText{texts[i]}
	}
	list := []sarifRule{}
	for _, r := range rules {
		list = append(list, sarifRule{
			ID: r.Name, ShortDescription: text(r.Title, r.Name), FullDescription: text(r.Description, r.Title, r.Name),
			Help: text(r.Fix, r.Description, r.Title, r.Name),
		})
	}
	return list
}

func sarifLevel(mode string) string {
	switch webhook.Mode(mode) {
	case webhook.Warn:
		return "warning"
	case webhook.Audit:
		return "note"
	}
	return "error"
}

// sarifPlace: a relative path is a relative URI, as tools expect of files in a repository.
func sarifPlace(file string, line int) sarifLocation {
	file = filepath.ToSlash(file)
	uri := url.URL{Path: strings.TrimPrefix(file, "./")}
	if strings.HasPrefix(file, "/") {
		uri.Scheme = "file"
	}
	place := sarifPhysical{Artifact: sarifArtifact{uri.String()}}
	if line > 0 {
		place.Region = &sarifRegion{line}
	}
	return sarifLocation{place}
}
