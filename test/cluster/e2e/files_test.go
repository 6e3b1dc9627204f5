package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/hallmark-admission/hallmark/test/cluster"
	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
)

// renderFiles gives what the chart wants to stand in the files of API servers, by their names.
func renderFiles(t *testing.T) map[string]string {
	t.Helper()
	programs, err := binaries.Ensure(t.Context(), binaries.Config{Progress: t.Output()}, binaries.Helm)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(programs, binaries.Helm), "template", "hallmark", "../../../charts/hallmark",
		"--namespace="+systemNamespace, "--show-only=templates/registration.yaml", "--set-file=certificates.caBundle="+w.CA,
		"--set=registration.from=files,registration.url=https://"+w.listen+",config.mode=enforce,scope.mode=all",
		"--set=controller.enabled=false,certificates.existingSecret=corp-tls,backstop.when=always").Output()
	if err != nil {
		t.Fatalf("helm template: %v", err)
	}
	var configMap corev1.ConfigMap
	if err := yaml.UnmarshalStrict(out, &configMap); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	return configMap.Data
}

// TestRegistrationInFiles: what API servers read from files of their own holds from their start on, and nobody takes it away
// through the API, not even an admin.
func TestRegistrationInFiles(t *testing.T) {
	dir, files, plugins := t.TempDir(), renderFiles(t), ""
	for plugin, name := range map[string]string{"MutatingAdmissionWebhook": "mutating.yaml", "ValidatingAdmissionWebhook": "validating.yaml"} {
		manifests := filepath.Join(dir, plugin)
		if err := os.Mkdir(manifests, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(manifests, name), []byte(files[name]), 0o600); err != nil {
			t.Fatal(err)
		}
		plugins += fmt.Sprintf(`
- name: %s
  configuration:
    {apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: "", staticManifestsDir: %q}`, plugin, manifests)
	}
	config := filepath.Join(dir, "admission.yaml")
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:" + plugins + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(t.Context(), cluster.Options{
		Dir: t.TempDir(), Log: t.Output(), ServiceRange: "127.98.0.0/16",
		APIServerArgs: []string{"--feature-gates=ManifestBasedAdmissionControlConfig=true", "--admission-control-config-file=" + config},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := c.CreateNamespace(t.Context(), "dev"); err != nil {
		t.Fatal(err)
	}
	here := &world{Cluster: c, Fixture: w.Fixture}
	guarded := func() {
		t.Helper()
		pod, err := here.try(t.Context(), here.ref("golden/ws:v1.0.0"))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := pod.Spec.Containers[0].Image, here.pinned("golden/ws:v1.0.0"); got != want {
			t.Errorf("image: got %s, want %s", got, want)
		}
		if _, err := here.try(t.Context(), foreignImage); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `admission webhook "judge.hallmark.dev" denied the request`) {
			t.Errorf("a foreign image: %v", err)
		}
	}
	guarded()
	registrations := c.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if list, err := registrations.List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("the API shows %v, %v", list.Items, err)
	}
	if err := registrations.Delete(t.Context(), "hallmark.static.k8s.io", metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("an admin deletes it: %v", err)
	}
	if err := registrations.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	guarded()
}
