package nodee2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

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

// TestColdStart: the only node is gone, and with it the webhook, its controller and a workspace. When it is back, so are they,
// with nobody's help: the webhook first, whose namespace it does not judge, and the workspace behind it.
func TestColdStart(t *testing.T) {
	install(t)
	settled(t)
	namespace := newNamespace(t, "cold")
	apply(t, fmt.Sprintf(coderDeployment, "cold", namespace, w.ref("golden/workspace:v1.2.0")))
	before := waitRunning(t, namespace, "com.coder.workspace.name=dev")

	kubectl(t, "cordon", node.Name)
	restored := func(ctx context.Context) {
		if _, _, err := w.Kubectl(ctx, "", "uncordon", node.Name); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { restored(context.WithoutCancel(t.Context())) })
	kubectl(t, "delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
	eventually(t, func() error { // until the last container is gone
		_, err := try(t.Context(), namespace, goodImage)
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			return fmt.Errorf("somebody still answers: %w", err)
		}
		return nil
	})
	if err := w.Client().CoreV1().Pods(namespace).Delete(t.Context(), before.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // until its ReplicaSet has heard that nothing gets in unjudged
		events, err := w.Client().CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=FailedCreate"})
		if err == nil && len(events.Items) == 0 {
			err = fmt.Errorf("no creation was refused")
		}
		return err
	})

	began := time.Now()
	restored(t.Context())
	pod := waitRunning(t, namespace, "com.coder.workspace.name=dev")
	if got, want := pod.Spec.Containers[0].Image, w.pinned("golden/workspace:v1.2.0"); got != want {
		t.Errorf("image of the new pod: got %s, want %s", got, want)
	}
	say(t, "the workspace runs again %s after the node came back", time.Since(began).Round(100*time.Millisecond))
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
