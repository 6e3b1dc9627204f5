package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

// TestReport: each is compared with none, over all turns.
func TestReport(t *testing.T) {
	var r report
	for _, ms := range []time.Duration{10, 30} {
		took := ms * time.Millisecond
		for who, factor := range []time.Duration{byHallmark: 4, byFloor: 2, byNone: 1} {
			r.turns[who] = append(r.turns[who], measurement{
				took: []time.Duration{factor * took, factor * took}, wall: factor * time.Second, pods: 2, cpu: factor * time.Millisecond,
			})
		}
	}
	for format, wants := range map[string][]string{
		"text": {"none 2 4 30.0 30.0 30.0 1.0 2 × 1.00 0.50 0.001 0", "floor 2 4 60.0 60.0 60.0 2.0 1 × 0.50 1.00 0.001 0", "Hallmark 2 4 120.0 120.0 120.0 4.0 0 × 0.25 2.00 0.001 0"},
		"json": {`"p50MS": 30`, `"throughput": 0.5`, `"serverCPUMSAPod": 2`},
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
		"-scenario=nodes": "is pods, deployment or morning", "-o=yaml": "is text or json", "-clients=0": "at least 1", "-bursts=0": "at least 1",
	} {
		if err := run(t.Context(), []string{args}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}
