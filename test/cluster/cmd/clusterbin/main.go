// Clusterbin builds the Kubernetes programs that the tests run, unless they are built already, and prints their
// directory on standard output. Progress goes to standard error.
//
//	go -C test/cluster run ./cmd/clusterbin              what a cluster without nodes needs
//	go -C test/cluster run ./cmd/clusterbin kubectl kwok these only
//	go -C test/cluster run ./cmd/clusterbin -node        what a cluster with a node needs, Debian's packages among it
//
// With -node it ends with status 3 on a machine that cannot run a node, and with 4 on one that could if it had Debian's
// packages; the last line says why.
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
	"github.com/hallmark-admission/hallmark/test/cluster/debian"
	"github.com/hallmark-admission/hallmark/test/cluster/sandbox"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "clusterbin:", err)
		os.Exit(status(err))
	}
}

func status(err error) int {
	if unable := (*unableError)(nil); errors.As(err, &unable) {
		return unable.status
	}
	return 1
}

// unableError is why a node cannot run here.
type unableError struct {
	error
	status int
}

func (e *unableError) Unwrap() error { return e.error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("clusterbin", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: clusterbin [-node] [program...]\n\nprograms: %s\n", strings.Join(binaries.Names(), ", "))
	}
	withNode := flags.Bool("node", false, "provide what a node needs")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	names := flags.Args()
	switch {
	case *withNode:
		if err := sandbox.Check(); err != nil {
			return &unableError{err, 3}
		}
		if _, err := debian.Ensure(ctx, stderr); err != nil {
			return &unableError{fmt.Errorf("a node needs packages of Debian: %w", err), 4}
		}
		names = append(names, binaries.Node()...)
	case len(names) == 0:
		names = binaries.Default()
	}
	dir, err := binaries.Ensure(ctx, binaries.Config{Progress: stderr}, names...)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, dir)
	return err
}
