// Suites runs the test suites one after another, and tells at the end which of them ran and which did not, and why. Of a
// suite that passes it shows a line a package; of a test that fails, everything.
//
//	go run ./test/suites                 all: gofmt, vet, unit, allocs, kms, chart, distribution, cosign, release, e2e, e2e-node
//	go run ./test/suites vet unit        these
//	go run ./test/suites -skip e2e       all others
//	go run ./test/suites -strict         a suite that cannot run here is a failure too
//
// It needs nothing but Go. A C compiler adds the race detector to unit, distribution, cosign and release; e2e needs Linux,
// and e2e-node root there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "suites:", err)
		os.Exit(1)
	}
}

// suite is one kind of check. A *skipped error says that it cannot run here.
type suite struct {
	name string
	run  func(ctx context.Context, out io.Writer, tests *tests) (note string, err error)
}

func suites() []suite {
	return []suite{
		{"gofmt", gofmt}, {"vet", vet}, {"unit", unit}, {"allocs", allocs}, {"kms", kms}, {"chart", chart},
		{"distribution", distribution}, {"cosign", cosign}, {"release", release}, {"e2e", e2e}, {"e2e-node", e2eNode},
	}
}

// skipped is why a suite does not run here. It is excused when no machine of this kind could run it.
type skipped struct {
	reason  string
	excused bool
}

func (s *skipped) Error() string { return s.reason }

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("suites", flag.ContinueOnError)
	strict := flags.Bool("strict", false, "fail when a suite cannot run here")
	skip := flags.String("skip", "", "`suites` to leave out, separated by commas")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	without := strings.Split(*skip, ",")
	for _, name := range append(flags.Args(), without...) {
		if name != "" && !slices.ContainsFunc(suites(), func(s suite) bool { return s.name == name }) {
			return fmt.Errorf("there is no suite %q", name)
		}
	}
	report := report{out: out}
	for _, s := range suites() {
		switch {
		case flags.NArg() > 0 && !slices.Contains(flags.Args(), s.name):
			continue
		case slices.Contains(without, s.name):
			report.add(s.name, 0, &tests{}, "", &skipped{reason: "left out by -skip"})
			continue
		}
		fmt.Fprintf(out, "== %s\n", s.name)
		began := time.Now()
		tests := &tests{out: out}
		note, err := s.run(ctx, out, tests)
		report.add(s.name, time.Since(began), tests, note, err)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return report.finish(*strict)
}

// gofmt is run from beside the go command, as it need not be in PATH.
func gofmt(ctx context.Context, out io.Writer, _ *tests) (string, error) {
	root, err := output(ctx, "go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	files, err := output(ctx, filepath.Join(root, "bin", "gofmt"), "-l", "cmd", "policies", "test", "webhook")
	if err == nil && files != "" {
		fmt.Fprintln(out, files)
		err = errors.New("these files want gofmt -w")
	}
	return "", err
}

func vet(ctx context.Context, out io.Writer, _ *tests) (string, error) {
	return "", stream(ctx, out, "go", "vet", "./...")
}

func unit(ctx context.Context, _ io.Writer, tests *tests) (string, error) {
	return goTest(ctx, tests, "-shuffle=on", "./...")
}

// allocs holds what the benchmarks allocate against test/bench/accepted.txt.
func allocs(ctx context.Context, out io.Writer, _ *tests) (string, error) {
	return "", stream(ctx, out, "go", "run", "./test/bench/allocs")
}

// kms tests the keys of clouds, whose clients are linked only with their tags.
func kms(ctx context.Context, _ io.Writer, tests *tests) (string, error) {
	return goTest(ctx, tests, "-tags=kms_all", "-shuffle=on", "-run=KMS|AWS|Vault", "./webhook/signature")
}

// chart renders the Helm chart and gives what comes out to the code that will read it.
func chart(ctx context.Context, _ io.Writer, tests *tests) (string, error) {
	return "", stream(ctx, tests, "go", "-C", "test/chart", "test", "-json", "-count=1", "-shuffle=on", "-timeout=20m", "./...")
}

// distribution runs the webhook against CNCF's registry, which is built first.
func distribution(ctx context.Context, out io.Writer, tests *tests) (string, error) {
	if err := stream(ctx, out, "go", "-C", "test/distribution", "run", "./cmd/registrybin"); err != nil {
		return "", fmt.Errorf("build the registry: %w", err)
	}
	return goTest(ctx, tests, "-C=test/distribution", "-count=1", "-shuffle=on", "./...")
}

// cosign verifies what the cosign programs sign, also in CNCF's registry; all are built first.
func cosign(ctx context.Context, out io.Writer, tests *tests) (string, error) {
	if err := stream(ctx, out, "go", "-C", "test/distribution", "run", "./cmd/registrybin"); err != nil {
		return "", fmt.Errorf("build the registry: %w", err)
	}
	if err := stream(ctx, out, "go", "-C", "test/cosign", "run", "./cmd/cosignbin"); err != nil {
		return "", fmt.Errorf("build the cosign programs: %w", err)
	}
	return goTest(ctx, tests, "-C=test/cosign", "-count=1", "-shuffle=on", "./...")
}

// release makes a release of small programs and has the cosign programs verify it, which are built first.
func release(ctx context.Context, out io.Writer, tests *tests) (string, error) {
	if err := stream(ctx, out, "go", "-C", "test/cosign", "run", "./cmd/cosignbin"); err != nil {
		return "", fmt.Errorf("build the cosign programs: %w", err)
	}
	return goTest(ctx, tests, "-C=test/release", "-count=1", "-shuffle=on", "./...")
}

// goTest runs go test, with the race detector if there is a C compiler.
func goTest(ctx context.Context, tests *tests, args ...string) (note string, err error) {
	args = append([]string{"test"}, args...)
	at := 1
	if strings.HasPrefix(args[1], "-C=") {
		at = 2 // it has to be the first flag
	}
	args = slices.Insert(args, at, "-json")
	compiler, err := output(ctx, "go", "env", "CC")
	if err != nil {
		return "", err
	}
	if fields := strings.Fields(compiler); len(fields) > 0 {
		compiler = fields[0]
	}
	if _, err := exec.LookPath(compiler); err != nil {
		return "WITHOUT the race detector, which needs a C compiler: " + err.Error(), stream(ctx, tests, "go", args...)
	}
	args = slices.Insert(args, at, "-race")
	return "with the race detector", stream(ctx, tests, "env", append([]string{"CGO_ENABLED=1", "go"}, args...)...)
}

// e2e runs the webhook behind a real API server. Its programs are built first, apart from the time limit of go test.
func e2e(ctx context.Context, out io.Writer, tests *tests) (string, error) {
	if runtime.GOOS != "linux" {
		return "", &skipped{reason: "the Kubernetes programs of test/cluster run on Linux only"}
	}
	if err := stream(ctx, out, "go", "-C", "test/cluster", "run", "./cmd/clusterbin"); err != nil {
		return "", fmt.Errorf("build the Kubernetes programs: %w", err)
	}
	list, err := output(ctx, "go", "-C", "test/cluster", "list", "./...")
	if err != nil {
		return "", err
	}
	args := []string{"-C", "test/cluster", "test", "-json", "-count=1", "-shuffle=on", "-timeout=20m"}
	for _, name := range strings.Fields(list) {
		if !slices.Contains(nodePackages(), "./"+filepath.Base(name)) {
			args = append(args, name)
		}
	}
	return "", stream(ctx, tests, "go", args...)
}

// nodePackages are those of test/cluster that run as root only.
func nodePackages() []string { return []string{"./sandbox", "./nodee2e"} }

// e2eNode installs the chart on a real node, in namespaces of its own. What it needs is built and downloaded first.
func e2eNode(ctx context.Context, out io.Writer, tests *tests) (string, error) {
	if runtime.GOOS != "linux" {
		return "", &skipped{reason: "a Kubernetes node runs on Linux only", excused: true}
	}
	provide := filepath.Join(os.TempDir(), fmt.Sprintf("hallmark-clusterbin-%d", os.Getpid())) // go run hides the exit status
	defer os.Remove(provide)
	if err := stream(ctx, out, "go", "-C", "test/cluster", "build", "-o", provide, "./cmd/clusterbin"); err != nil {
		return "", fmt.Errorf("build clusterbin: %w", err)
	}
	c := command(ctx, provide, "-node")
	var said strings.Builder
	c.Dir, c.Stdout, c.Stderr = filepath.Join("test", "cluster"), out, io.MultiWriter(os.Stderr, &said)
	err := c.Run()
	if status := c.ProcessState.ExitCode(); status == notThisMachine || status == packagesMissing {
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		return "", &skipped{reason: strings.TrimPrefix(lines[len(lines)-1], "clusterbin: "), excused: status == notThisMachine}
	}
	if err != nil {
		return "", fmt.Errorf("provide what a node needs: %w", err)
	}
	args := append([]string{"-C", "test/cluster", "test", "-json", "-count=1", "-timeout=30m"}, nodePackages()...)
	return "", stream(ctx, tests, "go", args...)
}

// What clusterbin -node ends with on a machine that cannot run a node.
const (
	notThisMachine  = 3
	packagesMissing = 4
)

func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 20 * time.Second
	return c
}

// output gives what a command prints, without the last newline.
func output(ctx context.Context, name string, args ...string) (string, error) {
	c := command(ctx, name, args...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return strings.TrimRight(string(out), "\n"), nil
}

// stream runs a command and shows what it prints.
func stream(ctx context.Context, out io.Writer, name string, args ...string) error {
	c := command(ctx, name, args...)
	c.Stdout, c.Stderr = out, os.Stderr
	return c.Run()
}
