// Package nodee2e installs Hallmark as an administrator does, with Helm, on a cluster with a real node: its image runs in
// pods, its certificates come from its controller, kube-proxy leads to it, and containerd pulls what it pinned.
//
// One cluster and one registry serve the whole package; a test installs what it needs. The package runs in a sandbox
// (package sandbox), for which it has to be root.
package nodee2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/cluster"
	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
	"github.com/hallmark-admission/hallmark/test/cluster/debian"
	"github.com/hallmark-admission/hallmark/test/cluster/fixture"
	"github.com/hallmark-admission/hallmark/test/cluster/node"
	"github.com/hallmark-admission/hallmark/test/cluster/sandbox"
)

const (
	registryHost = "registry.corp.example"
	registryName = registryHost + ":5000"

	pauseImage    = "tools/pause:v1.0.0"
	hallmarkImage = "hallmark/hallmark:test"
	goodImage     = "golden/ws:v1.0.0"
	unsignedImage = "golden/ws:v9.9.9"

	// testPrefix begins the names of namespaces that tests make.
	testPrefix = "test-"
)

// w is what the tests run against. TestMain makes it.
var w *world

func TestMain(m *testing.M) {
	flag.Parse()
	if text := os.Getenv(patienceVariable); text != "" {
		if _, err := time.ParseDuration(text); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v; want a duration as 10m\n", patienceVariable, err)
			os.Exit(1)
		}
	}
	os.Exit(sandbox.Run(sandbox.Config{Prepare: prepare, Main: func(dir string) int { return run(dir, m) }}))
}

// prepare builds and downloads what the suite runs, while there is a network.
func prepare(ctx context.Context, dir string) error {
	programs, err := binaries.Ensure(ctx, binaries.Config{Progress: os.Stderr}, binaries.Node()...)
	if err != nil {
		return fmt.Errorf("provide the Kubernetes programs: %w", err)
	}
	packages, err := debian.Ensure(ctx, os.Stderr)
	if err != nil {
		return fmt.Errorf("provide the programs of a node: %w", err)
	}
	for link, target := range map[string]string{"programs": programs, "packages": packages.Dir()} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			return err
		}
	}
	root, err := repository()
	if err != nil {
		return err
	}
	bin := filepath.Join(dir, "bin")
	for _, command := range [][]string{
		{
			"go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin + "/", // as make build does, for the same build cache
			"./cmd/hallmark", "./test/harness/cmd/fixture", "./test/harness/cmd/workspace",
		},
		{filepath.Join(programs, binaries.Helm), "package", "./charts/hallmark", "--destination", filepath.Join(dir, "chart")},
		{"go", "run", "-trimpath", "./test/image", "-binary", filepath.Join(bin, "hallmark"), "-out", filepath.Join(dir, "image")},
	} {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v in %s: %w\n%s", command, root, err, out)
		}
	}
	return nil
}

// repository is the top of the checkout.
func repository() (string, error) {
	return filepath.Abs(filepath.Join("..", "..", "..")) // go test runs in the directory of the package
}

func run(dir string, m *testing.M) (code int) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	w = &world{dir: dir}
	defer func() {
		if err := w.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop:", err)
			code = 1
		}
	}()
	if err := w.start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "start:", err)
		return 1
	}
	return m.Run()
}

// world is a cluster with a node, and a registry that it can reach.
type world struct {
	*cluster.Cluster
	*fixture.Fixture
	dns   *node.DNS
	dir   string
	chart string // the package

	before    map[string]bool // all objects before the first installation
	installed bool
}

func (w *world) start(ctx context.Context) (err error) {
	began := time.Now()
	logs := sandbox.LogDir(w.dir)
	registryDir, nodeDir := filepath.Join(w.dir, "registry"), filepath.Join(w.dir, "node")
	for _, name := range []string{logs, registryDir, nodeDir} {
		if err := os.Mkdir(name, 0o755); err != nil {
			return err
		}
	}
	w.Fixture, err = fixture.Start(filepath.Join(w.dir, "bin", "fixture"), registryDir,
		"-listen", sandbox.Address+":5000", "-name", registryName)
	if err != nil {
		return err
	}
	if err := w.push(); err != nil {
		return err
	}
	w.Cluster, err = cluster.Start(ctx, cluster.Options{
		Dir: logs, Binaries: filepath.Join(w.dir, "programs"), Controllers: true, Address: sandbox.Address, ServiceRange: node.ServiceRange, Timeout: patience(),
	})
	if err != nil {
		return err
	}
	controlPlane := time.Since(began)
	w.dns, err = node.StartDNS(sandbox.Address, w.Client(), map[string]netip.Addr{
		registryHost: netip.MustParseAddr(sandbox.Address),
	})
	if err != nil {
		return err
	}
	err = node.Start(ctx, w.Cluster, node.Options{
		Dir: nodeDir, Address: sandbox.Address, Packages: debian.At(filepath.Join(w.dir, "packages")), CgroupParent: sandbox.CgroupParent(w.dir),
		Registry: registryName, RegistryCA: w.Authority, PauseImage: w.ref(pauseImage), Timeout: patience(),
	})
	if err != nil {
		return err
	}
	if w.chart, err = findChart(w.dir); err != nil {
		return err
	}
	if err := w.prepareRelease(ctx); err != nil {
		return fmt.Errorf("prepare for the release: %w", err)
	}
	fmt.Printf("timing: registry and control plane ready after %s, node after %s\n",
		controlPlane.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	return nil
}

// findChart gives the packaged chart.
func findChart(dir string) (string, error) {
	packages, err := filepath.Glob(filepath.Join(dir, "chart", "*.tgz"))
	if err == nil && len(packages) != 1 {
		err = fmt.Errorf("helm package left %d packages", len(packages))
	}
	if err != nil {
		return "", err
	}
	return packages[0], nil
}

// push stores the images that run. Those of the fixture are there only to be judged: nothing is in them.
func (w *world) push() error {
	program := filepath.Join(w.dir, "bin", "workspace")
	for _, order := range [][]string{
		{"push-program", "tools/pause", "v1.0.0", "65535", program},
		{"push-program", "golden/workspace", "v1.0.0", "1000", program},
		{"push-program", "golden/workspace", "v1.1.0", "1000", program},
		{"push-program", "golden/workspace", "v1.2.0", "1000", program},
		{"push-layout", "hallmark/hallmark", "test", filepath.Join(w.dir, "image")},
	} {
		answer, err := w.Do(order...)
		if err != nil {
			return err
		}
		w.Digests[order[1]+":"+order[2]] = answer.Digest
		if strings.HasPrefix(order[1], "golden/") {
			if _, err := w.Do("sign", order[1], answer.Digest); err != nil {
				return err
			}
		}
	}
	return nil
}

// stop ends everything and says what went wrong unseen.
func (w *world) stop() error {
	var errs []error
	if w.Cluster != nil {
		errs = append(errs, w.Cluster.Stop())
	}
	if w.dns != nil {
		errs = append(errs, w.dns.Close())
	}
	if w.Fixture != nil {
		errs = append(errs, w.Fixture.Stop())
	}
	return errors.Join(errs...)
}

// ref is an image of the registry as it is written in a pod: ref("golden/ws:v1.0.0").
func (w *world) ref(image string) string { return w.Registry + "/" + image }

// pinned is the same with its digest.
func (w *world) pinned(image string) string { return w.ref(image) + "@" + w.Digests[image] }

// patienceVariable names the environment variable for machines with much else to do: "10m".
const patienceVariable = "HALLMARK_NODE_PATIENCE"

// patience is how long a condition may take to come about: many times what it takes on a quiet machine.
func patience() time.Duration {
	if d, err := time.ParseDuration(os.Getenv(patienceVariable)); err == nil {
		return d
	}
	return 3 * time.Minute
}
