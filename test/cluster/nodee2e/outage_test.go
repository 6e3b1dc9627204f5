package nodee2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hallmark-admission/hallmark/test/cluster/node"
)

// TestNoReplica: without any webhook no pod gets in unjudged where everything is enforced; all else goes on, the webhook's
// own return above all, which nobody has to help.
func TestNoReplica(t *testing.T) {
	install(t)
	namespace := newNamespace(t, "outage")
	pods := w.Client().CoreV1().Pods(namespace)
	for _, name := range []string{"deleted", "labelled", "running"} {
		if _, err := pods.Create(t.Context(), newPod(name, "golden/workspace:v1.2.0"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	waitPhase(t, namespace, "running")
	lease := renewed(t)

	kubectl(t, "scale", "deployment/"+webhook, "--replicas=0")
	t.Cleanup(func() {
		_, _, err := w.Kubectl(context.WithoutCancel(t.Context()), "", "scale", "deployment/"+webhook, "--replicas=3", "--namespace="+releaseNamespace)
		if err != nil {
			t.Error(err)
		}
	})
	eventually(t, func() error {
		left, err := listPods(t.Context(), releaseNamespace, webhookPods)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d replicas are left", len(left))
		}
		return err
	})

	for _, image := range []string{goodImage, unsignedImage} {
		began := time.Now()
		_, err := try(t.Context(), namespace, image)
		if err == nil || !strings.Contains(err.Error(), `failed calling webhook "judge.hallmark.dev"`) ||
			!strings.Contains(err.Error(), "connection refused") {
			t.Errorf("a pod of %s while nothing judges: got %v, want a refused connection to the webhook", image, err)
		}
		say(t, "refused after %s: %v", time.Since(began).Round(time.Millisecond), err)
	}
	if err := pods.Delete(t.Context(), "deleted", metav1.DeleteOptions{}); err != nil {
		t.Errorf("delete a pod: %v", err)
	}
	eventually(t, func() error { // until kubelet has cleared it away, with its update of the status
		_, err := pods.Get(t.Context(), "deleted", metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("the deleted pod is still there")
		}
		return nil
	})
	for _, args := range [][]string{
		{"label", "pod", "labelled", "outage=yes", "--namespace=" + namespace},
		{"annotate", "node", node.Name, "outage=yes", "--overwrite"},
		{"create", "configmap", "outage", "--namespace=" + namespace},
		{"run", "outage", "--image=" + w.ref(pauseImage), "--namespace=kube-system"},
		{"delete", "pod", "outage", "--namespace=kube-system", "--wait=false"},
		{"run", "outage", "--image=" + w.ref(pauseImage), "--namespace=default", "--dry-run=server"},
	} {
		if _, _, err := w.Kubectl(t.Context(), "", args...); err != nil {
			t.Errorf("while there is no webhook: %v", err)
		}
	}
	eventually(t, func() error {
		if !renewed(t).After(lease) {
			return fmt.Errorf("the lease of the node is not renewed")
		}
		return nil
	})

	kubectl(t, "scale", "deployment/"+webhook, "--replicas=3")
	began := time.Now()
	eventually(t, func() error {
		_, err := try(t.Context(), namespace, goodImage)
		return err
	})
	say(t, "admitted again %s after the first replica was asked for", time.Since(began).Round(100*time.Millisecond))
	_, err := try(t.Context(), namespace, unsignedImage)
	checkDenied(t, err)
	settled(t)
}

// TestColdStart: everything that runs is gone at once, the webhook, its controller and a workspace, as after a power cut, and
// all of it comes back with nobody's help: the webhook judges again, and what it judges starts behind it.
func TestColdStart(t *testing.T) {
	install(t)
	settled(t)
	namespace := newNamespace(t, "cold")
	apply(t, fmt.Sprintf(coderDeployment, "cold", namespace, w.ref("golden/workspace:v1.0.0")))
	before := waitRunning(t, namespace, "com.coder.workspace.name=dev")

	began := time.Now()
	for _, args := range [][]string{
		{"--namespace=" + releaseNamespace}, {"--namespace=" + namespace},
	} {
		if _, _, err := w.Kubectl(t.Context(), "", append([]string{"delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		pods, err := listPods(t.Context(), namespace, "com.coder.workspace.name=dev")
		if err != nil {
			return err
		}
		for _, pod := range pods {
			if pod.UID != before.UID && pod.Status.Phase == corev1.PodRunning {
				if got, want := pod.Spec.Containers[0].Image, w.pinned("golden/workspace:v1.0.0"); got != want {
					t.Errorf("image of the new pod: got %s, want %s", got, want)
				}
				return nil
			}
		}
		return fmt.Errorf("the workspace is not back; %d pods", len(pods))
	})
	say(t, "the workspace runs again %s after everything was gone", time.Since(began).Round(100*time.Millisecond))
	_, err := try(t.Context(), namespace, unsignedImage)
	checkDenied(t, err)
	settled(t)
}

// renewed is when the node last said that it lives.
func renewed(t *testing.T) time.Time {
	t.Helper()
	lease, err := w.Client().CoordinationV1().Leases("kube-node-lease").Get(t.Context(), node.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return lease.Spec.RenewTime.Time
}
