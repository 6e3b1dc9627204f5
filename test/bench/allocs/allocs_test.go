package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

const accepted = `goos: linux
pkg: m/a
BenchmarkSame/images=1         	     100	     10000 ns/op	    1000 B/op	     100 allocs/op
BenchmarkSame/images=1         	     100	     99999 ns/op	    1020 B/op	     101 allocs/op
BenchmarkMore                  	     100	      4347 ns/op	     832 B/op	       5 allocs/op
BenchmarkGone-2                	     100	      4347 ns/op	     832 B/op	       5 allocs/op
PASS
pkg: m/b
BenchmarkMore                  	     100	      4347 ns/op	 1.5 MB/s	   10000 B/op	       5 allocs/op
`

func TestCompare(t *testing.T) {
	was := parse([]byte(accepted))
	if got := was["m/a BenchmarkSame/images=1"]; got != (result{10000, 1000, 100}) {
		t.Errorf("of two runs the best: got %+v", got)
	}
	if got := was["m/b BenchmarkMore"]; got != (result{4347, 10000, 5}) {
		t.Errorf("with a further unit: got %+v", got)
	}
	change := func(old, new string) string { return strings.Replace(accepted, old, new, 1) }
	for title, tc := range map[string]struct {
		now  string
		fail bool
		says string
	}{
		"the same":              {accepted, false, "4 benchmarks compared"},
		"slower":                {change("10000 ns/op", "99999999 ns/op"), false, "4 benchmarks"},
		"within the tolerance":  {strings.NewReplacer("100 allocs/op", "103 allocs/op", "101 allocs/op", "103 allocs/op").Replace(accepted), false, "4 benchmarks"},
		"more allocations":      {strings.NewReplacer("100 allocs/op", "104 allocs/op", "101 allocs/op", "104 allocs/op").Replace(accepted), true, "MORE m/a BenchmarkSame/images=1"},
		"two more of a few":     {change("832 B/op	       5 allocs/op", "832 B/op	       7 allocs/op"), true, "MORE m/a BenchmarkMore"},
		"more bytes":            {change("10000 B/op", "11200 B/op"), true, "MORE m/b BenchmarkMore"},
		"fewer allocations":     {strings.NewReplacer("100 allocs/op", "50 allocs/op").Replace(accepted), false, "less m/a BenchmarkSame/images=1"},
		"one that is gone":      {change("BenchmarkGone-2", "Renamed"), true, "GONE m/a BenchmarkGone-2"},
		"one that nobody knows": {accepted + "BenchmarkNew 100 1 ns/op 1 B/op 900 allocs/op\n", false, "new m/b BenchmarkNew"},
	} {
		t.Run(title, func(t *testing.T) {
			var out strings.Builder
			err := compare(&out, was, parse([]byte(tc.now)))
			if (err != nil) != tc.fail || !strings.Contains(out.String(), tc.says) {
				t.Errorf("got %v and\n%s\nwant %q", err, out.String(), tc.says)
			}
			if err != nil && !strings.Contains(err.Error(), "make bench-accept") {
				t.Errorf("the error does not say how to accept: %v", err)
			}
		})
	}
}

func TestRetry(t *testing.T) {
	names := []string{"m/a BenchmarkReview/mutate/images=1", "m/a BenchmarkReview/validate/images=1", "m/b BenchmarkJudge"}
	if got, want := pattern(names), "^BenchmarkJudge$|^BenchmarkReview$"; got != want {
		t.Errorf("pattern: got %s, want %s", got, want)
	}
	was := results{"a": {1, 100, 10}, "b": {1, 100, 10}}
	is := results{"a": {1, 100, 20}, "b": {1, 100, 10}}
	if got := rose(was, is); !slices.Equal(got, []string{"a"}) {
		t.Errorf("rose: got %q", got)
	}
	is.best(results{"a": {1, 110, 10}})
	if got := rose(was, is); len(got) > 0 {
		t.Errorf("after a better run: got %q", got)
	}
}

func TestUsage(t *testing.T) {
	if err := run(t.Context(), []string{"-table", t.TempDir() + "/none"}, io.Discard); err == nil || !strings.Contains(err.Error(), "no benchmarks here") && !strings.Contains(err.Error(), "no such file") {
		t.Errorf("elsewhere: got %v", err)
	}
}
