// Registrybin builds CNCF's registry for the tests, unless it is built already, and prints its path on standard output.
//
//	go -C test/distribution run ./cmd/registrybin
//
// Run it before the tests: a cold build may take longer than go test allows.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hallmark-admission/hallmark/test/distribution"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	program, err := distribution.Program(ctx, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "registrybin:", err)
		os.Exit(1)
	}
	fmt.Println(program)
}
