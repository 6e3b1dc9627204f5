package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

// TestReport: the overhead is what is more with Hallmark than without, over all turns of each.
func TestReport(t *testing.T) {
	var r report
	for _, ms := range []time.Duration{10, 30} {
		took := ms * time.Millisecond
		r.add(false, measurement{took: []time.Duration{took, took}, wall: time.Second, pods: 2})
		r.add(true, measurement{took: []time.Duration{2 * took, 2 * took}, wall: 2 * time.Second, pods: 2, cpu: 4 * time.Millisecond})
	}
	for format, wants := range map[string][]string{
		"text": {"without 2 4 30.0 30.0 30.0 1.0 2", "with 2 4 60.0 60.0 60.0 2.0 1", "overhead +30.0 +30.0 × 0.50"},
		"json": {`"p50MS": 30`, `"throughput": 0.5`, `"hallmarkCPUMSAPod": 2`},
	} {
		var out strings.Builder
		if err := r.print(&out, format); err != nil {
			t.Fatal(err)
		}
		words := strings.Join(strings.Fields(out.String()), " ")
		for _, want := range wants {
			if !strings.Contains(words, want) {
				t.Errorf("%s: %q is not in\n%s", format, want, out.String())
			}
		}
	}
}

// TestOptions: wrong usage is said before anything is built.
func TestOptions(t *testing.T) {
	for args, want := range map[string]string{
		"-scenario=nodes": "is pods or deployment", "-o=yaml": "is text or json", "-clients=0": "at least 1",
	} {
		if err := run(t.Context(), []string{args}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}
