package nodee2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hallmark-admission/hallmark/test/cluster/fixture"
)

// coderDeployment is a workspace as Coder's Terraform provider creates it for its Kubernetes template: the agent's
// script is the command there, and here the image's own program.
const coderDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: coder-%[1]s
  namespace: %[2]s
  labels: &labels
    app.kubernetes.io/name: coder-workspace
    app.kubernetes.io/instance: coder-workspace-%[1]s
    app.kubernetes.io/part-of: coder
    com.coder.resource: "true"
    com.coder.workspace.id: 6e1f0c9a-52fd-4e0c-9d0a-2f1e1a6b7c11
    com.coder.workspace.name: dev
    com.coder.user.username: alice
  annotations: {com.coder.user.email: alice@corp.example}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: *labels}
  template:
    metadata: {labels: *labels}
    spec:
      hostname: dev
      enableServiceLinks: true
      automountServiceAccountToken: true
      securityContext: {runAsUser: 1000, fsGroup: 1000, runAsNonRoot: true}
      containers:
        - name: dev
          image: %[3]s
          imagePullPolicy: Always
          env: [{name: CODER_AGENT_TOKEN, value: 2f1e1a6b-6e1f-4e0c-9d0a-52fd0c9a7c11}]
          resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: "1", memory: 256Mi}}
          volumeMounts: [{name: home, mountPath: /home/coder}]
      volumes: [{name: home, emptyDir: {}}]
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 1
              podAffinityTerm:
                topologyKey: kubernetes.io/hostname
                labelSelector: {matchExpressions: [{key: app.kubernetes.io/name, operator: In, values: [coder-workspace]}]}
`

// TestCoderWorkspace: a Deployment is admitted as it is, its pod is pinned, and what runs is what was judged, pulled from
// the registry by that digest.
func TestCoderWorkspace(t *testing.T) {
	install(t)
	namespace := newNamespace(t, "coder")
	order(t, "reset")
	image := "golden/workspace:v1.0.0"
	apply(t, fmt.Sprintf(coderDeployment, "good", namespace, w.ref(image)))
	deployment, err := w.Client().AppsV1().Deployments(namespace).Get(t.Context(), "coder-good", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := deployment.Spec.Template.Spec.Containers[0].Image, w.ref(image); got != want {
		t.Errorf("image of the Deployment: got %s, want %s, as its owner wrote it", got, want)
	}
	pod := waitRunning(t, namespace, "com.coder.workspace.name=dev")
	checkRuns(t, pod, image)
	checkPulled(t, image)
}

// TestBarePod is a workspace without a Deployment.
func TestBarePod(t *testing.T) {
	install(t)
	namespace := newNamespace(t, "bare")
	order(t, "reset")
	image := "golden/workspace:v1.1.0" // not the one of the Deployment, as nothing is pulled twice
	pod := newPod("workspace", image)
	pod.Labels = map[string]string{"app": "workspace"}
	if _, err := w.Client().CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	checkRuns(t, waitRunning(t, namespace, "app=workspace"), image)
	checkPulled(t, image)
}

// TestUnsigned: an image that nobody signed is refused where the developer meets it, at the Deployment.
func TestUnsigned(t *testing.T) {
	install(t)
	namespace := newNamespace(t, "unsigned")
	_, _, err := w.Kubectl(t.Context(), fmt.Sprintf(coderDeployment, "bad", namespace, w.ref(unsignedImage)), "create", "-f", "-")
	if err == nil {
		t.Fatal("a Deployment with an unsigned image was created")
	}
	for _, want := range []string{
		"Error from server (Forbidden)", deniedBy, w.ref(unsignedImage), "signature", "containers[dev]",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("refusal:\n got %v\nwant %q in it", err, want)
		}
	}
	t.Log(err)
	_, err = try(t.Context(), namespace, unsignedImage)
	checkDenied(t, err)
}

// checkRuns compares what kubelet reports with what was pinned.
func checkRuns(t *testing.T, pod *corev1.Pod, image string) {
	t.Helper()
	if got, want := pod.Spec.Containers[0].Image, w.pinned(image); got != want {
		t.Errorf("image of the pod: got %s, want %s", got, want)
	}
	if got := pod.Status.ContainerStatuses[0].ImageID; !strings.HasSuffix(got, "@"+w.Digests[image]) {
		t.Errorf("image that runs: got %s, want the digest %s", got, w.Digests[image])
	}
}

// checkPulled looks into the registry's log: the manifest was asked for by the digest, and blobs then.
func checkPulled(t *testing.T, image string) {
	t.Helper()
	repository, _, _ := strings.Cut(image, ":")
	asked := strings.Join(order(t, "requests").Asked, "\n")
	for _, want := range []string{
		"/v2/" + repository + "/manifests/" + w.Digests[image], "GET /v2/" + repository + "/blobs/sha256:",
	} {
		if !strings.Contains(asked, want) {
			t.Errorf("the registry was not asked for %s, but for\n%s", want, asked)
		}
	}
}

// checkDenied holds that the webhook has refused, and not something else.
func checkDenied(t *testing.T, err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), deniedBy) {
		t.Errorf("refusal: got %v, want Forbidden by %s", err, deniedBy)
	}
}

// waitRunning gives the only pod with a label, once it runs.
func waitRunning(t *testing.T, namespace, selector string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, func() error {
		pods, err := listPods(t.Context(), namespace, selector)
		if err != nil {
			return err
		}
		if len(pods) != 1 {
			return fmt.Errorf("%d pods with %s, not one", len(pods), selector)
		}
		if pod = &pods[0]; pod.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("pod %s is %s: %v", pod.Name, pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return nil
	})
	return pod
}

// order tells the fixture to do something.
func order(t *testing.T, line ...string) fixture.Answer {
	t.Helper()
	a, err := w.Do(line...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// waitPhase returns when a pod runs.
func waitPhase(t *testing.T, namespace, name string) {
	t.Helper()
	eventually(t, func() error {
		pod, err := w.Client().CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("pod %s is %s", name, pod.Status.Phase)
		}
		return err
	})
}

func listPods(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	list, err := w.Client().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

func apply(t *testing.T, manifest string) {
	t.Helper()
	if _, _, err := w.Kubectl(t.Context(), manifest, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}
