package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// workloads are all kinds that have a pod template.
func workloads() []string {
	return []string{
		"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "PodTemplate",
	}
}

// newWorkload has the name of its kind in lower case, and its pods have the label app with the same.
func newWorkload(kind string, pod object) object {
	name := strings.ToLower(kind)
	labels := object{"app": name}
	spec := object{}
	for field, value := range pod {
		spec[field] = value
	}
	template := object{"metadata": object{"labels": labels}, "spec": spec}
	o := object{"apiVersion": "apps/v1", "kind": kind, "metadata": object{"name": name}}
	selector := object{"matchLabels": labels}
	switch kind {
	case "Deployment", "ReplicaSet", "DaemonSet", "StatefulSet":
		o["spec"] = object{"selector": selector, "template": template}
	case "ReplicationController":
		o["apiVersion"] = "v1"
		o["spec"] = object{"selector": labels, "template": template}
	case "PodTemplate":
		o["apiVersion"] = "v1"
		o["template"] = template
	case "Job":
		spec["restartPolicy"] = "Never"
		o["apiVersion"], o["spec"] = "batch/v1", object{"template": template}
	case "CronJob":
		spec["restartPolicy"] = "Never"
		o["apiVersion"] = "batch/v1"
		o["spec"] = object{"schedule": "@yearly", "jobTemplate": object{"spec": object{"template": template}}}
	}
	return o
}

// template finds the pod template of a stored workload.
func template(t *testing.T, text string) (metadata, spec string) {
	t.Helper()
	type podTemplate struct{ Metadata, Spec json.RawMessage }
	var o struct {
		Template podTemplate
		Spec     struct {
			Template    podTemplate
			JobTemplate struct {
				Spec struct{ Template podTemplate }
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	for _, p := range []podTemplate{o.Template, o.Spec.Template, o.Spec.JobTemplate.Spec.Template} {
		if p.Spec != nil {
			return string(p.Metadata), string(p.Spec)
		}
	}
	t.Fatalf("no pod template in %s", text)
	return "", ""
}

// TestWorkloads: a workload with a bad image is refused at once. A good one is stored as it was written, which what is
// stored in a namespace without the webhook shows; its pods are pinned.
func TestWorkloads(t *testing.T) {
	s := newSession(t, "workloads")
	for _, kind := range workloads() {
		t.Run(kind, func(t *testing.T) {
			s := s.on(t)
			spec, images := everywhere()
			bad, _ := everywhere()
			bad["initContainers"] = []any{container("setup", foreignImage)}
			s.checkRefusal(s.refused(newWorkload(kind, bad), "create", "-f", "-"), fromServer,
				"Image "+foreignImage+" is not allowed.",
				"- initContainers[setup]: golden: x is not a golden image",
				"- initContainers[setup]: registry: evil.example is not an internal registry")

			o := newWorkload(kind, spec)
			_, want := template(t, s.in("kube-system").ok(o, "create", "--dry-run=server", "-f", "-", "-o", "json"))
			stored := s.ok(o, "create", "-f", "-", "-o", "json")
			metadata, got := template(t, stored)
			if got != want {
				t.Errorf("stored as\n%s\nwant\n%s", got, want)
			}
			if strings.Contains(stored, "hallmark.dev/") || strings.Contains(metadata, "annotations") {
				t.Errorf("the workload was annotated: %s", stored)
			}
			switch kind {
			case "PodTemplate":
				return // nothing makes pods of it
			case "CronJob": // the next year is far
				s.ok(nil, "create", "job", "from-cronjob", "--from=cronjob/cronjob")
			}
			checkPods(s, "app="+strings.ToLower(kind), images)
		})
	}
}

// checkPods waits for the pods of a workload.
func checkPods(s session, selector string, images map[string]string) {
	s.Helper()
	pods := w.Client().CoreV1().Pods(s.namespace)
	s.eventually(func() error {
		list, err := pods.List(s.Context(), metav1.ListOptions{LabelSelector: selector})
		if err == nil && len(list.Items) == 0 {
			err = fmt.Errorf("no pods with %s yet", selector)
		}
		return err
	})
	list, err := pods.List(s.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		s.Fatal(err)
	}
	for i := range list.Items {
		checkPinned(s.T, &list.Items[i], images)
	}
}

// TestWorkloadChanges: another image of a workload is judged when it is set, and pinned in its pods.
func TestWorkloadChanges(t *testing.T) {
	s := newSession(t, "workloads")
	s.ok(nil, "create", "deployment", "web", "--image="+w.ref("golden/ws:v1.0.0"))
	checkPods(s, "app=web", map[string]string{"containers[ws]": "golden/ws:v1.0.0"})
	s.contains(s.refused(nil, "set", "image", "deployment/web", "ws="+w.ref("golden/ws:v9.9.9")), "- containers[ws]: signature: not signed")
	s.ok(nil, "set", "image", "deployment/web", "ws="+w.ref("golden/ws:v1.0.1"))
	s.eventually(func() error {
		list, err := w.Client().CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		for _, pod := range list.Items {
			if placesOf(&pod.Spec)["containers[ws]"] == w.pinned("golden/ws:v1.0.1") {
				return nil
			}
		}
		return errors.New("no pod with the new image yet")
	})
	deployment, err := w.Client().AppsV1().Deployments(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := deployment.Spec.Template.Spec.Containers[0].Image; got != w.ref("golden/ws:v1.0.1") {
		t.Errorf("the deployment has %s", got)
	}
}
