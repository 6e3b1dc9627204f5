package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A release is what the chart installs, by hand and beside the one that the other tests use: its configurations select the
// namespace hallmark-system, which that one leaves out.
type release struct {
	*testing.T
	namespace string
	name      string // of everything: NAME-webhook, NAME-controller, …
	dir       string
	address   string // of the Service
	config    string // a kubeconfig of the controller's service account
	serve     *process
	mounted   atomic.Pointer[string] // what the files of the certificate hold
}

const (
	releasePort = 9443 // of the Service, so that the test need not be root
	// Lifetimes with which a certificate is renewed within the test. An authority issues after 12s (a tenth of the certificate's
	// life) and stays for 40s (a third).
	certLifetime, caLifetime = "2m", "8m"
)

// TestController runs the controller with the rights of the chart, through a life in short: a webhook that nobody calls, its
// activation, lost Secrets, a leader that is killed in the middle of a rotation, and all the while admissions none of which
// may fail.
func TestController(t *testing.T) {
	r := newRelease(t)
	first := r.startController("first")
	r.waitLog(first, "serving certificate written")
	r.eventually("the controller's word that nobody answers", func() error {
		if status, text := first.get(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(text, "no replica of the webhook answers") {
			return fmt.Errorf("/readyz answers %d: %s", status, text)
		}
		return nil
	})
	r.inert()
	r.mount()
	r.startServe()
	r.waitActive()
	if status, text := first.get(t, "/readyz"); status != http.StatusOK {
		t.Errorf("/readyz of the controller answers %d: %s", status, text)
	}
	r.checkMetrics(first)
	second := r.startController("second")

	stop := r.admitAllTheTime()
	old := r.bundle()
	r.deleteSecret(r.name + "-tls")
	r.eventually("a new serving certificate", func() error { return r.hasSecret(r.name + "-tls") })
	r.deleteSecret(r.name + "-ca")
	r.eventually("a second authority beside the old", func() error {
		if now := r.bundle(); len(now) != 2 || !now[0].Equal(old[0]) {
			return fmt.Errorf("the caBundle holds %d authorities", len(now))
		}
		return nil
	})
	if err := first.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-first.done
	fresh := r.bundle()[1]
	r.eventually("a serving certificate of the new authority, by the other replica", func() error {
		if !r.served(t).issuedBy(fresh) {
			return errors.New("the webhook serves a certificate of the old authority")
		}
		return nil
	})
	r.waitLog(second, "leadership")
	r.eventually("rules that come back", r.dropRules())
	r.eventually("a caBundle without the old authority", func() error {
		if now := r.bundle(); slices.ContainsFunc(now, old[0].Equal) {
			return fmt.Errorf("the caBundle holds %d authorities", len(now))
		}
		return nil
	})
	stop()
	r.owned()
	if err := errors.Join(second.stop(), r.serve.stop()); err != nil {
		t.Error(err)
	}
	r.released()
}

// newRelease creates what the chart would, without the Deployments' pods.
func newRelease(t *testing.T) *release {
	t.Helper()
	r := &release{T: t, namespace: "managed", name: "managed", dir: t.TempDir()}
	ctx := t.Context()
	if err := w.CreateNamespace(ctx, r.namespace); err != nil {
		t.Fatal(err)
	}
	core := w.Client().CoreV1()
	service, err := core.Services(r.namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: r.name + "-webhook"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: releasePort}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.address = net.JoinHostPort(service.Spec.ClusterIP, fmt.Sprint(releasePort))
	r.createRights()
	_, err = w.Client().CoordinationV1().Leases(r.namespace).Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: r.name + "-controller"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	none := int32(0)
	labels := map[string]string{"app": "controller"}
	_, err = w.Client().AppsV1().Deployments(r.namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: r.name + "-controller"},
		Spec: appsv1.DeploymentSpec{Replicas: &none, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "controller", Image: w.pinned("golden/ws:v1.0.0")}}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.register()
	return r
}

// createRights makes the controller's service account with what the chart's Role and ClusterRole say, and a kubeconfig of it.
func (r *release) createRights() {
	r.Helper()
	ctx, account := r.Context(), r.name+"-controller"
	subject := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: r.namespace}}
	meta := metav1.ObjectMeta{Name: account}
	rule := func(group, resource string, verbs []string, names ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: strings.Split(resource, ","), Verbs: verbs, ResourceNames: names}
	}
	rbac := w.Client().RbacV1()
	_, err1 := w.Client().CoreV1().ServiceAccounts(r.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	_, err2 := rbac.Roles(r.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		rule("", "secrets", []string{"create"}),
		rule("", "secrets", []string{"get", "update"}, r.name+"-tls", r.name+"-ca"),
		rule("apps", "deployments", []string{"get"}, account),
		rule("coordination.k8s.io", "leases", []string{"get", "update"}, account),
		rule("", "events", []string{"create"}),
	}}, metav1.CreateOptions{})
	_, err3 := rbac.RoleBindings(r.namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
	}, metav1.CreateOptions{})
	_, err4 := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		rule("admissionregistration.k8s.io", "mutatingwebhookconfigurations,validatingwebhookconfigurations", []string{"get", "patch"}, r.name),
	}}, metav1.CreateOptions{})
	_, err5 := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: account},
	}, metav1.CreateOptions{})
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		r.Fatal(err)
	}
	token, err := w.Client().CoreV1().ServiceAccounts(r.namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		r.Fatal(err)
	}
	admin, err := w.RESTConfig("admin")
	if err != nil {
		r.Fatal(err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: admin.Host, CertificateAuthorityData: admin.CAData}
	config.AuthInfos["c"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "c", Namespace: r.namespace}
	config.CurrentContext = "c"
	r.config = filepath.Join(r.dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, r.config); err != nil {
		r.Fatal(err)
	}
}

// register creates both configurations without rules and caBundle, and the file of rules: those of testdata.
func (r *release) register() {
	r.Helper()
	var mutating admissionregistrationv1.MutatingWebhookConfiguration
	var validating admissionregistrationv1.ValidatingWebhookConfiguration
	if err := errors.Join(readConfiguration("mutating.yaml", nil, &mutating), readConfiguration("validating.yaml", nil, &validating)); err != nil {
		r.Fatal(err)
	}
	fail, port, patience := admissionregistrationv1.Fail, int32(releasePort), int32(10)
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": systemNamespace}}
	m, v := &mutating.Webhooks[0], &validating.Webhooks[0]
	rules, err := json.Marshal(map[string]any{m.Name: m.Rules, v.Name: v.Rules})
	if err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "rules.yaml"), rules, 0o600); err != nil {
		r.Fatal(err)
	}
	// The mutating half fails closed here, so that a call of it that goes wrong is seen.
	mutating.Name, m.Rules, m.NamespaceSelector, m.FailurePolicy, m.TimeoutSeconds = r.name, nil, selector, &fail, &patience
	validating.Name, v.Rules, v.NamespaceSelector, v.TimeoutSeconds = r.name, nil, selector, &patience
	for _, c := range []*admissionregistrationv1.WebhookClientConfig{&m.ClientConfig, &v.ClientConfig} {
		c.CABundle, c.Service.Namespace, c.Service.Name, c.Service.Port = nil, r.namespace, r.name+"-webhook", &port
	}
	registrations := w.Client().AdmissionregistrationV1()
	_, err1 := registrations.MutatingWebhookConfigurations().Create(r.Context(), &mutating, metav1.CreateOptions{})
	_, err2 := registrations.ValidatingWebhookConfigurations().Create(r.Context(), &validating, metav1.CreateOptions{})
	if err := errors.Join(err1, err2); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { // the context of the test is done then
		ctx := context.Background()
		_ = registrations.MutatingWebhookConfigurations().Delete(ctx, r.name, metav1.DeleteOptions{})
		_ = registrations.ValidatingWebhookConfigurations().Delete(ctx, r.name, metav1.DeleteOptions{})
	})
}

// replica is one process of the controller.
type replica struct {
	*process
	log     string
	address string // of its probes
}

func (r *release) startController(name string) *replica {
	r.Helper()
	c := &replica{log: filepath.Join(r.dir, name+".log")}
	var err error
	c.process, err = startProcess(r.dir, c.log, exec.Command(filepath.Join(w.dir, "hallmark"), "controller",
		"--kubeconfig", r.config, "--webhook-rules", filepath.Join(r.dir, "rules.yaml"), "--webhook-configuration", r.name,
		"--service", r.name+"-webhook", "--tls-secret", r.name+"-tls", "--ca-secret", r.name+"-ca",
		"--deployment", r.name+"-controller", "--lease", r.name+"-controller", "--dial", r.address,
		"--ca-lifetime", caLifetime, "--cert-lifetime", certLifetime, "--metrics-listen", "127.0.0.1:0", "--log-level", "debug"))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if c.ended() == "" {
			c.command.Process.Kill()
		}
		if text, _ := os.ReadFile(c.log); r.Failed() {
			r.Logf("%s:\n%s", name, text)
		}
	})
	r.eventually("the controller", func() error {
		text, _ := os.ReadFile(c.log)
		for line := range bytes.Lines(text) {
			var said struct{ Msg, Metrics string }
			if json.Unmarshal(line, &said) == nil && said.Msg == "controlling" {
				c.address = said.Metrics
				return nil
			}
		}
		return fmt.Errorf("it has not started: %s", text)
	})
	return c
}

func (c *replica) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	response, err := http.Get("http://" + c.address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func (r *release) waitLog(c *replica, msg string) {
	r.Helper()
	r.eventually(msg, func() error {
		if text, _ := os.ReadFile(c.log); !strings.Contains(string(text), `"msg":"`+msg+`"`) {
			return errors.New("the log does not say it")
		}
		return nil
	})
}

// eventually waits for what the controller does: at most its poll, the Lease of a dead leader, and the mount.
func (r *release) eventually(what string, check func() error) {
	r.Helper()
	var err error
	for range 4 {
		if err = poll(r.Context(), check); err == nil {
			return
		}
	}
	r.Fatalf("wait for %s: %v", what, err)
}

// mount does what a kubelet does with the Secret: its content appears in files, late.
func (r *release) mount() {
	ctx, stop := context.WithCancel(r.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for ctx.Err() == nil {
			secret, err := w.Client().CoreV1().Secrets(r.namespace).Get(ctx, r.name+"-tls", metav1.GetOptions{})
			if text := string(secret.Data["tls.crt"]); err == nil && (r.mounted.Load() == nil || *r.mounted.Load() != text) {
				time.Sleep(2 * time.Second)
				for file, content := range secret.Data {
					path := filepath.Join(r.dir, file)
					if os.WriteFile(path+".new", content, 0o600) == nil {
						_ = os.Rename(path+".new", path)
					}
				}
				r.mounted.Store(&text)
			}
			time.Sleep(200 * time.Millisecond)
		}
	})
	r.Cleanup(func() { stop(); group.Wait() })
	r.eventually("the mounted certificate", func() error {
		if r.mounted.Load() == nil {
			return errors.New("it is not there")
		}
		return nil
	})
}

func (r *release) startServe() {
	r.Helper()
	log := filepath.Join(r.dir, "serve.log")
	var err error
	r.serve, err = startProcess(r.dir, log, exec.Command(filepath.Join(w.dir, "hallmark"), "serve",
		"--config", w.Config, "--listen", r.address, "--metrics-listen", "",
		"--tls-cert", filepath.Join(r.dir, "tls.crt"), "--tls-key", filepath.Join(r.dir, "tls.key"), "--shutdown-delay", "0s"))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if r.serve.ended() == "" {
			r.serve.command.Process.Kill()
		}
	})
}

// try is a dry run of a pod in the namespace that the configurations select.
func (r *release) try(ctx context.Context, image string) (*corev1.Pod, error) {
	return w.Client().CoreV1().Pods(systemNamespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "probe"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "dev", Image: image}}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// inert: with certificate and caBundle, but without a webhook that answers, nobody is called.
func (r *release) inert() {
	r.Helper()
	pod, err := r.try(r.Context(), foreignImage)
	if err != nil || pod.Spec.Containers[0].Image != foreignImage {
		r.Errorf("before the webhook is active a pod is judged or changed: %v", err)
	}
}

func (r *release) waitActive() {
	r.Helper()
	r.eventually("the active webhook", func() error {
		good, err := r.try(r.Context(), w.ref("golden/ws:v1.0.0"))
		if err != nil {
			return err
		}
		if got := good.Spec.Containers[0].Image; got != w.pinned("golden/ws:v1.0.0") {
			return fmt.Errorf("a good pod is not pinned: %s", got)
		}
		if _, err := r.try(r.Context(), foreignImage); !apierrors.IsForbidden(err) {
			return fmt.Errorf("a bad pod is not refused: %w", err)
		}
		return nil
	})
}

// admitAllTheTime creates pods, and connects as an API server would that has just started, until the function is called.
// Nothing of it may fail.
func (r *release) admitAllTheTime() (stop func()) {
	ctx, cancel := context.WithCancel(r.Context())
	var group sync.WaitGroup
	var admitted, connected atomic.Int64
	group.Go(func() {
		for ctx.Err() == nil {
			pod, err := r.try(ctx, w.ref("golden/ws:v1.0.0"))
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				r.Errorf("at %s an admission failed: %v", time.Now().UTC().Format(time.RFC3339), err)
			} else if got := pod.Spec.Containers[0].Image; got != w.pinned("golden/ws:v1.0.0") {
				r.Errorf("at %s an admission passed the webhook by: %s", time.Now().UTC().Format(time.RFC3339), got)
			}
			admitted.Add(1)
			time.Sleep(20 * time.Millisecond)
		}
	})
	group.Go(func() {
		for ctx.Err() == nil {
			roots := x509.NewCertPool()
			for _, cert := range r.bundle() {
				roots.AddCert(cert)
			}
			time.Sleep(time.Second) // what it has heard of is a little old
			err := r.connect(roots)
			if err != nil {
				r.Errorf("at %s a new connection failed: %v", time.Now().UTC().Format(time.RFC3339), err)
			}
			connected.Add(1)
		}
	})
	return func() {
		cancel()
		group.Wait()
		r.Logf("%d admissions, %d new connections", admitted.Load(), connected.Load())
		if admitted.Load() < 100 || connected.Load() < 10 {
			r.Errorf("too few to show anything")
		}
	}
}

func (r *release) connect(roots *x509.CertPool) error {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	connection, err := tls.DialWithDialer(dialer, "tcp", r.address, &tls.Config{RootCAs: roots, ServerName: r.name + "-webhook." + r.namespace + ".svc"})
	if err != nil {
		return err
	}
	return connection.Close()
}

// leaf is a certificate that the webhook serves.
type leaf struct{ *x509.Certificate }

func (l leaf) issuedBy(ca *x509.Certificate) bool { return l.CheckSignatureFrom(ca) == nil }

func (r *release) served(t *testing.T) leaf {
	t.Helper()
	connection, err := tls.Dial("tcp", r.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	return leaf{connection.ConnectionState().PeerCertificates[0]}
}

// bundle is what the validating configuration trusts.
func (r *release) bundle() []*x509.Certificate {
	found, err := w.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(context.Background(), r.name, metav1.GetOptions{})
	if err != nil {
		r.Error(err)
		return nil
	}
	return certificates(r.T, found.Webhooks[0].ClientConfig.CABundle)
}

func certificates(t *testing.T, bundle []byte) []*x509.Certificate {
	t.Helper()
	var list []*x509.Certificate
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Error(err)
			continue
		}
		list = append(list, cert)
	}
	return list
}

func (r *release) hasSecret(name string) error {
	_, err := w.Client().CoreV1().Secrets(r.namespace).Get(r.Context(), name, metav1.GetOptions{})
	return err
}

func (r *release) deleteSecret(name string) {
	r.Helper()
	if err := w.Client().CoreV1().Secrets(r.namespace).Delete(r.Context(), name, metav1.DeleteOptions{}); err != nil {
		r.Fatal(err)
	}
}

// dropRules removes the validating half's rules, and gives a check that they are back.
func (r *release) dropRules() func() error {
	r.Helper()
	configurations := w.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := configurations.Patch(r.Context(), r.name, "application/json-patch+json", []byte(`[{"op": "remove", "path": "/webhooks/0/rules"}]`), metav1.PatchOptions{})
	if err != nil {
		r.Fatal(err)
	}
	return func() error {
		found, err := configurations.Get(r.Context(), r.name, metav1.GetOptions{})
		if err == nil && len(found.Webhooks[0].Rules) != 3 {
			err = fmt.Errorf("there are %d rules", len(found.Webhooks[0].Rules))
		}
		return err
	}
}

// owned: both Secrets go with the Deployment, and what the controller wrote bears its name.
func (r *release) owned() {
	r.Helper()
	deployment, err := w.Client().AppsV1().Deployments(r.namespace).Get(r.Context(), r.name+"-controller", metav1.GetOptions{})
	if err != nil {
		r.Fatal(err)
	}
	for _, name := range []string{r.name + "-tls", r.name + "-ca"} {
		secret, err := w.Client().CoreV1().Secrets(r.namespace).Get(r.Context(), name, metav1.GetOptions{})
		if err != nil {
			r.Fatal(err)
		}
		if len(secret.OwnerReferences) != 1 || secret.OwnerReferences[0].UID != deployment.UID {
			r.Errorf("Secret %s is owned by %v", name, secret.OwnerReferences)
		}
	}
	found, err := w.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(r.Context(), r.name, metav1.GetOptions{})
	if err != nil {
		r.Fatal(err)
	}
	i := slices.IndexFunc(found.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == "hallmark-controller" })
	if i < 0 {
		r.Fatalf("nothing bears the controller's name: %v", found.ManagedFields)
	}
	for _, field := range []string{"f:failurePolicy", "f:namespaceSelector", "f:service", "f:timeoutSeconds"} {
		if bytes.Contains(found.ManagedFields[i].FieldsV1.GetRawBytes(), []byte(field)) {
			r.Errorf("the controller took %s over", field)
		}
	}
	events, err := w.Client().CoreV1().Events(r.namespace).List(r.Context(), metav1.ListOptions{})
	if err != nil {
		r.Fatal(err)
	}
	for _, reason := range []string{"CreatedAuthority", "IssuedCertificate", "Activated"} {
		if !slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return e.Reason == reason && e.InvolvedObject.UID == deployment.UID }) {
			r.Errorf("no Event %s is on the Deployment", reason)
		}
	}
}

// released: a controller that was asked to end gives the Lease back.
func (r *release) released() {
	r.Helper()
	lease, err := w.Client().CoordinationV1().Leases(r.namespace).Get(r.Context(), r.name+"-controller", metav1.GetOptions{})
	if err != nil {
		r.Fatal(err)
	}
	if holder := lease.Spec.HolderIdentity; holder == nil || *holder != "" {
		r.Errorf("the Lease is not given back: %v", holder)
	}
}

func (r *release) checkMetrics(c *replica) {
	r.Helper()
	_, text := c.get(r.T, "/metrics")
	for _, line := range []string{
		"hallmark_controller_leader 1", `hallmark_certificate_expiry_timestamp_seconds{certificate="serving"} 1.`,
		`hallmark_certificate_expiry_timestamp_seconds{certificate="ca"} 1.`, `hallmark_reconciles_total{result="success"} `,
	} {
		if !strings.Contains(text, "\n"+line) {
			r.Errorf("/metrics lacks %q", line)
		}
	}
}
