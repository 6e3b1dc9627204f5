package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// A measurement is one turn.
type measurement struct {
	took     []time.Duration // of each creation, or until it was ready; of a Deployment nothing
	wall     time.Duration
	pods     int
	cpu      time.Duration // of the server that was called
	resident int64         // bytes of it, at the end
}

// newPod is a workspace as its template has it; the API server adds its defaults.
func newPod(name, image string) *corev1.Pod {
	user := int64(1000)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/name": "coder-workspace"}},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: &user, FSGroup: &user},
			Containers: []corev1.Container{{
				Name: "dev", Image: image, Command: []string{"sh", "-c", strings.Repeat("# starts the agent\n", 100)},
				Env: []corev1.EnvVar{{Name: "CODER_AGENT_TOKEN", Value: "b6d2f1b2-6a51-4a41-9a0e-0b4dbf4f5e11"}},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("512Mi"),
				}},
			}},
		},
	}
}

// createPods has clients create pods one after the other.
func (w *world) createPods(ctx context.Context, namespace string, o options) (m measurement, err error) {
	clients := make([]*kubernetes.Clientset, o.clients)
	for i := range clients {
		rc, err := w.RESTConfig("admin")
		if err != nil {
			return m, err
		}
		// With a function in it, client-go does not share the connection of another client.
		rc.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil } //nolint:nilnil // no proxy and no error
		if clients[i], err = kubernetes.NewForConfig(rc); err != nil {
			return m, err
		}
		if _, err := clients[i].CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{}); err != nil { // connects
			return m, err
		}
	}
	var next atomic.Int64
	var mutex sync.Mutex
	var group sync.WaitGroup
	start := time.Now()
	for _, client := range clients {
		group.Go(func() {
			var took []time.Duration
			var wrong error
			for i := next.Add(1); wrong == nil && i <= int64(o.pods); i = next.Add(1) {
				began := time.Now()
				_, wrong = client.CoreV1().Pods(namespace).Create(ctx, newPod(fmt.Sprintf("ws-%d", i), w.image()), metav1.CreateOptions{})
				took = append(took, time.Since(began))
			}
			mutex.Lock()
			defer mutex.Unlock()
			m.took = append(m.took, took...)
			if err == nil {
				err = wrong
			}
		})
	}
	group.Wait()
	m.wall, m.pods = time.Since(start), o.pods
	slices.Sort(m.took)
	return m, err
}

// createDeployment waits until every replica is ready.
func (w *world) createDeployment(ctx context.Context, namespace string, replicas int) (m measurement, err error) {
	count := int32(replicas)
	template := newPod("", w.image())
	template.Spec.NodeName = nodeName // there is no scheduler
	labels := map[string]string{"app": "ws"}
	template.Labels = labels
	deployments := w.Client().AppsV1().Deployments(namespace)
	start := time.Now()
	if _, err := deployments.Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "ws"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &count, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template.Spec},
		},
	}, metav1.CreateOptions{}); err != nil {
		return m, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		d, err := deployments.Get(ctx, "ws", metav1.GetOptions{})
		if err != nil {
			return m, fmt.Errorf("wait for %d replicas: %w", replicas, err)
		}
		if d.Status.ReadyReplicas == count {
			return measurement{wall: time.Since(start), pods: replicas}, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// clear takes a namespace's objects away, without measuring it, and waits until they are gone.
func (w *world) clear(ctx context.Context, namespace string) error {
	now, background := int64(0), metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{GracePeriodSeconds: &now, PropagationPolicy: &background}
	if err := w.Client().AppsV1().Deployments(namespace).DeleteCollection(ctx, options, metav1.ListOptions{}); err != nil {
		return err
	}
	for {
		pods, err := w.Client().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return err
		}
		sets, err := w.Client().AppsV1().ReplicaSets(namespace).List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil || len(pods.Items)+len(sets.Items) == 0 {
			return err
		}
		if err := w.Client().CoreV1().Pods(namespace).DeleteCollection(ctx, options, metav1.ListOptions{}); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// cpu is what a process has taken so far: utime and stime of proc(5), in ticks of 10 ms.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has only %d fields", pid, len(fields))
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, err
}
