// Cosignbin builds the cosign programs for the tests, unless they are built already, and prints their paths on standard
// output.
//
//	go -C test/cosign run ./cmd/cosignbin
//
// Run it before the tests: a cold build may take longer than go test allows.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hallmark-admission/hallmark/test/cosign"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	programs, err := cosign.Build(ctx, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cosignbin:", err)
		os.Exit(1)
	}
	fmt.Printf("%s\n%s\n", programs.V2, programs.V3)
}
