// Package cluster runs a real Kubernetes API server for a test, on one machine, without containers and without network.
//
// Start launches etcd and kube-apiserver, and kube-controller-manager when asked, on free ports of 127.0.0.1. They come
// from package binaries, which builds them from the module cache. All state stays in one directory. A cluster is ready
// in a few seconds, so a test package starts its own:
//
//	c, err := cluster.Start(ctx, cluster.Options{Dir: t.TempDir(), Log: t.Output()})
//	if err != nil {
//		t.Fatal(err)
//	}
//	t.Cleanup(func() { c.Stop() })
//	stdout, stderr, err := c.Kubectl(ctx, manifest, "apply", "-f", "-")
//
// # Webhooks
//
// The service range is made of loopback addresses (127.96.0.0/16). So the ClusterIP of a Service without a selector is
// an address on which the test itself can listen, and a webhook configuration that names a Service on port 443 works
// as it does in production, without kube-proxy and without a node. Ports below 1024 need root.
//
// # Users
//
// The admin belongs to system:masters, to which RBAC does not apply. A test of what users see should be another user,
// for example Developer. The kubeconfig has one context per user:
//
//	c.Kubectl(ctx, "", "--context=developer", "get", "pods")
//
// # What is absent
//
// There is no scheduler and no node, so pods are created and stay Pending. Without Options.Controllers nothing acts on
// Deployments, Jobs, garbage or aggregated cluster roles either, and namespaces have no service accounts; the
// ServiceAccount admission plugin is off then, as it would refuse every pod.
//
// The processes end with Stop, and by the kernel's hand when the test process dies without calling it. That and the
// loopback range make this package one for Linux.
package cluster
