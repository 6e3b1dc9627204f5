package nodee2e

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestDoctor: helm test says what of the pods that run enforcement would refuse, then that all is well, and leaves no rights
// behind.
func TestDoctor(t *testing.T) {
	install(t)
	settled(t)
	namespace := freeNamespace(t, "doctor")
	pods := w.Client().CoreV1().Pods(namespace)
	for name, image := range map[string]string{"good": goodImage, "bad": unsignedImage} {
		if _, err := pods.Create(t.Context(), newPod(name, image), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	label(t, namespace)

	_, err := w.helm(t.Context(), nil, "test", release, timeout())
	if err == nil {
		t.Fatal("the doctor found nothing wrong with an unsigned image")
	}
	for _, want := range []string{"1 of 2 running pods in scope would be refused under mode enforce", w.ref(unsignedImage), namespace + "/bad"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the report does not say %q:\n%s", want, err)
		}
	}
	now := int64(0)
	if err := pods.Delete(t.Context(), "bad", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	report, err := w.helm(t.Context(), nil, "test", release, timeout())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	roles := w.Client().RbacV1().ClusterRoles()
	if _, err := roles.Get(t.Context(), "hallmark-doctor", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the doctor is gone, and its rights are not: %v", err)
	}
	if _, err := w.Client().CoreV1().Pods(releaseNamespace).Get(t.Context(), "hallmark-doctor", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the doctor is still there: %v", err)
	}
}
