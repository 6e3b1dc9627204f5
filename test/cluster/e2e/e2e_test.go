// Package e2e runs the webhook as users meet it: registered with a real API server, behind a Service, with a real
// registry, and kubectl on the other side.
//
// One cluster, registry and webhook serve the whole package. A test has namespaces of its own, and whoever stops the
// registry or the webhook starts it again, so tests do not depend on each other; they run one after the other, since the
// registry counts everybody's requests.
package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/hallmark-admission/hallmark/test/cluster"
	"github.com/hallmark-admission/hallmark/test/cluster/fixture"
)

const (
	systemNamespace = "hallmark-system" // where the webhook lives, and what the configurations exclude
	legacyNamespace = "legacy"          // has objects from before the webhook was registered

	developer = "developer"      // may do what edit allows, and what the role more adds
	node      = "system:node:n1" // a kubelet

	foreignImage = "evil.example/x:v1.0.0"

	// auditPolicy records who wrote what and what the webhook said of it, but no objects, which hold secrets.
	auditPolicy = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
		"rules": [{"level": "Metadata", "verbs": ["create", "update", "patch"]}]}`

	// secret is the value of an env variable that nobody may ever see again.
	secret = "s3cret-agent-token"
)

// w is what the tests run against. TestMain makes it.
var w *world

func TestMain(m *testing.M) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, m)
	cancel()
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "hallmark-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	w = &world{dir: dir}
	defer func() {
		if err := w.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop:", err)
			code = 1
		}
	}()
	if err := w.start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "start:", err)
		return 1
	}
	return m.Run()
}

// world is a cluster with the webhook in it.
type world struct {
	*cluster.Cluster
	*fixture.Fixture
	hallmark *hallmark
	dir      string
	listen   string // address of the webhook
	byURL    bool   // the configurations call it by URL and not by Service
}

func (w *world) start(ctx context.Context) error {
	if err := build(ctx, w.dir); err != nil {
		return err
	}
	for _, name := range []string{"fixture", "cluster"} {
		if err := os.Mkdir(filepath.Join(w.dir, name+".d"), 0o700); err != nil {
			return err
		}
	}
	policy := filepath.Join(w.dir, "audit-policy.json")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	var err error
	w.Cluster, err = cluster.Start(ctx, cluster.Options{
		Dir: filepath.Join(w.dir, "cluster.d"), Controllers: true, Log: os.Stderr,
		APIServerArgs: []string{"--audit-policy-file=" + policy, "--audit-log-path=" + w.auditLog()},
		Users: []cluster.User{
			{Name: developer, ClusterRoles: append(cluster.Developer(developer).ClusterRoles, "more")},
			{Name: node, Groups: []string{"system:nodes"}, ClusterRoles: []string{"system:node"}},
		},
	})
	if err != nil {
		return err
	}
	if err := w.prepare(ctx); err != nil {
		return fmt.Errorf("prepare the cluster: %w", err)
	}
	host, _, err := net.SplitHostPort(w.listen)
	if err != nil {
		return err
	}
	w.Fixture, err = fixture.Start(filepath.Join(w.dir, "fixture"), filepath.Join(w.dir, "fixture.d"),
		"-host", "hallmark."+systemNamespace+".svc", "-host", host)
	if err != nil {
		return err
	}
	if err := w.createLegacy(ctx); err != nil {
		return fmt.Errorf("create what is older than the webhook: %w", err)
	}
	if w.hallmark, err = startHallmark(ctx, w.dir, w.log(), w.listen, w.Fixture); err != nil {
		return err
	}
	if err := w.register(ctx); err != nil {
		return fmt.Errorf("register the webhooks: %w", err)
	}
	return w.waitRegistered(ctx)
}

// stop ends everything and says what went wrong unseen.
func (w *world) stop() error {
	var errs []error
	if w.hallmark != nil {
		errs = append(errs, w.hallmark.stop(), checkLog(w.log()))
	}
	if w.Cluster != nil {
		errs = append(errs, w.Cluster.Stop())
	}
	if w.Fixture != nil {
		errs = append(errs, w.Fixture.Stop())
	}
	return errors.Join(errs...)
}

// log is where the webhook logs to, over all restarts.
func (w *world) log() string { return filepath.Join(w.dir, "hallmark.log") }

// auditLog is where the API server records requests and what the webhook adds to them.
func (w *world) auditLog() string { return filepath.Join(w.dir, "audit.log") }

// checkLog finds what must never be in a log: errors, panics among them, and secrets of pods.
func checkLog(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, secret) || !strings.Contains(line, `"level":"INFO"`) && !strings.Contains(line, `"level":"WARN"`) {
			errs = append(errs, fmt.Errorf("in the log of hallmark: %s", line))
		}
	}
	return errors.Join(errs...)
}

// prepare creates what stands around the webhook: its Service, a role for what edit leaves out, kubectl debug first of
// all, and a node, for which DaemonSets make pods although nothing runs them.
func (w *world) prepare(ctx context.Context) error {
	core := w.Client().CoreV1()
	if err := w.CreateNamespace(ctx, systemNamespace); err != nil {
		return err
	}
	service, err := core.Services(systemNamespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "hallmark"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 443}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	w.listen = net.JoinHostPort(service.Spec.ClusterIP, "443")
	if os.Geteuid() != 0 { // who may not bind that port
		w.listen, w.byURL = net.JoinHostPort(service.Spec.ClusterIP, "9443"), true
	}
	_, err = w.Client().RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "more"},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Verbs: []string{"get", "create", "patch", "update"},
			Resources: []string{"pods/ephemeralcontainers", "pods/resize", "podtemplates"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = core.Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{})
	return err
}

// register creates both configurations as they stand in testdata.
func (w *world) register(ctx context.Context) error {
	authority, err := os.ReadFile(w.CA)
	if err != nil {
		return err
	}
	var mutating admissionregistrationv1.MutatingWebhookConfiguration
	var validating admissionregistrationv1.ValidatingWebhookConfiguration
	if err := errors.Join(
		readConfiguration("mutating.yaml", authority, &mutating),
		readConfiguration("validating.yaml", authority, &validating),
	); err != nil {
		return err
	}
	if w.byURL {
		for _, c := range []*admissionregistrationv1.WebhookClientConfig{
			&mutating.Webhooks[0].ClientConfig, &validating.Webhooks[0].ClientConfig,
		} {
			url := "https://" + w.listen + *c.Service.Path
			c.URL, c.Service = &url, nil
		}
	}
	registrations := w.Client().AdmissionregistrationV1()
	_, err = registrations.MutatingWebhookConfigurations().Create(ctx, &mutating, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = registrations.ValidatingWebhookConfigurations().Create(ctx, &validating, metav1.CreateOptions{})
	return err
}

// readConfiguration decodes a file of testdata with the authority filled in. A field that does not exist is an error.
func readConfiguration(name string, authority []byte, into any) error {
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		return err
	}
	bundle := base64.StdEncoding.EncodeToString(authority)
	text, err = yaml.ToJSON(bytes.ReplaceAll(text, []byte("CA_BUNDLE"), []byte(bundle)))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// waitRegistered returns when the API server calls both halves, which it learns of some time after they are registered,
// and after a restart when its connections to the old process are gone.
func (w *world) waitRegistered(ctx context.Context) error {
	return poll(ctx, func() error {
		good, err := w.try(ctx, w.ref("golden/ws:v1.0.0"))
		if err != nil {
			return fmt.Errorf("a good pod is refused: %w", err)
		}
		if got := good.Spec.Containers[0].Image; got != w.pinned("golden/ws:v1.0.0") {
			return fmt.Errorf("a good pod is not pinned: %s", got)
		}
		if _, err := w.try(ctx, foreignImage); !apierrors.IsForbidden(err) {
			return fmt.Errorf("a bad pod is not refused as Forbidden, but with reason %q", apierrors.ReasonForError(err))
		}
		return nil
	})
}

// try is a dry run of a pod with an image.
func (w *world) try(ctx context.Context, image string) (*corev1.Pod, error) {
	return w.Client().CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "probe"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "dev", Image: image}}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// ref is an image of the fixture as it is written in a pod: ref("golden/ws:v1.0.0").
func (w *world) ref(image string) string { return w.Registry + "/" + image }

// pinned is the same with its digest.
func (w *world) pinned(image string) string { return w.ref(image) + "@" + w.Digests[image] }
