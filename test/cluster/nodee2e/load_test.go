package nodee2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// rate is how many pods a second the load creates, on a machine that can. Each is two calls of the webhook.
	rate = 200
	// workers is how many wait at the same time: enough for the rate when an admission takes 40 ms, and few enough to leave
	// a slow machine, where the rate is lower, time for what is tested.
	workers = 8
	// badShare: every so many pods are one that has to be refused.
	badShare = 5
)

// load creates pods by dry runs, most of them good and the others not, until it is stopped, and keeps what came of each.
type load struct {
	client    kubernetes.Interface
	namespace string
	stop      context.CancelFunc
	running   sync.WaitGroup

	mutex   sync.Mutex
	results []result
}

// result is one admission. Problem is empty when it was as it has to be.
type result struct {
	began   time.Time
	took    time.Duration
	problem string
}

// startLoad begins to create pods in a namespace. It ends with the test at the latest.
func startLoad(t *testing.T, namespace string) *load {
	t.Helper()
	config, err := w.RESTConfig("admin")
	if err != nil {
		t.Fatal(err)
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{client: client, namespace: namespace, stop: cancel}
	turns := make(chan int)
	l.running.Go(func() {
		defer close(turns)
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			select {
			case turns <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	for range workers {
		l.running.Go(func() {
			for i := range turns {
				// Not ctx: an admission under way at the end is one that counts.
				l.create(context.WithoutCancel(ctx), i)
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

// end stops the load and waits for what is under way.
func (l *load) end() {
	l.stop()
	l.running.Wait()
}

func (l *load) create(ctx context.Context, i int) {
	image := goodImage
	if i%badShare == 0 {
		image = unsignedImage
	}
	began := time.Now()
	pod, err := l.client.CoreV1().Pods(l.namespace).Create(ctx, newPod(fmt.Sprintf("load-%d", i), image),
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	r := result{began: began, took: time.Since(began), problem: judge(image, pod, err)}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.results = append(l.results, r)
}

// judge says what is wrong with an answer: a good pod is admitted and pinned, a bad one refused by the webhook.
func judge(image string, pod *corev1.Pod, err error) string {
	switch {
	case image == goodImage && err != nil:
		return "a good pod was refused: " + err.Error()
	case image == goodImage && pod.Spec.Containers[0].Image != w.pinned(image):
		return "a good pod was admitted as " + pod.Spec.Containers[0].Image
	case image != goodImage && err == nil:
		return "an unsigned image was ADMITTED: " + pod.Spec.Containers[0].Image
	case image != goodImage && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), deniedBy)):
		return "a bad pod was refused otherwise: " + err.Error()
	}
	return ""
}

// newPod is a pod of one container as the load and the probes create it.
func newPod(name, image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "dev", Image: w.ref(image)}}},
	}
}

// during runs something under the load, prints what the load saw meanwhile, and gives it.
func (l *load) during(t *testing.T, what string, run func()) []result {
	t.Helper()
	began := time.Now()
	run()
	results := l.since(began)
	took := make([]time.Duration, 0, len(results))
	for _, r := range results {
		took = append(took, r.took)
	}
	slices.Sort(took)
	elapsed := time.Since(began)
	line := fmt.Sprintf("%s: %s, %d pods, %.0f/s", what, elapsed.Round(100*time.Millisecond), len(results),
		float64(len(results))/elapsed.Seconds())
	if n := len(took); n > 0 {
		line += fmt.Sprintf(", p50 %s, p99 %s, longest %s", took[n/2].Round(time.Millisecond),
			took[n*99/100].Round(time.Millisecond), took[n-1].Round(time.Millisecond))
	}
	say(t, "%s, %d wrong", line, len(problems(results)))
	return results
}

// since gives the admissions that began after a moment and are done.
func (l *load) since(moment time.Time) []result {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	var results []result
	for _, r := range l.results {
		if !r.began.Before(moment) {
			results = append(results, r)
		}
	}
	return results
}

// problems gives what was not as it has to be.
func problems(results []result) []result {
	var wrong []result
	for _, r := range results {
		if r.problem != "" {
			wrong = append(wrong, r)
		}
	}
	return wrong
}

// noneLost fails when any admission was wrong, or there were too few to tell.
func noneLost(t *testing.T, results []result) {
	t.Helper()
	wrong := problems(results)
	for _, r := range wrong[:min(5, len(wrong))] {
		t.Errorf("at %s, after %s: %s", r.began.Format("15:04:05.000"), r.took.Round(time.Millisecond), r.problem)
	}
	if len(wrong) > 5 {
		t.Errorf("%d admissions were wrong, of %d", len(wrong), len(results))
	}
	if len(results) < 100 {
		t.Errorf("there were only %d admissions", len(results))
	}
}
