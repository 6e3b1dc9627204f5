package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/*.golden again")

// TestDemoText holds what a developer reads against what was agreed on: go test ./cmd/hallmark -run TestDemoText -update.
func TestDemoText(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"demo"}, streams{nil, &out, &errs}); code != exitOK {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	text := out.Bytes()
	for _, changing := range []struct{ pattern, same string }{
		{`policy [0-9a-f]{7}`, "policy 0000000"}, {`webhook https://[0-9.:]+`, "webhook https://ADDRESS"},
		{`@sha256:[0-9a-f]{64}`, "@sha256:DIGEST"}, {`@sha256:[0-9a-f]{12}\b`, "@sha256:DIGEST"}, {`in [0-9.]+s`, "in 0.0s"},
		// How a connection ends that was open when the registry went away is a matter of microseconds.
		{`gave no readable answer \(protocol error\)|closed the connection|did not answer in time`, "refused the connection"},
	} {
		text = regexp.MustCompile(changing.pattern).ReplaceAll(text, []byte(changing.same))
	}
	checkGolden(t, "demo.golden", text)
}

// checkGolden compares with a file of testdata, or with -update writes it.
func checkGolden(t *testing.T, name string, text []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("the text has changed (-want +got); if it is better now, run this test with -update\n%s", diff)
	}
}
