package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// doctor is the pod of hallmark doctor, nil for none.
func (i *installed) doctor() *corev1.Pod {
	pods := all[*corev1.Pod](i.hooks)
	if len(pods) == 0 {
		return nil
	}
	return pods[0]
}

// TestDoctor: its pod decides by what the webhook decides by; its rights are those that it needs, and they end with it.
func TestDoctor(t *testing.T) {
	i := install(t, enforceValues)
	doctor, webhook := i.doctor(), i.container("webhook")
	for _, arg := range doctor.Spec.Containers[0].Args[1:] {
		if !strings.HasPrefix(arg, "--name=") && !strings.HasPrefix(arg, "--tls-secret=") && !slices.Contains(webhook.Args, arg) {
			t.Errorf("the webhook has no argument %s", arg)
		}
	}
	for _, mount := range webhook.VolumeMounts {
		same := func(m corev1.VolumeMount) bool { return m.Name == mount.Name && m.MountPath == mount.MountPath }
		if mount.Name != "tls" && mount.Name != "cache" && !slices.ContainsFunc(doctor.Spec.Containers[0].VolumeMounts, same) {
			t.Errorf("the webhook has %s at %s, and the doctor has not", mount.Name, mount.MountPath)
		}
	}
	var rights []string
	for _, role := range all[*rbacv1.Role](i.hooks) {
		for _, r := range role.Rules {
			rights = append(rights, fmt.Sprintf("%v of %v %v in the namespace", r.Verbs, r.Resources, r.ResourceNames))
		}
	}
	for _, role := range all[*rbacv1.ClusterRole](i.hooks) {
		for _, r := range role.Rules {
			rights = append(rights, fmt.Sprintf("%v of %v %v", r.Verbs, r.Resources, r.ResourceNames))
		}
	}
	want := []string{
		"[get] of [secrets] [hallmark-tls] in the namespace",
		"[get] of [deployments] [hallmark-webhook] in the namespace",
		"[get] of [mutatingwebhookconfigurations validatingwebhookconfigurations] [hallmark]",
		"[list] of [namespaces pods] []",
	}
	if !slices.Equal(rights, want) {
		t.Errorf("rights:\n%s\nwant\n%s", strings.Join(rights, "\n"), strings.Join(want, "\n"))
	}
	for _, object := range i.hooks.objects {
		accessor, err := meta.Accessor(object)
		if err != nil {
			t.Fatal(err)
		}
		annotations := accessor.GetAnnotations()
		if annotations["helm.sh/hook"] != "test" || !strings.Contains(annotations["helm.sh/hook-delete-policy"], "hook-succeeded") {
			t.Errorf("%T %s stays: %v", object, accessor.GetName(), annotations)
		}
	}
	if hooks := install(t, `{doctor: {hooks: [test, post-upgrade]}}`).doctor().Annotations["helm.sh/hook"]; hooks != "test,post-upgrade" {
		t.Errorf("it runs at %q", hooks)
	}
	if left := install(t, `{doctor: {enabled: false}}`).hooks.objects; left != nil {
		t.Errorf("switched off, it leaves %v", left)
	}
}
