package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hallmark-admission/hallmark/test/cluster"
	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
	"github.com/hallmark-admission/hallmark/test/cluster/debian"
)

const (
	// Name is the name of the node.
	Name = "node1"
	// ServiceRange is what the cluster has to be started with.
	ServiceRange = "10.96.0.0/16"

	podRange       = "10.88.0.0/16"
	defaultTimeout = 2 * time.Minute
	pollInterval   = 50 * time.Millisecond
)

// Options describes a node. All but Timeout are required.
type Options struct {
	// Dir holds the node's state, images and volumes among it. It must be empty.
	Dir string
	// Address of the node, which is not loopback.
	Address string
	// Packages has containerd, runc and the CNI plugins.
	Packages debian.Root
	// CgroupParent is the cgroup that all pods are in.
	CgroupParent string
	// Registry is where images come from: host and port as in a reference, and its authority.
	Registry   string
	RegistryCA string
	// PauseImage is a reference to an image that does nothing.
	PauseImage string
	// Timeout bounds the start. Zero means two minutes.
	Timeout time.Duration
}

func (o Options) check() error {
	var errs []error
	for name, value := range map[string]string{
		"Dir": o.Dir, "Address": o.Address, "CgroupParent": o.CgroupParent, "Registry": o.Registry, "RegistryCA": o.RegistryCA,
		"PauseImage": o.PauseImage,
	} {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is empty", name))
		}
	}
	return errors.Join(errs...)
}

// Start runs the servers of a node and returns when it is ready, which ctx bounds too. They end with the cluster, and
// their logs are beside the cluster's.
func Start(ctx context.Context, c *cluster.Cluster, o Options) error {
	if err := o.check(); err != nil {
		return fmt.Errorf("node options: %w", err)
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("not ready after %s", o.Timeout))
	defer cancel()
	n := &node{Cluster: c, options: o, socket: "/run/containerd/containerd.sock"}
	for _, start := range []func() error{n.routeServices, n.startContainerd, n.startScheduler, n.startKubelet, n.startProxy} {
		if err := start(); err != nil {
			return err
		}
	}
	return n.waitReady(ctx)
}

type node struct {
	*cluster.Cluster
	options Options
	socket  string // of containerd
}

// launch starts a program of Kubernetes, or of the packages, which need their libraries.
func (n *node) launch(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(n.Binaries(), name), args...)
	if !slices.Contains(binaries.Names(), name) {
		program, err := n.options.Packages.Program(name)
		if err != nil {
			return err
		}
		cmd = exec.Command(program, args...)
	}
	cmd.Env = []string{
		"PATH=" + n.options.Packages.Path(), "LD_LIBRARY_PATH=" + n.options.Packages.LibraryPath(),
		"HOME=" + n.options.Dir, "TMPDIR=" + n.options.Dir,
	}
	return n.Launch(name, cmd)
}

func (n *node) startScheduler() error {
	return n.launch(binaries.Scheduler, "--kubeconfig="+n.Kubeconfig(), "--leader-elect=false", "--secure-port=0",
		"--kube-api-qps=200", "--kube-api-burst=400", "--profiling=false")
}

// routeServices gives the range of Services a route, without which nothing sent there gets as far as kube-proxy's rules,
// which change the destination. It leads to where a machine has its network, for which two ends of a cable stand: through
// the loopback interface, the rules' rejection of Services without endpoints would not come back.
func (n *node) routeServices() error {
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: "nowhere"}
	if err := netlink.LinkAdd(cable); err != nil {
		return fmt.Errorf("add a network interface: %w", err)
	}
	for _, name := range []string{cable.Name, cable.PeerName} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("bring the network interface up: %w", err)
		}
	}
	uplink, err := netlink.LinkByName(cable.Name)
	if err != nil {
		return fmt.Errorf("find the network interface: %w", err)
	}
	_, services, err := net.ParseCIDR(ServiceRange)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: uplink.Attrs().Index, Dst: services, Src: net.ParseIP(n.options.Address)}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add a route to %s: %w", services, err)
	}
	return nil
}

// waitReady returns when the node says that it is ready and no taint keeps pods away.
func (n *node) waitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := n.ready(ctx)
		if err == nil {
			return nil
		}
		if err := n.Check(); err != nil {
			return fmt.Errorf("wait for the node: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the node: %w (last answer: %w)\n%s", context.Cause(ctx), err, n.Tail(binaries.Kubelet))
		}
	}
}

func (n *node) ready(ctx context.Context) error {
	node, err := n.Client().CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("the node is tainted: %v", node.Spec.Taints)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return errors.New("the node is not ready")
}

// write puts a file below the node's directory and gives its path.
func (n *node) write(name string, content []byte) (string, error) {
	path := filepath.Join(n.options.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, content, 0o600)
}
