package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
)

// kubectlGrace is how long a cancelled kubectl may keep its output open.
const kubectlGrace = 5 * time.Second

// Cluster is a running API server. Its methods may be used by several goroutines at once, except Stop.
type Cluster struct {
	options   Options // completed, with Binaries set
	config    *clientcmdapi.Config
	client    *kubernetes.Clientset
	processes []*process // in the order of their start
}

// Start builds the programs if needed, runs them and returns when the API server is ready and every user may do what
// the options say; with controllers, also when the namespace default accepts pods. ctx bounds the start only: the
// cluster runs until Stop. After an error nothing runs.
func Start(ctx context.Context, options Options) (_ *Cluster, err error) {
	options, err = options.complete()
	if err != nil {
		return nil, fmt.Errorf("cluster options: %w", err)
	}
	if options.Binaries == "" {
		options.Binaries, err = binaries.Ensure(ctx, binaries.Config{Progress: options.Log}, binaries.Default()...)
		if err != nil {
			return nil, fmt.Errorf("provide the Kubernetes programs: %w", err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, options.Timeout, fmt.Errorf("not ready after %s", options.Timeout))
	defer cancel()

	c := &Cluster{options: options}
	defer func() {
		if err != nil {
			_ = c.Stop() // it could only repeat what err says about a process that ended
		}
	}()
	files, err := c.startServer()
	if err != nil {
		return nil, err
	}
	if err := c.waitReady(ctx); err != nil {
		return nil, err
	}
	if err := bindRoles(ctx, c.client, options.Users); err != nil {
		return nil, err
	}
	if !options.Controllers {
		return c, nil
	}
	if err := c.start(binaries.ControllerManager, controllerManagerArgs(c.Kubeconfig(), files)); err != nil {
		return nil, err
	}
	if err := c.waitServiceAccount(ctx, "default"); err != nil {
		return nil, err
	}
	return c, nil
}

// startServer writes what the API server reads, starts it with its etcd, and leaves the way to reach it in c.
func (c *Cluster) startServer() (pki, error) {
	services, err := netip.ParsePrefix(c.options.ServiceRange)
	if err != nil {
		return pki{}, fmt.Errorf("service range: %w", err)
	}
	kubernetesService := services.Masked().Addr().Next() // the first address is always that of the API server
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), kubernetesService.AsSlice()}
	if c.options.Address != "" {
		addresses = append(addresses, net.ParseIP(c.options.Address))
	}
	files, err := writePKI(c.options.Dir, addresses)
	if err != nil {
		return pki{}, err
	}
	logins := newLogins(c.options.Users)
	if err := writeTokens(tokenFile(c.options.Dir), logins); err != nil {
		return pki{}, err
	}

	etcdPort, err := freePort()
	if err != nil {
		return pki{}, err
	}
	etcdURL := fmt.Sprintf("http://127.0.0.1:%d", etcdPort)
	if err := c.start(binaries.Etcd, etcdArgs(c.options.Dir, etcdURL)); err != nil {
		return pki{}, err
	}
	port, err := freePort()
	if err != nil {
		return pki{}, err
	}
	if err := c.start(binaries.APIServer, apiServerArgs(c.options, files, etcdURL, port)); err != nil {
		return pki{}, err
	}
	return files, c.connect(fmt.Sprintf("https://127.0.0.1:%d", port), files, logins)
}

// connect writes the kubeconfig and makes the admin's client.
func (c *Cluster) connect(server string, files pki, logins []login) (err error) {
	if c.config, err = newKubeconfig(server, files.authority, logins); err != nil {
		return err
	}
	if err := clientcmd.WriteToFile(*c.config, c.Kubeconfig()); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	rc, err := c.RESTConfig(adminUser)
	if err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(rc); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return nil
}

func (c *Cluster) start(name string, args []string) error {
	return c.Launch(name, exec.Command(filepath.Join(c.options.Binaries, name), args...))
}

// Launch runs a further server beside the others, with its output in <name>.log of the cluster's directory. It ends
// with Stop, before those that were started before it. Nothing may have been set in cmd but its environment; without one
// the server gets little more than PATH.
func (c *Cluster) Launch(name string, cmd *exec.Cmd) error {
	p, err := startProcess(c.options.Dir, name, cmd)
	if err != nil {
		return err
	}
	c.processes = append(c.processes, p)
	return nil
}

// Stop ends the processes that Start started, and no others, in the opposite order, and waits for them. The error tells
// of any that had ended before, which means that the test ran against a broken cluster. A second call does nothing.
func (c *Cluster) Stop() error {
	var problems []error
	for _, p := range slices.Backward(c.processes) {
		if p.ended() {
			problems = append(problems, p.failure())
			continue
		}
		p.stop()
	}
	c.processes = nil
	return errors.Join(problems...)
}

// Kubeconfig is the path of a kubeconfig that needs no other file. It has one context per user, named as the user; the
// admin's is the current one.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.options.Dir, "kubeconfig") }

// Binaries is the directory with the programs.
func (c *Cluster) Binaries() string { return c.options.Binaries }

// Dir holds the cluster's state and logs.
func (c *Cluster) Dir() string { return c.options.Dir }

// Client is the admin's client.
func (c *Cluster) Client() *kubernetes.Clientset { return c.client }

// RESTConfig is a fresh client configuration for one of the users, without a rate limit.
func (c *Cluster) RESTConfig(user string) (*rest.Config, error) { return restConfig(*c.config, user) }

// Kubectl runs kubectl as the admin, or as another user with --context. The error holds what kubectl said on stderr,
// so that a test can report it alone.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.options.Binaries, binaries.Kubectl),
		append([]string{"--kubeconfig=" + c.Kubeconfig()}, args...)...)
	cmd.Env = environment(c.options.Dir)
	cmd.WaitDelay = kubectlGrace
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err = cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		err = fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), errOut.String(), err
}
