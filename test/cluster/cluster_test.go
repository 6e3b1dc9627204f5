package cluster_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hallmark-admission/hallmark/test/cluster"
)

// TestAPIServer takes the cluster through what the suites need of it: the API by client and by kubectl, a second user
// with fewer rights, and ClusterIPs on which a test can listen.
func TestAPIServer(t *testing.T) {
	ctx := testContext(t)
	c := startCluster(ctx, t, cluster.Options{Users: []cluster.User{cluster.Developer("developer")}})
	if err := c.CreateNamespace(ctx, "smoke"); err != nil {
		t.Fatal(err)
	}

	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "by-client"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "registry.example.com/app:1"}}},
	}
	if _, err := c.Client().CoreV1().Pods("smoke").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Errorf("create a pod by client-go: %v", err)
	}
	manifest := "{apiVersion: v1, kind: Pod, metadata: {name: by-kubectl, namespace: smoke}, " +
		"spec: {containers: [{name: app, image: 'registry.example.com/app:1'}]}}"
	service := "{apiVersion: v1, kind: Service, metadata: {name: hook, namespace: smoke}, spec: {ports: [{port: 443}]}}"

	for _, tc := range []struct {
		name, stdin, args, want string
	}{
		{"version is stamped", "", "version", "Server Version: v1.36.3"},
		{"admin applies", manifest, "apply -f -", "pod/by-kubectl created"},
		{"both pods exist", "", "get pods -n smoke -o name", "pod/by-client\npod/by-kubectl"},
		{"developer creates pods", "", "--context=developer auth can-i create pods", "yes"},
		{"developer creates no namespaces", "", "--context=developer auth can-i create namespaces", "no"},
		{"service is accepted", service, "apply -f -", "service/hook created"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, _, err := c.Kubectl(ctx, tc.stdin, strings.Fields(tc.args)...)
			refused := tc.want == "no" // can-i tells so by its exit status too
			if (err != nil) != refused {
				t.Error(err)
			}
			if !strings.Contains(stdout, tc.want) {
				t.Errorf("kubectl %s:\n got %q\nwant %q in it", tc.args, stdout, tc.want)
			}
		})
	}
	listenOnClusterIP(ctx, t, c)

	server := apiServerAddress(t, c)
	if err := c.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if conn, err := net.DialTimeout("tcp", server, time.Second); err == nil {
		conn.Close()
		t.Errorf("something still listens on %s after Stop", server)
	}
}

// TestControllers shows that a Deployment leads to pods, which carry a service account token.
func TestControllers(t *testing.T) {
	ctx := testContext(t)
	c := startCluster(ctx, t, cluster.Options{Controllers: true})
	if err := c.CreateNamespace(ctx, "apps"); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"create deployment web -n apps --image=registry.example.com/web:1 --replicas=2",
		"wait -n apps deployment/web --for=jsonpath={.status.replicas}=2 --timeout=30s",
		"wait -n apps pod -l app=web --for=jsonpath={.spec.serviceAccountName}=default --timeout=30s",
	} {
		if _, _, err := c.Kubectl(ctx, "", strings.Fields(args)...); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStartFailure shows that a server which refuses its flags is reported with its own words, and soon.
func TestStartFailure(t *testing.T) {
	ctx := testContext(t)
	options := cluster.Options{Dir: t.TempDir(), Log: t.Output(), APIServerArgs: []string{"--no-such-flag"}}
	c, err := cluster.Start(ctx, options)
	if err == nil {
		t.Fatalf("started with an unknown flag; stop: %v", c.Stop())
	}
	for _, want := range []string{"kube-apiserver ended unasked: exit status 1", "unknown flag: --no-such-flag"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error:\n got %q\nwant %q in it", err, want)
		}
	}
}

// TestOptions shows that all problems are reported at once.
func TestOptions(t *testing.T) {
	_, err := cluster.Start(t.Context(), cluster.Options{ServiceRange: "10.0.0.0", Users: []cluster.User{{Name: "admin"}}})
	for _, want := range []string{"Dir is empty", "ServiceRange: ", `name "admin"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error:\n got %v\nwant %q in it", err, want)
		}
	}
}

// testContext ends before go test's own time limit, so that a build which takes too long is explained and not dumped.
func testContext(t *testing.T) context.Context {
	deadline, ok := t.Deadline()
	if !ok {
		return t.Context()
	}
	const margin = 20 * time.Second
	ctx, cancel := context.WithDeadlineCause(t.Context(), deadline.Add(-margin),
		errors.New("the -timeout of go test is near"))
	t.Cleanup(cancel)
	return ctx
}

func startCluster(ctx context.Context, t *testing.T, options cluster.Options) *cluster.Cluster {
	t.Helper()
	options.Dir, options.Log = t.TempDir(), t.Output()
	began := time.Now()
	c, err := cluster.Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %s", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		began := time.Now()
		if err := c.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		t.Logf("stopped in %s", time.Since(began).Round(time.Millisecond))
	})
	return c
}

// listenOnClusterIP listens where the API server would call a webhook behind the service hook.
func listenOnClusterIP(ctx context.Context, t *testing.T, c *cluster.Cluster) {
	t.Helper()
	service, err := c.Client().CoreV1().Services("smoke").Get(ctx, "hook", metav1.GetOptions{})
	if err != nil {
		t.Fatalf("get the service: %v", err)
	}
	ip, err := netip.ParseAddr(service.Spec.ClusterIP)
	if err != nil || !ip.IsLoopback() {
		t.Fatalf("ClusterIP: got %q, want a loopback address (%v)", service.Spec.ClusterIP, err)
	}
	port := "443"
	if os.Geteuid() != 0 {
		port = "0" // ports below 1024 need root; the address is what matters here
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip.String(), port))
	if err != nil {
		t.Fatalf("listen on the ClusterIP: %v", err)
	}
	listener.Close()
}

func apiServerAddress(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	rc, err := c.RESTConfig("admin")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(rc.Host, "https://")
}
