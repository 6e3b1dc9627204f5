// Command hallmark is a Kubernetes admission webhook that lets a developer workspace start only from images that an
// organisation has tested and approved, pins every image to the digest that was checked, and tells the developer in one
// message what to change when it says no.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	runtime.MemProfileRate = 0 // nobody asks for the profile, whose samples are megabytes
	// What net/http has to say of a broken connection quotes what the other side sent, which may be a secret.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// Exit codes. A command that judges says with 1 that something is not allowed, and with 2 that it could not tell.
const (
	exitOK     = 0
	exitDenied = 1
	exitUsage  = 2
)

// hinted is an error with advice.
type hinted struct {
	error
	hint string
}

func (e hinted) Unwrap() error { return e.error }

// errNo is the answer no of a command that judges. What is wrong was printed already.
var errNo = errors.New("no")

// run executes a command line and gives the exit code.
func run(ctx context.Context, args []string, io streams) int {
	root := newRoot(io)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errNo):
		return exitDenied
	}
	fmt.Fprintln(io.err, "error:", err)
	var h hinted
	if errors.As(err, &h) {
		fmt.Fprintln(io.err, "hint:", h.hint)
	}
	return exitUsage
}

func newRoot(io streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "hallmark",
		Short: "Admit developer workspaces only from approved, signed, pinned images",
		Long: `Hallmark is a Kubernetes admission webhook for developer workspaces. It judges the images of pods and workloads
by Rego policies, verifies their cosign signatures, pins tags to digests, and tells a rejected developer in one
message what to change.

To see it work, with no cluster and no network:

  hallmark demo`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return hinted{err, "see " + cmd.CommandPath() + " --help"}
	})
	root.AddCommand(newServe(io), newController(io), newDoctor(io), newDemo(io), newImage(io), newReplay(io), newRules(io), newTest(io), newCheck(io), newVersion(io))
	return root
}
