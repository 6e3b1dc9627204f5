package main

import (
	"bytes"
	"os"
	"testing"
)

// TestRulesReference: policies/README.md is what the command writes.
func TestRulesReference(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"rules", "-o", "markdown"}, streams{nil, &out, &errs}); code != exitOK {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	const file = "../../policies/README.md"
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, out.Bytes()) {
		t.Errorf("policies/README.md is not up to date (%v); write it again with: go run ./cmd/hallmark rules -o markdown > policies/README.md", err)
	}
}

// TestShippedTests: what "hallmark test" finds below policies passes, and reaches every line.
func TestShippedTests(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"test", "../../policies", "--coverage", "100"}, streams{nil, &out, &errs}); code != exitOK {
		t.Errorf("exit %d: %s%s", code, errs.String(), out.String())
	}
}
