package binaries

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// modulePath is the module whose go.mod pins the programs.
	modulePath = "github.com/hallmark-admission/hallmark/test/cluster"
	// recipe is part of the key. Raise it when the flags or the environment of build change.
	recipe = "1"
	// temporaryPrefix starts the name of a directory in which a build is under way.
	temporaryPrefix = ".build-"
	// heartbeat is how often a long build says that it lives.
	heartbeat = 30 * time.Second
	// interruptGrace is how long an interrupted go command may take to remove its work directory.
	interruptGrace = 10 * time.Second
)

// source is the module that the programs are built from and the toolchain that builds them.
type source struct {
	dir       string // holds go.mod and go.sum, and the modules inside it
	toolchain string // Go version, operating system and architecture, one per line
}

// findSource asks the go command, as nothing else knows where a test or a `go run` came from.
func findSource(ctx context.Context) (source, error) {
	out, err := goOutput(ctx, "", "list", "-m", "-f", "{{.Path}}\n{{.Dir}}")
	if err != nil {
		return source{}, fmt.Errorf("find the module: %w", err)
	}
	path, dir, _ := strings.Cut(out, "\n")
	if path != modulePath {
		return source{}, fmt.Errorf("find the module: the working directory is not in %s; run this in test/cluster", modulePath)
	}
	toolchain, err := goOutput(ctx, dir, "env", "GOVERSION", "GOOS", "GOARCH")
	if err != nil {
		return source{}, fmt.Errorf("find the Go version: %w", err)
	}
	return source{dir: dir, toolchain: toolchain}, nil
}

// key hashes all that decides what the programs contain: 16 hex digits, short enough to read aloud.
func (s source) key() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "recipe %s\n%s\n", recipe, s.toolchain)
	for _, name := range []string{"go.mod", "go.sum", "helm/go.mod", "helm/go.sum"} {
		content, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			return "", fmt.Errorf("compute the cache key: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(content), content)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// linkerFlags stamps the version of k8s.io/kubernetes into both packages that report one, and those of Helm into its own. Without the stamp the API
// server calls itself v0.0.0-master+$Format:%H$, which `kubectl version` cannot parse. A program that does not
// link a package ignores its stamp. Commit and date are constant: the module proxy does not tell them, and a date would make
// two builds of one key differ.
func (s source) linkerFlags(ctx context.Context) (string, error) {
	version, err := goOutput(ctx, s.dir, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return "", fmt.Errorf("find the Kubernetes version: %w", err)
	}
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) != 3 {
		return "", fmt.Errorf("find the Kubernetes version: %q has not the form v1.2.3", version)
	}
	helm, err := goOutput(ctx, filepath.Join(s.dir, subModule(Helm)), "list", "-m", "-f", "{{.Version}}", "helm.sh/helm/v3")
	if err != nil {
		return "", fmt.Errorf("find the Helm version: %w", err)
	}
	flags := []string{"-s", "-w", "-X", "helm.sh/helm/v3/internal/version.version=" + helm}
	for _, pkg := range []string{"helm.sh/helm/v3/pkg/chartutil", "helm.sh/helm/v3/pkg/lint/rules"} { // what it takes for the cluster's
		flags = append(flags, "-X", pkg+".k8sVersionMajor="+parts[0], "-X", pkg+".k8sVersionMinor="+parts[1])
	}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, stamp := range []string{
			"gitVersion=" + version, "gitMajor=" + parts[0], "gitMinor=" + parts[1],
			"gitCommit=unknown", "gitTreeState=clean", "buildDate=1970-01-01T00:00:00Z",
		} {
			flags = append(flags, "-X", pkg+"."+stamp)
		}
	}
	return strings.Join(flags, " "), nil
}

// build compiles one program and moves it to target.
func (s source) build(ctx context.Context, name, flags, target string, progress io.Writer) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(target), temporaryPrefix)
	if err != nil {
		return fmt.Errorf("create a temporary directory: %w", err)
	}
	defer os.RemoveAll(tmp) // what stays behind is removed by the next build

	built := filepath.Join(tmp, name)
	dir := filepath.Join(s.dir, subModule(name))
	cmd := goCommand(ctx, dir, "build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o", built, packagePath(name))
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := runWithHeartbeat(cmd, name, progress); err != nil {
		return explain(ctx, err, output.String())
	}
	return os.Rename(built, target)
}

// runWithHeartbeat runs cmd to its end; the command's own context is what stops it early.
func runWithHeartbeat(cmd *exec.Cmd, name string, progress io.Writer) error {
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- cmd.Run() }()
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			fmt.Fprintf(progress, "still building %s after %s\n", name, time.Since(began).Round(time.Second))
		}
	}
}

// goOutput runs a short go command and returns its standard output without the last newline.
func goOutput(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := goCommand(ctx, dir, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", args[0], explain(ctx, err, stderr.String()))
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// goCommand ignores a go.work file around the checkout, which would change the versions behind the key's back. It ends
// by an interrupt, on which the go command removes its work directory.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = interruptGrace
	return cmd
}

// explain adds to a failed command why it was stopped, or else what it said.
func explain(ctx context.Context, err error, output string) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("stopped: %w (finished packages stay in Go's build cache; "+
			"`go run ./cmd/clusterbin` in test/cluster builds without a time limit)", cause)
	}
	if output = strings.TrimSpace(output); output != "" {
		return fmt.Errorf("%w\n%s", err, output)
	}
	return err
}
