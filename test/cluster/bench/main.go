// Bench measures what Hallmark adds to the creation of pods by a real API server: etcd, kube-apiserver and the webhook on
// this machine, and clients that create pods at the same time.
//
//	go -C test/cluster run ./bench                        500 pods by 50 clients
//	go -C test/cluster run ./bench -pods 5000 -rounds 2
//	go -C test/cluster run ./bench -scenario deployment   a Deployment of 1,000 replicas on fake nodes until all are ready
//	go -C test/cluster run ./bench -scenario morning      workspaces as they come in a morning of 10,000
//
// A round creates the pods once with both webhooks registered, once with a floor in their place, which decodes what it is
// sent and allows it, and once with none, in another order each time, since the machine is as quick as those who share it let
// it be. docs/performance.md says how to read the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
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

type options struct {
	scenario, output      string
	pods, clients, rounds int
	replicas              int
	length                time.Duration
	rate, bursts          float64
}

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.StringVar(&o.scenario, "scenario", "pods", "`what` to create: pods, deployment or morning")
	flags.StringVar(&o.output, "o", "text", "`format`: text or json")
	flags.IntVar(&o.pods, "pods", 500, "pods of a turn")
	flags.IntVar(&o.clients, "clients", 50, "clients that create them, each over a connection of its own")
	flags.IntVar(&o.rounds, "rounds", 3, "how often each")
	flags.IntVar(&o.replicas, "replicas", 1000, "replicas of the Deployment")
	flags.DurationVar(&o.length, "length", 2*time.Minute, "length of the morning")
	flags.Float64Var(&o.rate, "rate", 10_000/3600., "workspaces a second of the morning, on average")
	flags.Float64Var(&o.bursts, "bursts", 10, "workspaces that come at once, on average")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	switch {
	case !slices.Contains([]string{"pods", "deployment", "morning"}, o.scenario):
		return fmt.Errorf("-scenario %q: is pods, deployment or morning", o.scenario)
	case o.rate <= 0 || o.bursts < 1 || o.length <= 0:
		return errors.New("-rate and -length are above 0, and -bursts is at least 1")
	case o.output != "text" && o.output != "json":
		return fmt.Errorf("-o %q: is text or json", o.output)
	case min(o.pods, o.clients, o.rounds, o.replicas) < 1:
		return errors.New("-pods, -clients, -rounds and -replicas are at least 1")
	}
	dir, err := os.MkdirTemp("", "hallmark-apibench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w := &world{dir: dir, progress: progress}
	defer func() { err = errors.Join(err, w.stop()) }()
	if err := w.start(ctx, o.scenario != "pods"); err != nil {
		return err
	}
	var r report
	for round := range o.rounds {
		for turn := range candidates {
			who := (round + turn) % len(candidates)
			fmt.Fprintf(progress, "bench: round %d of %d, %s\n", round+1, o.rounds, candidates[who])
			if err := w.turn(ctx, o, who, &r); err != nil {
				return err
			}
		}
	}
	return r.print(out, o.output)
}

// turn is a part of a round.
func (w *world) turn(ctx context.Context, o options, who int, r *report) error {
	if err := w.register(ctx, who); err != nil {
		return fmt.Errorf("register %s: %w", candidates[who], err)
	}
	namespace := fmt.Sprintf("round-%d", w.turns)
	w.turns++
	if err := w.CreateNamespace(ctx, namespace); err != nil {
		return err
	}
	before, err := w.cpu(who)
	if err != nil {
		return err
	}
	var m measurement
	switch o.scenario {
	case "pods":
		m, err = w.createPods(ctx, namespace, o)
	case "deployment":
		m, err = w.createDeployment(ctx, namespace, o.replicas)
	default:
		m, err = w.createMorning(ctx, namespace, o)
	}
	if err != nil {
		return err
	}
	after, err := w.cpu(who)
	if err != nil {
		return err
	}
	m.cpu = after - before
	if m.resident, err = w.resident(who); err != nil {
		return err
	}
	r.turns[who] = append(r.turns[who], m)
	return w.clear(ctx, namespace)
}

// file is a path in the directory of the run.
func (w *world) file(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}
