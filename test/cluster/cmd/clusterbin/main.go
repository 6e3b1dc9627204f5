// Clusterbin builds the Kubernetes programs that the tests run, unless they are built already, and prints their
// directory on standard output. Progress goes to standard error.
//
//	go -C test/cluster run ./cmd/clusterbin              what a cluster without nodes needs
//	go -C test/cluster run ./cmd/clusterbin kubectl kwok these only
//
// Run it before the tests: a cold build takes longer than the ten minutes that go test allows.
// GOFLAGS=-p=1 leaves the machine usable meanwhile.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "clusterbin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("clusterbin", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: clusterbin [program...]\n\nprograms: %s\n", strings.Join(binaries.Names(), ", "))
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	names := flags.Args()
	if len(names) == 0 {
		names = binaries.Default()
	}
	dir, err := binaries.Ensure(ctx, binaries.Config{Progress: stderr}, names...)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, dir)
	return err
}
