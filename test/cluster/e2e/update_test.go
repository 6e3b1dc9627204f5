package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestNothingNew: what starts no other image passes while the registry is down, and nobody asks the registry.
func TestNothingNew(t *testing.T) {
	s := newSession(t, "updates")
	admin := s.as("admin")
	good := w.ref("golden/ws:v1.0.0")
	limits := object{"requests": object{"cpu": "10m"}, "limits": object{"cpu": "1"}}
	sized := container("dev", good)
	sized["resources"] = limits
	s.ok(newPod("ws", "").with("containers", []any{sized}), "create", "-f", "-")
	for _, name := range []string{"deleted", "evicted"} {
		s.ok(newPod(name, good), "create", "-f", "-")
	}
	s.ok(newPod("held", good).meta("finalizers", []string{"example.com/hold"}), "create", "-f", "-")
	s.ok(newWorkload("Deployment", object{"containers": []any{container("dev", good)}}), "create", "-f", "-")
	s.ok(newWorkload("CronJob", object{"containers": []any{container("dev", good)}}), "create", "-f", "-")
	checkPods(s, "app=deployment", dev("golden/ws:v1.0.0"))
	stopRegistry(t, "stop-registry")

	for title, args := range map[string][]string{
		"label":                     {"label", "pod", "ws", "example.com/a=b"},
		"annotate":                  {"annotate", "pod", "ws", "example.com/a=b"},
		"our annotation removed":    {"annotate", "pod", "ws", "hallmark.dev/images-"},
		"finalizer":                 {"patch", "pod", "ws", "-p", `{"metadata":{"finalizers":["example.com/later"]}}`},
		"toleration":                {"patch", "pod", "ws", "-p", `{"spec":{"tolerations":[{"key":"example.com/t","operator":"Exists"}]}}`},
		"resize":                    {"patch", "pod", "ws", "--subresource=resize", "-p", `{"spec":{"containers":[{"name":"dev","resources":{"requests":{"cpu":"20m"}}}]}}`},
		"label of a deployment":     {"label", "deployment", "deployment", "example.com/a=b"},
		"replicas of a deployment":  {"patch", "deployment", "deployment", "-p", `{"spec":{"minReadySeconds":1}}`},
		"scale subresource":         {"scale", "deployment/deployment", "--replicas=0"},
		"schedule of a cron job":    {"patch", "cronjob", "cronjob", "-p", `{"spec":{"suspend":true}}`},
		"delete":                    {"delete", "pod", "deleted"},
		"label of an old bad pod":   {"label", "pod", "updated", "example.com/a=b", "--namespace=" + legacyNamespace},
		"deletion with a finalizer": {"delete", "pod", "held", "--wait=false"},
		"deletion of an old bad pod with a finalizer": {"delete", "pod", "held", "--wait=false", "--namespace=" + legacyNamespace},
	} {
		t.Run(title, func(t *testing.T) { s.on(t).ok(nil, args...) })
	}
	for title, namespace := range map[string]string{"finalizer removed": s.namespace, "finalizer of an old bad pod removed": legacyNamespace} {
		t.Run(title, func(t *testing.T) {
			s := s.on(t).in(namespace)
			s.ok(nil, "patch", "pod", "held", "-p", `{"metadata":{"finalizers":null}}`)
			s.ok(nil, "wait", "--for=delete", "pod/held", "--timeout=10s")
			s.absent("held")
		})
	}
	t.Run("status", func(t *testing.T) {
		pod := s.on(t).pod("ws")
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if _, err := w.Client().CoreV1().Pods(s.namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
		admin.on(t).ok(nil, "patch", "deployment", "deployment", "--subresource=status", "-p", `{"status":{"collisionCount":1}}`)
	})
	t.Run("eviction", func(t *testing.T) {
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "evicted", Namespace: s.namespace}}
		if err := w.Client().CoreV1().Pods(s.namespace).EvictV1(t.Context(), eviction); err != nil {
			t.Error(err)
		}
		s.on(t).absent("evicted")
	})
	noRequests(t)
}

// TestTerminatingPod: a pod that is being deleted still runs, so another image is judged.
func TestTerminatingPod(t *testing.T) {
	s := newSession(t, "terminating")
	s.ok(newPod("ws", w.ref("golden/ws:v1.0.0")).meta("finalizers", []string{"example.com/hold"}), "create", "-f", "-")
	s.ok(nil, "delete", "pod", "ws", "--wait=false")
	if s.pod("ws").DeletionTimestamp == nil {
		t.Fatal("the pod is not terminating")
	}
	s.contains(s.refused(nil, "set", "image", "pod/ws", "dev="+foreignImage), denied+"Image "+foreignImage+" is not allowed")
	s.contains(s.refused(nil, "set", "image", "pod/ws", "dev="+w.ref("golden/ws:v9.9.9")), "signature: not signed by ci")
	s.contains(s.refused(nil, "patch", "pod", "ws", "-p",
		`{"metadata":{"finalizers":null},"spec":{"containers":[{"name":"dev","image":"`+foreignImage+`"}]}}`), "is not allowed")
	s.ok(nil, "set", "image", "pod/ws", "dev="+w.ref("golden/ws:v1.0.1"))
	checkPinned(t, s.pod("ws"), dev("golden/ws:v1.0.1"))
	s.ok(nil, "patch", "pod", "ws", "-p", `{"metadata":{"finalizers":null}}`)
	s.ok(nil, "wait", "--for=delete", "pod/ws", "--timeout=10s")
}
