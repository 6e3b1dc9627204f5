package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
)

// pollInterval is short beside the seconds that a start takes.
const pollInterval = 50 * time.Millisecond

// CreateNamespace creates a namespace and returns when pods can be created in it, which with controllers is when its
// service account is there.
func (c *Cluster) CreateNamespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	if !c.options.Controllers {
		return nil
	}
	return c.waitServiceAccount(ctx, name)
}

// waitReady returns when the API server answers /readyz with 200, after all its start-up hooks.
func (c *Cluster) waitReady(ctx context.Context) error {
	return c.poll(ctx, binaries.APIServer, func(ctx context.Context) error {
		_, err := c.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

// waitServiceAccount returns when the namespace has the service account that pods get, and the certificate authority
// that is mounted with its token.
func (c *Cluster) waitServiceAccount(ctx context.Context, namespace string) error {
	return c.poll(ctx, binaries.ControllerManager, func(ctx context.Context) error {
		core := c.client.CoreV1()
		if _, err := core.ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		_, err := core.ConfigMaps(namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
}

// poll repeats check until it succeeds. It gives up when ctx ends or any server ends, and then quotes the log of the one
// to blame: the server that ended, or else the one named, whose work check is waiting for.
func (c *Cluster) poll(ctx context.Context, name string, check func(context.Context) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if err := c.Check(); err != nil {
			return fmt.Errorf("wait for %s: %w", name, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (last answer: %w)\n%s", name, context.Cause(ctx), err, c.Tail(name))
		}
	}
}

// Check tells of a server that has ended although it should run.
func (c *Cluster) Check() error {
	for _, p := range c.processes {
		if p.ended() {
			return p.failure()
		}
	}
	return nil
}

// Tail quotes the end of the log of the named server.
func (c *Cluster) Tail(name string) string {
	i := slices.IndexFunc(c.processes, func(p *process) bool { return p.name == name })
	if i < 0 {
		return name + " was not started"
	}
	return c.processes[i].tail()
}
