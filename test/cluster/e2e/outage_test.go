package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// unavailable is what kubectl puts in front of "could not be checked".
const unavailable = `Error from server (ServiceUnavailable): error when creating "STDIN": `

// TestRegistryStopped: what was proved goes on being admitted; what is new is refused with the advice to try again, and
// trying again helps once the registry is back.
func TestRegistryStopped(t *testing.T) {
	s := newSession(t, "outage")
	proved, unknown := newImage(t, true), newImage(t, true)
	s.ok(newPod("first", w.ref(proved)), "create", "-f", "-")
	start := stopRegistry(t, "stop-registry")

	s.ok(newPod("second", w.ref(proved)), "create", "-f", "-")
	checkPinned(t, s.pod("second"), dev(proved))
	s.ok(newWorkload("Deployment", object{"containers": []any{container("dev", w.ref(proved))}}), "create", "-f", "-")
	checkPods(s, "app=deployment", dev(proved))
	noRequests(t)

	refusal := []string{
		"Image " + w.ref(unknown) + " could not be checked: " + w.Registry + " broke the connection; try again.",
		"- containers[dev]: pinned: could not be checked: " + w.Registry + " broke the connection",
	}
	s.checkRefusal(s.refused(newPod("new", w.ref(unknown)), "create", "-f", "-"), unavailable, refusal...)
	s.contains(s.refused(newWorkload("Job", object{"containers": []any{container("dev", w.ref(unknown))}}), "create", "-f", "-"),
		unavailable+denied+refusal[0])
	s.contains(s.refused(newPod("new", foreignImage), "create", "-f", "-"), fromServer) // this is known all the same
	s.contains(s.refused(nil, "debug", "first", "--container=d", "--image="+w.ref(unknown)),
		"Error from server (ServiceUnavailable): "+denied+refusal[0])

	t.Run("warn mode", func(t *testing.T) {
		s := newSession(t, "warn")
		_, stderr, err := s.kubectl(newPod("new", w.ref(unknown)), "create", "-f", "-")
		if err != nil {
			t.Fatal(err)
		}
		s.contains(stderr, "Warning: hallmark: containers[dev]: ", "could not be checked: "+w.Registry+" broke the connection")
	})
	start()
	s.ok(newPod("new", w.ref(unknown)), "create", "-f", "-")
	checkPinned(t, s.pod("new"), dev(unknown))
}

// TestRegistryStalled: the webhook answers before the API server gives up, so that the developer reads why.
func TestRegistryStalled(t *testing.T) {
	s := newSession(t, "outage")
	unknown := newImage(t, true)
	stopRegistry(t, "stall-registry")
	s.checkRefusal(s.refused(newPod("new", w.ref(unknown)), "create", "-f", "-"), unavailable,
		"Image "+w.ref(unknown)+" could not be checked: "+w.Registry+" did not answer within 3s; try again.",
		"- containers[dev]: pinned: could not be checked: "+w.Registry+" did not answer within 3s")
}

// stopWebhook ends the process until the test ends or calls the function, which returns when the webhook works again.
func stopWebhook(t *testing.T) (start func()) {
	t.Helper()
	if err := w.hallmark.stop(); err != nil {
		t.Errorf("stop hallmark: %v", err)
	}
	start = sync.OnceFunc(func() {
		ctx := context.Background() // that of the test is done when it cleans up
		var err error
		if w.hallmark, err = startHallmark(ctx, w.dir, w.log(), w.listen, w.Fixture); err != nil {
			t.Fatal(err)
		}
		if err := w.waitRegistered(ctx); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(start)
	return start
}

// TestWebhookStopped: no pod gets in unjudged, the error says who does not answer, and the rest of the cluster goes on.
func TestWebhookStopped(t *testing.T) {
	s, gone := newSession(t, "down"), newSession(t, "gone")
	admin := s.as("admin")
	good := newPod("good", w.ref("golden/ws:v1.0.0"))
	for _, name := range []string{"deleted", "running"} {
		s.ok(newPod(name, w.ref("golden/ws:v1.0.0")), "create", "-f", "-")
	}
	gone.ok(good, "create", "-f", "-")
	s.ok(newWorkload("Deployment", object{"containers": []any{container("dev", w.ref("golden/ws:v1.0.0"))}}), "create", "-f", "-")
	checkPods(s, "app=deployment", dev("golden/ws:v1.0.0"))
	start := stopWebhook(t)
	namespaces := w.Client().CoreV1().Namespaces()
	if err := namespaces.Delete(t.Context(), gone.namespace, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}

	for title, refused := range map[string]string{
		"create":     s.refused(good, "create", "-f", "-"),
		"run":        s.refused(nil, "run", "new", "--image="+foreignImage),
		"set image":  s.refused(nil, "set", "image", "pod/running", "dev="+foreignImage),
		"debug":      s.refused(nil, "debug", "running", "--image="+foreignImage),
		"deployment": s.refused(nil, "create", "deployment", "new", "--image="+foreignImage),
	} {
		if !strings.Contains(refused, `failed calling webhook "judge.hallmark.dev"`) || strings.Contains(refused, "pin.hallmark.dev") {
			t.Errorf("%s: %s", title, refused)
		}
	}
	s.contains(s.refused(good, "create", "-f", "-"), `Error from server (InternalError): error when creating "STDIN": Internal error occurred: `)

	t.Run("what has no image", func(t *testing.T) {
		s := s.on(t)
		s.ok(nil, "create", "configmap", "x")
		pod := s.pod("running")
		pod.Status.Phase = corev1.PodRunning
		if _, err := w.Client().CoreV1().Pods(s.namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{GenerateName: "n1-"}}
		if _, err := w.Client().CoordinationV1().Leases("kube-node-lease").Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("kube-system", func(t *testing.T) {
		s := admin.on(t).in("kube-system")
		s.ok(newPod("while-down", foreignImage), "create", "-f", "-")
		s.ok(nil, "delete", "pod", "while-down")
	})
	t.Run("deletion of a namespace", func(t *testing.T) { // for which its controller takes 5 seconds
		s.on(t).eventually(func() error {
			_, err := namespaces.Get(t.Context(), gone.namespace, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("namespace %s is not gone: %q", gone.namespace, apierrors.ReasonForError(err))
		})
	})
	t.Run("deletion of pods", func(t *testing.T) {
		s := s.on(t)
		s.ok(nil, "delete", "pod", "deleted")
		s.absent("deleted")
		s.ok(nil, "scale", "deployment/deployment", "--replicas=2")
		s.ok(nil, "delete", "pod", "--selector=app=deployment")
	})

	start()
	s.ok(good, "create", "-f", "-")
	checkPinned(t, s.pod("good"), dev("golden/ws:v1.0.0"))
	s.eventually(func() error { // the controller tries again
		list, err := w.Client().CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=deployment"})
		if err == nil && len(list.Items) != 2 {
			err = fmt.Errorf("the deployment has %d pods of 2", len(list.Items))
		}
		return err
	})
	checkPods(s, "app=deployment", dev("golden/ws:v1.0.0"))
}
