// Bench drives the real hallmark binary over TLS as an API server does: HTTP/1.1 with keep-alive, the mutating half, its
// patch applied, the validating half, under a fresh name and uid for every pod. The registry is a real one on loopback
// whose answers can be held back.
//
//	go run ./test/bench                               warm and cold, at 1, 8 and 64 clients
//	go run ./test/bench -latency 50ms cold herd       these, with a registry 50 ms away
//	go run ./test/bench -list                         all scenarios
//	go run ./test/bench -against old/hallmark warm    two binaries, interleaved
//
// Times and CPU depend on the machine and on whoever shares it. So every load is also sent, in turns and in the same run,
// to a floor: a process with the same TLS stack and the same settings of the HTTP server, which decodes the review and
// answers that it is allowed. There are two. One decodes with encoding/json into the types of k8s.io/api, as webhooks
// usually do; the other with webhook.ReadReview, as Hallmark does, which is cheaper. What is compared is Hallmark with the
// cheaper of them: the ratio says what deciding costs on top of being asked.
//
// docs/performance.md says how to read the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options is what the flags say.
type options struct {
	binary, against string
	serve           []string
	output          string

	latency     time.Duration
	concurrency []int
	rounds      int
	round       time.Duration
	cold        int

	images, bytes    int
	catalogue, rules int
	attest           bool
	perSecond        int

	memory       int
	length       time.Duration
	replicas     int
	rate, bursts float64
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	if len(args) > 0 && args[0] == "floor" { // how the program starts itself
		return floor(ctx, args[1:], progress)
	}
	o, names, err := parse(args, out, progress)
	if err != nil || names == nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	dir, err := os.MkdirTemp("", "hallmark-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{options: o, dir: dir, progress: progress}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for _, s := range scenarios() {
		if !slices.Contains(names, s.name) {
			continue
		}
		fmt.Fprintf(progress, "bench: %s: %s\n", s.name, s.what)
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	b.report.finish()
	if o.output == "json" {
		return b.report.json(out)
	}
	return b.report.text(out)
}

// parse gives no names when there is nothing to run.
func parse(args []string, out, progress io.Writer) (o options, names []string, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	list := flags.Bool("list", false, "list the scenarios")
	flags.StringVar(&o.output, "o", "text", "`format`: text or json")
	flags.StringVar(&o.binary, "binary", "", "hallmark `binary` to measure; built from the sources when empty")
	flags.StringVar(&o.against, "against", "", "another hallmark `binary`, measured in turns with the first")
	flags.Func("serve", "further `flag` of hallmark serve, such as --log-level=warn; may be repeated", func(text string) error {
		o.serve = append(o.serve, text)
		return nil
	})
	flags.DurationVar(&o.latency, "latency", 0, "how long the registry holds back every answer")
	o.concurrency = []int{1, 8, 64}
	flags.Func("concurrency", "`clients` at the same time, separated by commas (default 1,8,64)", func(text string) (err error) {
		o.concurrency, err = counts(text)
		return err
	})
	flags.IntVar(&o.rounds, "rounds", 5, "how often the turn comes to each server")
	flags.DurationVar(&o.round, "round", 2*time.Second, "length of a turn")
	flags.IntVar(&o.cold, "cold", 200, "pods of a turn with new images")
	flags.IntVar(&o.images, "images", 1, "images of a pod: 1 to 5")
	flags.IntVar(&o.bytes, "bytes", 4<<10, "size of a pod as JSON")
	flags.IntVar(&o.catalogue, "catalogue", 10, "golden images in the configuration")
	flags.IntVar(&o.rules, "rules", 0, "extra rules in Rego")
	flags.BoolVar(&o.attest, "attest", false, "demand a signed provenance as well")
	flags.IntVar(&o.perSecond, "requests-per-second", 100_000, "limits.requestsPerSecond in the configuration, whose default is 50")
	flags.IntVar(&o.memory, "memory", 10_000, "images of scenario memory")
	flags.DurationVar(&o.length, "length", time.Minute, "length of the scenarios day and morning")
	flags.IntVar(&o.replicas, "replicas", 3, "replicas of scenario morning")
	flags.Float64Var(&o.rate, "rate", 10_000/3600.0, "pods a second of scenario morning, on average")
	flags.Float64Var(&o.bursts, "bursts", 10, "pods that come at once in scenario morning, on average")
	if err := flags.Parse(args); err != nil {
		return o, nil, err
	}
	if *list {
		for _, s := range scenarios() {
			fmt.Fprintf(out, "%-8s %s\n", s.name, s.what)
		}
		return o, nil, nil
	}
	if names = flags.Args(); len(names) == 0 {
		names = []string{"warm", "cold"}
	}
	return o, names, o.check(names)
}

// check names every mistake at once.
func (o options) check(names []string) error {
	var errs []error
	for _, name := range names {
		if !slices.ContainsFunc(scenarios(), func(s scenario) bool { return s.name == name }) {
			errs = append(errs, fmt.Errorf("there is no scenario %q; -list shows them", name))
		}
	}
	for _, want := range []struct {
		flag string
		good bool
		says string
	}{
		{"-o", o.output == "text" || o.output == "json", "is text or json"},
		{"-images", o.images >= 1 && o.images <= maxImages, "is 1 to 5"},
		{"-bytes", o.bytes >= 1<<10 && o.bytes <= 1<<20, "is 1024 to 1048576"},
		{"-catalogue", o.catalogue >= maxImages, "is at least 5: the images of the pods are in it"},
		{"-rounds", o.rounds >= 1, "is at least 1"},
		{"-round", o.round > 0, "is more than 0"},
		{"-cold", o.cold >= 1, "is at least 1"},
		{"-replicas", o.replicas >= 1, "is at least 1"},
		{"-rate and -bursts", o.rate > 0 && o.bursts >= 1, "are more than 0, and at least 1"},
	} {
		if !want.good {
			errs = append(errs, fmt.Errorf("%s %s", want.flag, want.says))
		}
	}
	return errors.Join(errs...)
}

func counts(text string) (list []int, err error) {
	for _, part := range strings.Split(text, ",") {
		var n int
		if _, err := fmt.Sscan(part, &n); err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number of clients", part)
		}
		list = append(list, n)
	}
	return list, nil
}
