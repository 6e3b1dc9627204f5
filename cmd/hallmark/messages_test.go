package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestMessages holds the text of every rule, alone and with others, against what was agreed on:
// go test ./cmd/hallmark -run TestMessages -update.
func TestMessages(t *testing.T) {
	const dir = "testdata"
	text, err := os.ReadFile(filepath.Join(dir, "messages_suite.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var s suite
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&s); err != nil {
		t.Fatal(err)
	}
	reviewer, err := s.reviewer(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	rules := map[string]bool{}
	for _, c := range s.Cases {
		d, err := c.decide(t.Context(), reviewer, dir)
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		for _, f := range d.Findings {
			rules[f.Rule] = true
		}
		fmt.Fprintf(&got, "%s: %s\n", c.Name, d.Outcome)
		for _, line := range append(strings.Split(d.Message, "\n"), d.Warnings...) {
			if line != "" {
				fmt.Fprintf(&got, "    %s\n", line)
			}
		}
		got.WriteByte('\n')
		first, _, _ := strings.Cut(d.Message, "\n")
		if len(d.Message) > 800 || len(first) > 160 || strings.Contains(d.Message, "hunter2") {
			t.Errorf("%s: %d bytes, the first line %d:\n%s", c.Name, len(d.Message), len(first), d.Message)
		}
	}
	for _, rule := range reviewer.Rules {
		if !rules[rule.Name] && rule.Name != "pinned" { // which is for what did not come through the mutating half
			t.Errorf("no case is for rule %s", rule.Name)
		}
	}
	text = regexp.MustCompile(`policy [0-9a-f]{7}`).ReplaceAll([]byte(got.String()), []byte("policy 0000000"))
	checkGolden(t, "messages.golden", text)
}
