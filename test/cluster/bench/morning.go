package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// workspaceLabel names the workspace of a pod.
const workspaceLabel = "com.coder.workspace.name"

// createMorning has workspaces come in bursts of a random size at random moments (a compound Poisson process), each a
// Deployment of one replica as Coder's template makes it, and measures the time of each until its pod is ready.
func (w *world) createMorning(ctx context.Context, namespace string, o options) (m measurement, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.length+5*time.Minute)
	defer cancel()
	pods, err := w.Client().CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return m, err
	}
	defer pods.Stop()
	ready := make(chan error, 1)
	var mutex sync.Mutex
	began := map[string]time.Time{} // of those that are not ready yet
	coming := true
	go func() {
		for event := range pods.ResultChan() {
			pod, isPod := event.Object.(*corev1.Pod)
			if !isPod || event.Type == watch.Deleted || !isReady(pod) {
				continue
			}
			mutex.Lock()
			if start, waits := began[pod.Labels[workspaceLabel]]; waits {
				m.took = append(m.took, time.Since(start))
				delete(began, pod.Labels[workspaceLabel])
			}
			done := !coming && len(began) == 0
			mutex.Unlock()
			if done {
				ready <- nil
				return
			}
		}
		ready <- fmt.Errorf("the watch of pods ended: %w", ctx.Err())
	}()
	var group sync.WaitGroup
	failed := make(chan error, 1)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same morning for all candidates
	start := time.Now()
	for at := 0.0; ; {
		at += random.ExpFloat64() * o.bursts / o.rate
		if at >= o.length.Seconds() {
			break
		}
		time.Sleep(time.Until(start.Add(time.Duration(at * float64(time.Second)))))
		// A geometric number of workspaces with the mean that was asked for.
		for n := 1; n == 1 || random.Float64() > 1/o.bursts; n++ {
			name := fmt.Sprintf("ws-%d", m.pods)
			m.pods++
			mutex.Lock()
			began[name] = time.Now()
			mutex.Unlock()
			group.Go(func() {
				if _, err := w.Client().AppsV1().Deployments(namespace).Create(ctx, newWorkspace(name, w.image()), metav1.CreateOptions{}); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
	}
	group.Wait()
	mutex.Lock()
	coming = false
	left := len(began)
	mutex.Unlock()
	if left > 0 {
		select {
		case err = <-ready:
		case err = <-failed:
		}
	}
	m.wall = time.Since(start)
	mutex.Lock()
	defer mutex.Unlock()
	slices.Sort(m.took)
	return m, err
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// newWorkspace is a Deployment of one replica on the fake node, as there is no scheduler.
func newWorkspace(name, image string) *appsv1.Deployment {
	template := newPod("", image)
	template.Spec.NodeName = nodeName
	template.Labels[workspaceLabel] = name
	one := int32(1)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: template.Labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{workspaceLabel: name}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: template.Labels}, Spec: template.Spec},
		},
	}
}
