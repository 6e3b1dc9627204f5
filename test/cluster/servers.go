package cluster

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
)

// etcdArgs are for a store that lives as long as one test: it never waits for the disk. The peer port is needed by
// nobody, so the kernel chooses it; what is advertised for it only has to agree with itself.
func etcdArgs(dir string, clientURL string) []string {
	const peer = "http://127.0.0.1:2380"
	return []string{
		"--name=test",
		"--data-dir=" + filepath.Join(dir, "etcd"),
		"--unsafe-no-fsync",
		"--listen-client-urls=" + clientURL,
		"--advertise-client-urls=" + clientURL,
		"--listen-peer-urls=http://127.0.0.1:0",
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=test=" + peer,
		"--log-level=warn",
	}
}

// apiServerArgs are for a server that only this machine can reach. No endpoint reconciler without an address: it would
// publish the loopback address as the endpoint of the service kubernetes, which the API refuses.
func apiServerArgs(o Options, files pki, etcdURL string, port int) []string {
	args := []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(port),
		"--cert-dir=" + o.Dir,
		"--tls-cert-file=" + files.certificate,
		"--tls-private-key-file=" + files.key,
		"--endpoint-reconciler-type=none",
		"--token-auth-file=" + tokenFile(o.Dir),
		"--authorization-mode=RBAC",
		"--service-cluster-ip-range=" + o.ServiceRange,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + files.serviceAccountKey,
		"--service-account-signing-key-file=" + files.serviceAccountKey,
		"--allow-privileged=true",
		"--profiling=false",
	}
	if o.Address != "" {
		args = append(args, "--bind-address=0.0.0.0", "--advertise-address="+o.Address, "--endpoint-reconciler-type=lease",
			"--kubelet-preferred-address-types=InternalIP")
	}
	if !o.Controllers {
		args = append(args, "--disable-admission-plugins=ServiceAccount")
	}
	return slices.Concat(args, o.APIServerArgs)
}

// controllerManagerArgs are for the only instance, with a rate limit that does not slow a test down.
func controllerManagerArgs(kubeconfig string, files pki) []string {
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--leader-elect=false",
		"--secure-port=0",
		"--service-account-private-key-file=" + files.serviceAccountKey,
		"--root-ca-file=" + files.authority,
		"--kube-api-qps=200",
		"--kube-api-burst=400",
		// A Node that a test makes for DaemonSets has no kubelet that reports, and is one all the same.
		"--node-monitor-grace-period=24h",
		"--node-startup-grace-period=24h",
		"--profiling=false",
	}
}

func tokenFile(dir string) string { return filepath.Join(dir, "tokens.csv") }

// freePort asks the kernel for a port that nobody uses. Another process may take it before the server does; that server
// then ends at once and Start reports its log.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return port, nil
}
