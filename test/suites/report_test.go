package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// events are of two packages: one passes with a skipped test, one fails.
const events = `{"Action":"start","Package":"m/a"}
{"Action":"output","Package":"m/a","Output":"-test.shuffle 17\n"}
{"Action":"run","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"    a_test.go:7: chatter\n"}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"timing: TestGood: 7 seconds\n"}
{"Action":"pass","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestAway","Output":"=== RUN   TestAway\n"}
{"Action":"output","Package":"m/a","Test":"TestAway","Output":"    a_test.go:9: no such thing here\n"}
{"Action":"output","Package":"m/a","Test":"TestAway","Output":"--- SKIP: TestAway (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestAway"}
{"Action":"output","Package":"m/a","Output":"PASS\n"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t0.1s\n"}
{"Action":"pass","Package":"m/a"}
{"Action":"output","Package":"m/b","Output":"-test.shuffle 18\n"}
{"Action":"output","Package":"m/b","Test":"TestBad","Output":"    b_test.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"m/b","Test":"TestBad"}
{"Action":"output","Package":"m/b","Output":"FAIL\tm/b\t0.1s\n"}
{"Action":"fail","Package":"m/b"}
{"Action":"output","Package":"m/c","Output":"?   \tm/c\t[no test files]\n"}
{"Action":"skip","Package":"m/c"}
{"ImportPath":"m/d","Action":"build-output","Output":"d.go:1: undefined: x\n"}
a program printed this
`

func TestEvents(t *testing.T) {
	var out strings.Builder
	tests := &tests{out: &out}
	for i := range events { // in pieces, as they come from a pipe
		if _, err := tests.Write([]byte(events[i : i+1])); err != nil {
			t.Fatal(err)
		}
	}
	want := "timing: TestGood: 7 seconds\nok  \tm/a\t0.1s\n    b_test.go:3: got 1, want 2\n-test.shuffle 18\nFAIL\tm/b\t0.1s\nd.go:1: undefined: x\na program printed this\n"
	if out.String() != want {
		t.Errorf("shown:\n got %q\nwant %q", out.String(), want)
	}
	report := report{out: io.Discard}
	report.add("unit", time.Second, tests, "with the race detector", errors.New("exit status 1"))
	line := "  unit   FAILED      1s  tests: 1 passed, 1 failed, 1 skipped; with the race detector; exit status 1"
	if got := report.lines[0]; got != line {
		t.Errorf("line:\n got %q\nwant %q", got, line)
	}
	if got, want := strings.Join(report.skippedTests, "\n"), "m/a TestAway: no such thing here"; got != want {
		t.Errorf("skipped:\n got %q\nwant %q", got, want)
	}
}

func TestFinish(t *testing.T) {
	for _, tc := range []struct {
		name   string
		err    error
		strict bool
		want   string // of the error
		shown  string
	}{
		{"passed", nil, true, "", "vet    passed      0s"},
		{"failed", errors.New("exit status 1"), false, "failed: vet", "vet    FAILED      0s  exit status 1"},
		{"skipped", &skipped{reason: "no compiler"}, false, "", "vet    SKIPPED     0s  no compiler"},
		{"skipped and strict", &skipped{reason: "no compiler"}, true, "did not run: vet", "vet    SKIPPED     0s  no compiler"},
		{"excused and strict", &skipped{"no root", true}, true, "", "vet    SKIPPED     0s  no root"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			report := report{out: &out}
			report.add("vet", 0, &tests{}, "", tc.err)
			got := ""
			if err := report.finish(tc.strict); err != nil {
				got = err.Error()
			}
			if got != tc.want || !strings.Contains(out.String(), tc.shown) {
				t.Errorf("finish:\n got %q after %q\nwant %q after %q", got, out.String(), tc.want, tc.shown)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for _, args := range [][]string{{"unti"}, {"-skip", "e3e"}} {
		if err := run(t.Context(), args, io.Discard); err == nil || !strings.Contains(err.Error(), "there is no suite") {
			t.Errorf("suites %q:\n got %v\nwant that there is no such suite", args, err)
		}
	}
}
