package nodee2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
	"github.com/hallmark-admission/hallmark/test/cluster/node"
	"github.com/hallmark-admission/hallmark/test/cluster/sandbox"
)

const (
	release          = "hallmark"
	releaseNamespace = "hallmark-system"
	webhook          = "hallmark-webhook"
	controller       = "hallmark-controller"

	// enforceLabel has a namespace judged.
	enforceLabel = "hallmark.dev/enforce"
	// deniedBy is what a refusal begins with.
	deniedBy = `admission webhook "judge.hallmark.dev" denied the request: `
)

type object = map[string]any

// values install the image of this checkout, with the registry of the suite and everything enforced.
func (w *world) values() object {
	golden := func(name string) object {
		return object{"name": name, "repository": w.ref("golden/" + name), "owner": "devex", "signers": []any{"ci"}, "defaultTag": "v1.0.0"}
	}
	return object{
		"image": object{"repository": w.ref("hallmark/hallmark"), "digest": w.Digests[hallmarkImage]},
		// An authority may issue after a tenth of this life, when every API server has heard of it, and not after two minutes.
		"controller": object{"extraArgs": []any{"--cert-lifetime=5m", "--ca-lifetime=1h"}},
		"files":      object{"registry": object{"configMap": "corp-registry"}},
		"config": object{
			"mode": "enforce",
			"registries": []any{object{
				"host": w.Registry, "ca": "/etc/hallmark/registry/ca.pem", "repositories": []any{"golden/**"},
			}},
			"tags":         object{"allow": []any{"exact"}},
			"signers":      object{"ci": object{"key": w.Signer}},
			"signatures":   []any{object{"match": []any{w.ref("**")}, "anyOf": []any{"ci"}}},
			"goldenImages": []any{golden("workspace"), golden("ws")},
		},
	}
}

// helm runs Helm on a chart and with values, in the namespace of the release.
func (w *world) helm(ctx context.Context, values object, args ...string) (string, error) {
	args = append(args, "--namespace="+releaseNamespace, "--kubeconfig="+w.Kubeconfig())
	cmd := exec.CommandContext(ctx, filepath.Join(w.Binaries(), binaries.Helm), args...)
	if values != nil {
		text, err := json.Marshal(values) // which is YAML too
		if err != nil {
			return "", err
		}
		cmd.Args = append(cmd.Args, "--values=-")
		cmd.Stdin = strings.NewReader(string(text))
	}
	cmd.Env = []string{"HOME=" + w.dir, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// timeout is how long helm and kubectl wait, in their words.
func timeout() string { return "--timeout=" + patience().String() }

// prepareRelease makes what the release finds when it comes: its namespace with the registry's authority, and, for
// judging what it leaves, the list of all objects.
func (w *world) prepareRelease(ctx context.Context) error {
	if err := w.CreateNamespace(ctx, releaseNamespace); err != nil {
		return err
	}
	authority, err := os.ReadFile(w.Authority)
	if err != nil {
		return err
	}
	_, err = w.Client().CoreV1().ConfigMaps(releaseNamespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "corp-registry"}, Data: map[string]string{"ca.pem": string(authority)},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	err = poll(ctx, func() error { // until the node has its Lease, the last object that the cluster makes by itself
		_, err := w.Client().CoordinationV1().Leases("kube-node-lease").Get(ctx, node.Name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return err
	}
	w.before, err = w.objects(ctx)
	return err
}

// install installs the chart unless it is there.
func install(t *testing.T) {
	t.Helper()
	keepLogs(t)
	if !w.installed {
		installWith(t, w.values())
	}
}

// keepLogs has what the release logged kept with the logs of the servers, should the test fail. Kubelet removes it with the
// pods.
func keepLogs(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		path := filepath.Join(sandbox.LogDir(w.dir), t.Name()+".log")
		if err := os.WriteFile(path, []byte(describeRelease(t)), 0o600); err != nil {
			t.Error(err)
		}
	})
}

func installWith(t *testing.T, values object) {
	t.Helper()
	began := time.Now()
	_, err := w.helm(t.Context(), values, "install", release, w.chart, "--wait", timeout())
	w.installed = true // or in part, which uninstall removes too
	if err != nil {
		t.Fatal(err)
	}
	say(t, "helm install --wait: %s", time.Since(began).Round(100*time.Millisecond))
}

// uninstall removes the release if it is there.
func uninstall(t *testing.T) {
	t.Helper()
	if !w.installed {
		return
	}
	began := time.Now()
	if _, err := w.helm(t.Context(), nil, "uninstall", release, "--wait", timeout()); err != nil {
		t.Fatal(err)
	}
	w.installed = false
	say(t, "helm uninstall --wait: %s", time.Since(began).Round(100*time.Millisecond))
}

// describeRelease is what an administrator would look at.
func describeRelease(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "--output=wide"}, {"describe", "pods"},
		{"logs", "--selector=app.kubernetes.io/component=controller", "--tail=1000", "--prefix"},
		{"logs", "--selector=app.kubernetes.io/component=webhook", "--tail=1000", "--prefix"},
	} {
		out, _, err := w.Kubectl(context.WithoutCancel(t.Context()), "", append(args, "--namespace="+releaseNamespace)...)
		fmt.Fprintf(&text, "$ kubectl %s\n%s", strings.Join(args, " "), out)
		if err != nil {
			fmt.Fprintln(&text, err)
		}
	}
	return text.String()
}

// TestInstall: Helm returns when the webhook judges, and at no moment before does it get into anybody's way.
func TestInstall(t *testing.T) {
	keepLogs(t)
	uninstall(t)
	namespace := newNamespace(t, "install")
	eventually(t, func() error { // API servers learn of an uninstallation a moment later
		_, err := try(t.Context(), namespace, goodImage)
		return err
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan []string)
	creates := 0
	go func() { // one create after another, from before the installation to behind it
		var failures []string
		for ; ctx.Err() == nil; creates++ {
			if _, err := try(t.Context(), namespace, goodImage); err != nil {
				failures = append(failures, fmt.Sprintf("create %d: %v", creates, err))
			}
		}
		done <- failures
	}()
	installWith(t, w.values())
	pod, err := try(t.Context(), namespace, goodImage)
	if err != nil {
		t.Error(err)
	} else if got, want := pod.Spec.Containers[0].Image, w.pinned(goodImage); got != want {
		t.Errorf("image after helm install --wait: got %s, want %s", got, want)
	}
	_, err = try(t.Context(), namespace, unsignedImage)
	checkDenied(t, err)
	stop()
	failures := <-done
	for _, failure := range failures[:min(3, len(failures))] {
		t.Error(failure)
	}
	say(t, "%d of %d creates failed from before the installation to behind it", len(failures), creates)
}

// newNamespace makes a namespace that is judged.
func newNamespace(t *testing.T, name string) string {
	t.Helper()
	name = freeNamespace(t, name)
	label(t, name)
	return name
}

// freeNamespace makes one that is not judged, or not yet.
func freeNamespace(t *testing.T, name string) string {
	t.Helper()
	name = testPrefix + name
	if err := w.CreateNamespace(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, _, err := w.Kubectl(ctx, "", "delete", "namespace", name, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	return name
}

// label has a namespace judged.
func label(t *testing.T, namespace string) {
	t.Helper()
	if _, _, err := w.Kubectl(t.Context(), "", "label", "namespace", namespace, enforceLabel+"=true"); err != nil {
		t.Fatal(err)
	}
}

// try is a dry run of a pod.
func try(ctx context.Context, namespace, image string) (*corev1.Pod, error) {
	return w.Client().CoreV1().Pods(namespace).Create(ctx, newPod("probe", image),
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// say prints a line that test/suites shows at once, whether the test passes or not.
func say(t *testing.T, format string, args ...any) {
	t.Helper()
	fmt.Printf("timing: %s: %s\n", t.Name(), fmt.Sprintf(format, args...))
}

// eventually waits for a condition that others bring about.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	if err := poll(t.Context(), check); err != nil {
		t.Fatal(err)
	}
}

// poll repeats check until it succeeds, ctx ends or patience is exhausted.
func poll(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience())
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (waited %s)", err, patience())
		}
	}
}
