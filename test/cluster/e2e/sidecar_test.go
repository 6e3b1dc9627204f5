package e2e

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestInjectedSidecar: another webhook puts a container in front of the others after the pod was pinned. It is pinned
// as well, or the pod refused for it.
func TestInjectedSidecar(t *testing.T) {
	s := newSession(t, "injected")
	sidecar := make(chan string, 1) // the image to inject
	injector := httptest.NewTLSServer(http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		select {
		case image := <-sidecar:
			jsonPatch := admissionv1.PatchTypeJSONPatch
			review.Response.PatchType = &jsonPatch
			review.Response.Patch = []byte(`[{"op":"add","path":"/spec/containers/0","value":{"name":"injected","image":"` + image + `"}}]`)
		default:
		}
		review.Request = nil
		_ = json.NewEncoder(answer).Encode(review)
	}))
	t.Cleanup(injector.Close)
	registerInjector(t, injector, s.namespace)
	s.eventually(func() error { // until the API server knows of it
		s.inject(sidecar, foreignImage)
		if _, _, err := s.kubectl(newPod("probe", w.ref("golden/ws:v1.0.0")), "create", "--dry-run=server", "-f", "-"); err == nil {
			return errors.New("the sidecar is not injected yet")
		}
		return nil
	})

	t.Run("good", func(t *testing.T) {
		s := s.on(t)
		s.inject(sidecar, w.ref("golden/tools:v1.0.0"))
		s.ok(newPod("good", w.ref("golden/ws:v1.0.0")), "create", "-f", "-")
		pod := s.pod("good")
		checkPinned(t, pod, map[string]string{"containers[injected]": "golden/tools:v1.0.0", "containers[dev]": "golden/ws:v1.0.0"})
		if pod.Spec.Containers[0].Name != "injected" {
			t.Error("the sidecar is not the first container")
		}
	})
	t.Run("bad", func(t *testing.T) {
		s := s.on(t)
		s.inject(sidecar, foreignImage)
		s.checkRefusal(s.refused(newPod("bad", w.ref("golden/ws:v1.0.0")), "create", "-f", "-"), fromServer,
			"Image "+foreignImage+" is not allowed.",
			"- containers[injected]: golden: x is not a golden image",
			"- containers[injected]: registry: evil.example is not an internal registry")
	})
}

// inject says what the next pod gets.
func (s session) inject(sidecar chan string, image string) {
	select {
	case <-sidecar: // nobody wanted it
	default:
	}
	sidecar <- image
}

// registerInjector has the API server call another webhook for the pods of one namespace, after hallmark's, whose name
// comes first.
func registerInjector(t *testing.T, injector *httptest.Server, namespace string) {
	t.Helper()
	url := injector.URL
	none := admissionregistrationv1.SideEffectClassNone
	configurations := w.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	configuration, err := configurations.Create(t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "injector"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "injector.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none,
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: &url, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: injector.Certificate().Raw}),
			},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // when the context of the test is done
		if err := configurations.Delete(context.Background(), configuration.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}
