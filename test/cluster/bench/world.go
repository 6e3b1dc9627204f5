package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hallmark-admission/hallmark/test/cluster"
	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
	"github.com/hallmark-admission/hallmark/test/cluster/fixture"
)

// world is a cluster, a registry with signed images and the webhook.
type world struct {
	*cluster.Cluster
	dir      string
	progress io.Writer
	turns    int

	files   *fixture.Fixture
	servers [2]server // of what is called by both webhooks: Hallmark and the floor
	kwok    *exec.Cmd
}

type server struct {
	*exec.Cmd
	url string
}

// candidates are what is compared, by the index of their server.
var candidates = [...]string{"Hallmark", "floor", "none"}

const (
	byHallmark = iota
	byFloor
	byNone
)

func (w *world) start(ctx context.Context, nodes bool) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", w.dir+string(filepath.Separator), "-trimpath", "-ldflags", "-s -w",
		"./cmd/hallmark", "./test/bench", "./test/harness/cmd/fixture")
	build.Dir = filepath.Join("..", "..") // the product is another module
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build hallmark: %w\n%s", err, out)
	}
	for _, name := range []string{"cluster", "fixture"} {
		if err := os.Mkdir(w.file(name+".d"), 0o700); err != nil {
			return err
		}
	}
	var err error
	if w.Cluster, err = cluster.Start(ctx, cluster.Options{Dir: w.file("cluster.d"), Controllers: true, Log: w.progress}); err != nil {
		return err
	}
	if w.files, err = fixture.Start(w.file("fixture"), w.file("fixture.d")); err != nil {
		return err
	}
	if err := w.startServer(ctx, byHallmark, "hallmark", "serve", "--config", w.files.Config, "--listen", "127.0.0.1:0", "--metrics-listen", "",
		"--shutdown-delay", "0s", "--tls-cert", w.files.Cert, "--tls-key", w.files.Key); err != nil {
		return err
	}
	if err := w.startServer(ctx, byFloor, "bench", "floor", "-tls-cert", w.files.Cert, "-tls-key", w.files.Key); err != nil {
		return err
	}
	if nodes {
		return w.startNode(ctx)
	}
	return nil
}

// stop ends what start has started, in the opposite order.
func (w *world) stop() error {
	var errs []error
	for _, command := range []*exec.Cmd{w.kwok, w.servers[byHallmark].Cmd, w.servers[byFloor].Cmd} {
		if command != nil {
			errs = append(errs, command.Process.Signal(syscall.SIGTERM))
			_ = command.Wait() // a signal is how it ends
		}
	}
	if w.files != nil {
		errs = append(errs, w.files.Stop())
	}
	if w.Cluster != nil {
		errs = append(errs, w.Stop())
	}
	return errors.Join(errs...)
}

// startServer starts a program that serves reviews, with its log in a file, as in production.
func (w *world) startServer(ctx context.Context, who int, name string, args ...string) error {
	logs := w.file(name + ".log")
	log, err := os.Create(logs)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own descriptor
	command := exec.CommandContext(ctx, w.file(name), args...)
	command.Stderr = log
	if err := command.Start(); err != nil {
		return err
	}
	w.servers[who].Cmd = command
	return poll(ctx, func() error {
		text, err := os.ReadFile(logs)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			var said struct{ Msg, Address string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "serving" {
				w.servers[who].url = "https://" + said.Address
				return nil
			}
		}
		return fmt.Errorf("%s does not serve yet:\n%s", name, text)
	})
}

// startNode makes a node and has kwok play its kubelet: pods that are bound to it are ready at once.
func (w *world) startNode(ctx context.Context) error {
	bin, err := binaries.Ensure(ctx, binaries.Config{Progress: w.progress}, binaries.Kwok)
	if err != nil {
		return err
	}
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok").Output()
	if err != nil {
		return fmt.Errorf("find the stages of kwok: %w", err)
	}
	args := []string{"--kubeconfig=" + w.Kubeconfig(), "--manage-all-nodes=true"}
	for _, stages := range []string{"node/fast", "node/heartbeat-with-lease", "pod/fast"} {
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(module)), "kustomize", "stage", stages, "*.yaml"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if filepath.Base(file) != "kustomization.yaml" {
				args = append(args, "--config="+file)
			}
		}
	}
	log, err := os.Create(w.file("kwok.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	w.kwok = exec.CommandContext(ctx, filepath.Join(bin, binaries.Kwok), args...)
	w.kwok.Stdout, w.kwok.Stderr = log, log
	if err := w.kwok.Start(); err != nil {
		w.kwok = nil
		return err
	}
	nodes := w.Client().CoreV1().Nodes()
	if _, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	return poll(ctx, func() error {
		node, err := nodes.Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		text, _ := os.ReadFile(w.file("kwok.log"))
		return fmt.Errorf("the fake node is not ready; kwok says:\n%s", text)
	})
}

const nodeName = "fake-0"

// cpu is what a server has taken so far, 0 for no server.
func (w *world) cpu(who int) (time.Duration, error) {
	if who == byNone {
		return 0, nil
	}
	return cpu(w.servers[who].Process.Pid)
}

// resident is how much memory a server has.
func (w *world) resident(who int) (int64, error) {
	if who == byNone {
		return 0, nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", w.servers[who].Process.Pid))
	if err != nil {
		return 0, err
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil { // proc(5)
		return 0, err
	}
	return pages * int64(os.Getpagesize()), nil
}

// register has both webhooks of a server called, or none, and returns when the API server does so.
func (w *world) register(ctx context.Context, who int) error {
	api := w.Client().AdmissionregistrationV1()
	mutating, validating := api.MutatingWebhookConfigurations(), api.ValidatingWebhookConfigurations()
	for _, err := range []error{
		mutating.Delete(ctx, "hallmark", metav1.DeleteOptions{}), validating.Delete(ctx, "hallmark", metav1.DeleteOptions{}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	before, err := w.calls(ctx)
	if err != nil {
		return err
	}
	if who != byNone {
		authority, err := os.ReadFile(w.files.CA)
		if err != nil {
			return err
		}
		m, v := w.configurations(w.servers[who].url, authority)
		if _, err := mutating.Create(ctx, m, metav1.CreateOptions{}); err != nil {
			return err
		}
		if _, err := validating.Create(ctx, v, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return poll(ctx, func() error {
		dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		_, err := w.Client().CoreV1().Pods("default").Create(ctx, newPod("probe", "evil.example/x:v1.0.0"), dry)
		if refused := apierrors.IsForbidden(err); refused != (who == byHallmark) {
			return fmt.Errorf("a pod from a foreign registry: %w", errors.Join(err, fmt.Errorf("refused: %t", refused)))
		}
		if who != byHallmark {
			after, err := w.calls(ctx)
			if called := after > before; err == nil && called != (who == byFloor) {
				err = fmt.Errorf("a webhook was called: %t", called)
			}
			before = after
			return err
		}
		pod, err := w.Client().CoreV1().Pods("default").Create(ctx, newPod("probe", w.image()), dry)
		if err == nil && !strings.Contains(pod.Spec.Containers[0].Image, "@sha256:") {
			err = errors.New("a good pod is not pinned")
		}
		return err
	})
}

func (w *world) image() string { return w.files.Registry + "/golden/ws:v1.0.0" }

// calls is how often the API server has called validating webhooks, as it counts.
func (w *world) calls(ctx context.Context) (float64, error) {
	text, err := w.Client().Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "apiserver_admission_webhook_request_total{") || !strings.Contains(line, `name="validate.hallmark.dev"`) {
			continue
		}
		count, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
		if err != nil {
			return 0, err
		}
		sum += count
	}
	return sum, nil
}

// configurations register what the chart registers, without its exclusions: what is measured is in namespaces of its own.
func (w *world) configurations(server string, authority []byte) (*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration) {
	client := func(path string) admissionregistrationv1.WebhookClientConfig {
		url := server + path
		return admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: authority}
	}
	rules := func(group string, resources ...string) admissionregistrationv1.RuleWithOperations {
		return admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
			Rule:       admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: resources},
		}
	}
	none, ignore, fail := admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Ignore, admissionregistrationv1.Fail
	meta := metav1.ObjectMeta{Name: "hallmark"}
	return &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: meta, Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "mutate.hallmark.dev", ClientConfig: client("/mutate"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"}, FailurePolicy: &ignore,
			Rules: []admissionregistrationv1.RuleWithOperations{rules("", "pods")},
		}}}, &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: meta, Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "validate.hallmark.dev", ClientConfig: client("/validate"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"}, FailurePolicy: &fail,
			Rules: []admissionregistrationv1.RuleWithOperations{rules("", "pods"), rules("apps", "deployments", "replicasets")},
		}}}
}

// poll repeats check for up to a minute.
func poll(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}
