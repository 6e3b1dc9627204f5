// Allocs runs the benchmarks and fails when one allocates more than it did when test/bench/accepted.txt was written.
//
//	go run ./test/bench/allocs            compare
//	go run ./test/bench/allocs -accept    write the table anew
//
// How often and how much a benchmark allocates does not depend on the machine, other than its time, which is shown and
// never judged. What does vary a little is who fills a memory first, and pools that the garbage collector empties: so the
// best of several runs counts, and a benchmark that allocates more is run again. The table is what go test prints, so
// benchstat reads it too.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "allocs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("allocs", flag.ContinueOnError)
	table := flags.String("table", filepath.Join("test", "bench", "accepted.txt"), "`file` with what is accepted")
	accept := flags.Bool("accept", false, "write the file instead")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	packages, err := benchmarked("cmd", "policies", "webhook")
	if err != nil {
		return err
	}
	if *accept {
		text, err := bench(ctx, packages, ".", acceptedRuns)
		if err != nil {
			return err
		}
		return os.WriteFile(*table, text, 0o644)
	}
	accepted, err := os.ReadFile(*table)
	if err != nil {
		return fmt.Errorf("read what is accepted: %w; `make bench-accept` writes it", err)
	}
	text, err := bench(ctx, packages, ".", 2) // the first run of a process fills what the second finds
	if err != nil {
		return err
	}
	was, is := parse(accepted), parse(text)
	for range retries {
		again := rose(was, is)
		if len(again) == 0 {
			break
		}
		if text, err = bench(ctx, packages, pattern(again), 2); err != nil {
			return err
		}
		is.best(parse(text))
	}
	return compare(out, was, is)
}

const (
	// acceptedRuns is what benchstat wants for an interval of confidence.
	acceptedRuns = 6
	// retries of what allocates more than before.
	retries = 2
)

// benchmarked lists the packages with benchmarks: to build the tests of the others would take a while.
func benchmarked(roots ...string) (packages []string, err error) {
	for _, root := range roots {
		err = errors.Join(err, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if name := "./" + filepath.ToSlash(filepath.Dir(path)); bytes.Contains(text, []byte("\nfunc Benchmark")) && !slices.Contains(packages, name) {
				packages = append(packages, name)
			}
			return err
		}))
	}
	if err == nil && len(packages) == 0 {
		err = errors.New("there are no benchmarks here; run it in the top directory of the repository")
	}
	return packages, err
}

// bench runs benchmarks one package after the other on one processor, a hundred times each.
func bench(ctx context.Context, packages []string, pattern string, count int) ([]byte, error) {
	args := []string{"test", "-run=^$", "-bench=" + pattern, "-benchmem", "-benchtime=100x", "-cpu=1", "-p=1", fmt.Sprint("-count=", count)}
	command := exec.CommandContext(ctx, "go", append(args, packages...)...)
	var text bytes.Buffer
	command.Stdout, command.Stderr = &text, &text
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("go test -bench: %w\n%s", err, text.Bytes())
	}
	return text.Bytes(), nil
}

// pattern matches the benchmarks of that top-level name: the parts after a slash would need a pattern each.
func pattern(names []string) string {
	var tops []string
	for _, name := range names {
		_, name, _ = strings.Cut(name, " ")
		top, _, _ := strings.Cut(name, "/")
		tops = append(tops, "^"+top+"$")
	}
	slices.Sort(tops)
	return strings.Join(slices.Compact(tops), "|")
}

// A result is what a benchmark took: its best run.
type result struct{ ns, bytes, allocs float64 }

// results are by package and name.
type results map[string]result

// parse reads what go test -bench -benchmem prints.
func parse(text []byte) results {
	all, pkg := results{}, ""
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == "pkg:":
			pkg = fields[1]
		case len(fields) >= 4 && strings.HasPrefix(fields[0], "Benchmark"):
			var r result
			for i, unit := range fields[3:] {
				into := map[string]*float64{"ns/op": &r.ns, "B/op": &r.bytes, "allocs/op": &r.allocs}[unit]
				if into != nil {
					_, _ = fmt.Sscan(fields[i+2], into) // what is no number stays 0, and differs from the table
				}
			}
			all.best(results{pkg + " " + fields[0]: r})
		}
	}
	return all
}

// best keeps the least of each.
func (all results) best(others results) {
	for name, r := range others {
		if was, known := all[name]; known {
			r = result{min(r.ns, was.ns), min(r.bytes, was.bytes), min(r.allocs, was.allocs)}
		}
		all[name] = r
	}
}

// more says whether a result is above what is accepted: 2 % and one allocation, 10 % and 128 bytes.
func more(was, is result) bool {
	return is.allocs > was.allocs*1.02+1 || is.bytes > was.bytes*1.10+128
}

// rose lists the benchmarks that allocate more.
func rose(was, is results) (names []string) {
	for name, r := range is {
		if before, known := was[name]; known && more(before, r) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// compare prints a line for each benchmark that differs. One that is gone is an error too: it held something.
func compare(out io.Writer, was, is results) error {
	names := map[string]bool{}
	for name := range was {
		names[name] = true
	}
	for name := range is {
		names[name] = true
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "allocs/op\t\tB/op\t\tns/op, for information\t\t\t")
	bad := 0
	for _, name := range sorted(names) {
		before, accepted := was[name]
		now, ran := is[name]
		verdict := ""
		switch {
		case !ran:
			verdict, bad = "GONE", bad+1
		case !accepted:
			verdict = "new"
		case more(before, now):
			verdict, bad = "MORE", bad+1
		case more(now, before):
			verdict = "less"
		default:
			continue
		}
		fmt.Fprintf(w, "%.0f →\t%.0f\t%.0f →\t%.0f\t%.0f →\t%.0f\t %s\t %s\n", before.allocs, now.allocs, before.bytes, now.bytes, before.ns, now.ns, verdict, name)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d benchmarks compared with what is accepted\n", len(is))
	if bad > 0 {
		return fmt.Errorf("%d benchmarks allocate more than is accepted, or are gone; when that is right, `make bench-accept` "+
			"and commit test/bench/accepted.txt with the change", bad)
	}
	return nil
}

func sorted(set map[string]bool) (names []string) {
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
