package nodee2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const webhookPods = "app.kubernetes.io/component=webhook"

// TestDisruption: whatever an administrator does to the webhook on purpose loses no admission.
func TestDisruption(t *testing.T) {
	install(t)
	l := startLoad(t, newNamespace(t, "disruption"))
	l.during(t, "warm-up", func() { wait(t, 3*time.Second) }) // also the first look at both images

	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"restart", restart},
		{"restart again", restart}, // while the last of the old ones are still on their way out
		{"restart once more", func(t *testing.T) { restart(t); settled(t) }},
		{"drain", drain},
		{"certificate rotation", rotate},
		{"upgrade", upgrade},
		{"rollback", rollback},
	} {
		t.Run(step.name, func(t *testing.T) {
			noneLost(t, l.during(t, step.name, func() { step.run(t) }))
		})
	}
	l.end()
	t.Run("until the end", func(t *testing.T) { noneLost(t, l.since(time.Time{})) })
}

// wait lets time pass for the load, which is what the test measures.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

func restart(t *testing.T) {
	t.Helper()
	kubectl(t, "rollout", "restart", "deployment/"+webhook)
	kubectl(t, "rollout", "status", "deployment/"+webhook, timeout())
}

// settled returns when as many pods are there as should be, and all are ready: the old ones, which go on answering for a
// while, are gone.
func settled(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		deployment, err := w.Client().AppsV1().Deployments(releaseNamespace).Get(t.Context(), webhook, metav1.GetOptions{})
		if err != nil {
			return err
		}
		pods, err := listPods(t.Context(), releaseNamespace, webhookPods)
		if err != nil {
			return err
		}
		if want := int(*deployment.Spec.Replicas); len(pods) != want || int(deployment.Status.ReadyReplicas) != want {
			return fmt.Errorf("%d pods, %d ready, want %d", len(pods), deployment.Status.ReadyReplicas, want)
		}
		return nil
	})
}

// drain evicts the pods one after the other as kubectl drain does: again and again while the budget forbids it. The node
// itself stays, as there is no other.
func drain(t *testing.T) {
	t.Helper()
	pods, err := listPods(t.Context(), releaseNamespace, webhookPods)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, pod := range pods {
		eventually(t, func() error {
			err := w.Client().PolicyV1().Evictions(releaseNamespace).Evict(t.Context(), &policyv1.Eviction{
				ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: releaseNamespace},
			})
			if apierrors.IsTooManyRequests(err) {
				refused++
			}
			return err
		})
	}
	if refused == 0 {
		t.Error("the disruption budget let all replicas go at once")
	}
	settled(t)
}

// rotate has the controller make a new authority by taking the old one away, and waits until every replica serves a
// certificate of it. What is served until then is still trusted.
func rotate(t *testing.T) {
	t.Helper()
	pods, err := listPods(t.Context(), releaseNamespace, webhookPods)
	if err != nil {
		t.Fatal(err)
	}
	before, err := servedIssuer(t.Context(), pods[0])
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "delete", "secret", "hallmark-ca")
	for _, pod := range pods {
		eventually(t, func() error {
			issuer, err := servedIssuer(t.Context(), pod)
			if err == nil && issuer == before {
				err = fmt.Errorf("%s still serves a certificate of %s", pod.Name, issuer)
			}
			return err
		})
	}
	wait(t, 3*time.Second) // admissions under the new one
}

// upgrade changes what all replicas have to be replaced for, and the configuration too.
func upgrade(t *testing.T) {
	t.Helper()
	values := w.values()
	values["webhook"] = object{"podAnnotations": object{"corp.example/revision": "2"}}
	values["config"].(object)["message"] = object{"helpURL": "https://wiki.corp.example/workspace-images"}
	began := time.Now()
	if _, err := w.helm(t.Context(), values, "upgrade", release, w.chart, "--wait", timeout()); err != nil {
		t.Fatal(err)
	}
	say(t, "helm upgrade --wait: %s", time.Since(began).Round(100*time.Millisecond))
}

func rollback(t *testing.T) {
	t.Helper()
	if _, err := w.helm(t.Context(), nil, "rollback", release, "--wait", timeout()); err != nil {
		t.Fatal(err)
	}
	settled(t)
}

// lossWindow is how long after a crash admissions may fail: those that were under way, and those that come before the
// node knows.
const lossWindow = time.Second

// TestCrash: of a replica that dies, only what it had in hand is lost.
func TestCrash(t *testing.T) {
	install(t)
	settled(t)
	l := startLoad(t, newNamespace(t, "crash"))
	l.during(t, "warm-up", func() { wait(t, 3*time.Second) })
	pods, err := listPods(t.Context(), releaseNamespace, webhookPods)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := processOf(pods[0])
	if err != nil {
		t.Fatal(err)
	}
	var killed time.Time
	results := l.during(t, "kill -9 of one of three", func() {
		wait(t, time.Second)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed = time.Now()
		wait(t, 5*time.Second)
	})
	settled(t)
	l.end()
	wrong := problems(results)
	var last time.Duration
	for _, r := range wrong {
		if strings.Contains(r.problem, "ADMITTED") {
			t.Error(r.problem)
		}
		failed := r.began.Add(r.took).Sub(killed)
		last = max(last, failed)
		if failed < 0 || failed > lossWindow {
			t.Errorf("%s after the crash: %s", failed.Round(time.Millisecond), r.problem)
		}
	}
	say(t, "%d of %d admissions were lost, the last one %s after the crash", len(wrong), len(results), last.Round(time.Millisecond))
	if len(wrong) > 0 {
		t.Log(wrong[0].problem)
	}
}

// processOf finds the program of a pod: the one in the pod's cgroup that is not its pause.
func processOf(pod corev1.Pod) (int, error) {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range processes {
		cgroups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !bytes.Contains(cgroups, []byte(string(pod.UID))) {
			continue // or it has just ended
		}
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && bytes.Contains(command, []byte("serve\x00")) {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("pod %s has no process", pod.Name)
}

// servedIssuer is who issued the certificate that a pod presents.
func servedIssuer(ctx context.Context, pod corev1.Pod) (string, error) {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // to look at it, not to trust it
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(pod.Status.PodIP, "9443"))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	return connection.(*tls.Conn).ConnectionState().PeerCertificates[0].Issuer.CommonName, nil
}

// kubectl runs in the namespace of the release.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, _, err := w.Kubectl(t.Context(), "", append(args, "--namespace="+releaseNamespace)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
