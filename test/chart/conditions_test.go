package chart

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
)

// podOf is a pod with containers of these images, the minimal one.
func podOf(images ...string) *corev1.Pod {
	p := &corev1.Pod{}
	p.Name, p.Namespace = "ws", "dev"
	for n, image := range images {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", n), Image: image})
	}
	return p
}

// changed is a copy of an object with one thing changed.
func changed[T runtime.Object](o T, change func(T)) T {
	c := o.DeepCopyObject().(T)
	change(c)
	return c
}

// TestCalled: an update of what was judged before does not need the webhook, and whatever could bring an image does. None of
// it is in the hands of users.
func TestCalled(t *testing.T) {
	pod := podOf("a")
	deployment := &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: pod.Spec}}}
	cron := &batchv1.CronJob{Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: deployment.Spec.Template}}}}
	template := &corev1.PodTemplate{Template: deployment.Spec.Template}
	controller := &corev1.ReplicationController{}
	for name, tc := range map[string]struct {
		resource, subresource string
		object, old           runtime.Object
		want                  bool
	}{
		"create":              {"pods", "", pod, nil, true},
		"create an empty pod": {"pods", "", &corev1.Pod{}, nil, true},
		"create with labels and annotations that ask for nothing": {"pods", "", changed(pod, func(p *corev1.Pod) {
			p.Labels = map[string]string{"hallmark.dev/exempt": "true"}
			p.Annotations = map[string]string{"hallmark.dev/ignore": "true", "kubernetes.io/config.mirror": "x"}
		}), nil, true},
		"no change": {"pods", "", pod, pod, false},
		"label":     {"pods", "", changed(pod, func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }), pod, false},
		"finalizer": {"pods", "", changed(pod, func(p *corev1.Pod) { p.Finalizers = []string{"a"} }), pod, false},
		"status":    {"pods", "", changed(pod, func(p *corev1.Pod) { p.Status.Phase = "Running" }), pod, false},
		"image":     {"pods", "", changed(pod, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "b" }), pod, true},
		"image and label": {"pods", "", changed(pod, func(p *corev1.Pod) {
			p.Labels, p.Spec.Containers[0].Image = map[string]string{"a": "b"}, "b"
		}), pod, true},
		"ephemeral container": {"pods", "ephemeralcontainers", changed(pod, func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "d", Image: "b"}}}
		}), pod, true},
		"image volume": {"pods", "", changed(pod, func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "b"}}}}
		}), pod, true},
		"user": {"pods", "", changed(pod, func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64)} }), pod, true},
		"env": {"pods", "", changed(pod, func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "CODER_INNER_IMAGE", Value: "b"}}
		}), pod, true},
		"replicas":            {"deployments", "", changed(deployment, func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32) }), deployment, false},
		"template":            {"deployments", "", changed(deployment, func(d *appsv1.Deployment) { d.Spec.Template.Spec.InitContainers = pod.Spec.Containers }), deployment, true},
		"no template":         {"replicationcontrollers", "", controller, changed(controller, func(c *corev1.ReplicationController) { c.Labels = map[string]string{"a": "b"} }), false},
		"a template, at last": {"replicationcontrollers", "", changed(controller, func(c *corev1.ReplicationController) { c.Spec.Template = &deployment.Spec.Template }), controller, true},
		"schedule":            {"cronjobs", "", changed(cron, func(c *batchv1.CronJob) { c.Spec.Schedule = "@daily" }), cron, true},
		"job template":        {"cronjobs", "", changed(cron, func(c *batchv1.CronJob) { c.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Image = "b" }), cron, true},
		"pod template":        {"podtemplates", "", changed(template, func(p *corev1.PodTemplate) { p.Template.Spec.Containers[0].Image = "b" }), template, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := request{operation: admission.Create, resource: tc.resource, subresource: tc.subresource, object: tc.object, namespace: "dev"}
			if tc.old != nil {
				r.operation, r.old = admission.Update, tc.old
			}
			i := install(t, ``)
			for _, e := range []entry{i.pin(), i.judge()} {
				if got := e.called(t, r); got != tc.want {
					t.Errorf("%s is called: %t, want %t", e.name, got, tc.want)
				}
			}
		})
	}
}

// TestConditionsNeverErr: neither a match condition nor a policy errs on a pod, whatever it leaves out. With the failure
// policy Fail, an error refuses the request.
func TestConditionsNeverErr(t *testing.T) {
	i := install(t, enforceValues)
	pin, judge := i.pin(), i.judge()
	modes := install(t, sets()["modes"])
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		object, old := randomPod(t, random), randomPod(t, random)
		for _, r := range []request{
			{operation: admission.Create, resource: "pods", object: object, namespace: "dev"},
			{operation: admission.Update, resource: "pods", object: object, old: old, namespace: "sandbox-1", user: "eve", groups: []string{"a"}},
			{operation: admission.Update, resource: "pods", subresource: "ephemeralcontainers", object: object, old: old, namespace: "research-1"},
		} {
			pin.called(t, r)
			judge.called(t, r)
			for _, i := range []*installed{i, modes} {
				for _, p := range i.backstops() {
					refusals(t, p, r)
				}
			}
			if t.Failed() {
				text, _ := json.Marshal(object)
				t.Fatalf("seed %d, %s of %s", seed, r.operation, text)
			}
		}
	}
}

// fullPod has at least one of everything that match conditions and policies look at.
const fullPod = `{
	"metadata": {"name": "ws", "namespace": "dev", "labels": {"a": "b"}, "annotations": {"kubernetes.io/config.mirror": "x"}},
	"spec": {
		"securityContext": {"runAsUser": 1}, "nodeName": "n1",
		"initContainers": [{"name": "i", "image": "registry.corp.example:5000/golden/a:v1"}, {"name": "s", "restartPolicy": "Always"}],
		"containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "", "env": [{"name": "A", "value": "B"}]}],
		"ephemeralContainers": [{"name": "e", "image": "y@sha256:1111111111111111111111111111111111111111111111111111111111111111"}, {"name": "f"}],
		"volumes": [{"name": "v", "image": {"reference": "z", "pullPolicy": "Always"}}, {"name": "w", "image": {}}, {"name": "u", "emptyDir": {}}]
	},
	"status": {"phase": "Running"}
}`

// randomPod leaves out of fullPod whatever chance decides.
func randomPod(t *testing.T, random *rand.Rand) *corev1.Pod {
	t.Helper()
	var whole any
	if err := json.Unmarshal([]byte(fullPod), &whole); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(thinned(whole, random))
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := json.Unmarshal(text, &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}

func thinned(value any, random *rand.Rand) any {
	switch v := value.(type) {
	case map[string]any:
		maps.DeleteFunc(v, func(string, any) bool { return random.IntN(4) == 0 })
		for key := range v {
			v[key] = thinned(v[key], random)
		}
	case []any:
		v = v[:random.IntN(len(v)+1)]
		for n := range v {
			v[n] = thinned(v[n], random)
		}
		return v
	}
	return value
}
