package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hallmark-admission/hallmark/test/cluster"
)

var updateGolden = flag.Bool("update", false, "write what doctor says to the golden files")

// A clinic is a cluster of its own, in which an installation is well, or not: pods are judged by nobody when they are made,
// so any may run.
type clinic struct {
	*testing.T
	*cluster.Cluster
}

const (
	nobody       = "nobody"
	doctorSystem = "hallmark-system"
)

func newClinic(t *testing.T) *clinic {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Options{
		Dir: t.TempDir(), Controllers: true, Log: t.Output(), ServiceRange: "127.97.0.0/16", Users: []cluster.User{{Name: nobody}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &clinic{t, c}
}

// must fails the test at the first error.
func (c *clinic) must(errs ...error) {
	c.Helper()
	if err := errors.Join(errs...); err != nil {
		c.Fatal(err)
	}
}

// install creates what doctor looks at, as the chart and the controller leave it behind, with two replicas on two nodes.
func (c *clinic) install() {
	c.Helper()
	ctx, core := c.Context(), c.Client().CoreV1()
	config, err1 := os.ReadFile(w.Config)
	ca, caKey, err2 := newAuthority()
	c.must(err1, err2)
	cert, key, err2 := issue(ca, caKey, "hallmark."+doctorSystem+".svc")
	c.must(err2, c.CreateNamespace(ctx, doctorSystem))
	authority := encodeCertificate(ca.Raw)
	// It has a default tag that is good; here is one that nobody has pushed.
	config = bytes.Replace(config, []byte("{name: tools,"), []byte("{name: tools, defaultTag: v8.8.8,"), 1)
	_, err1 = core.ConfigMaps(doctorSystem).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "hallmark-config"}, Data: map[string]string{"config.yaml": string(config)},
	}, metav1.CreateOptions{})
	_, err2 = core.Secrets(doctorSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "hallmark-tls"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": cert, "tls.key": key},
	}, metav1.CreateOptions{})
	c.must(err1, err2)
	c.deploy()
	var mutating admissionregistrationv1.MutatingWebhookConfiguration
	var validating admissionregistrationv1.ValidatingWebhookConfiguration
	c.must(readConfiguration("mutating.yaml", authority, &mutating), readConfiguration("validating.yaml", authority, &validating))
	registrations := c.Client().AdmissionregistrationV1()
	_, err1 = registrations.MutatingWebhookConfigurations().Create(ctx, &mutating, metav1.CreateOptions{})
	_, err2 = registrations.ValidatingWebhookConfigurations().Create(ctx, &validating, metav1.CreateOptions{})
	c.must(err1, err2)
}

// deploy makes the webhook's Deployment, and does a scheduler's and a kubelet's work for its pods.
func (c *clinic) deploy() {
	c.Helper()
	ctx, core := c.Context(), c.Client().CoreV1()
	two, labels := int32(2), map[string]string{"app": "hallmark"}
	_, err := c.Client().AppsV1().Deployments(doctorSystem).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "hallmark"},
		Spec: appsv1.DeploymentSpec{Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "webhook", Image: foreignImage}}},
		}},
	}, metav1.CreateOptions{})
	c.must(err)
	var pods *corev1.PodList
	c.must(poll(ctx, func() error {
		pods, err = core.Pods(doctorSystem).List(ctx, metav1.ListOptions{LabelSelector: "app=hallmark"})
		if err == nil && len(pods.Items) != 2 {
			err = fmt.Errorf("there are %d pods", len(pods.Items))
		}
		return err
	}))
	ready := []byte(`{"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}`)
	for i, pod := range pods.Items {
		node := fmt.Sprintf("n%d", i+1)
		_, err1 := core.Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
		err2 := core.Pods(doctorSystem).Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node},
		}, metav1.CreateOptions{})
		_, err3 := core.Pods(doctorSystem).Patch(ctx, pod.Name, types.StrategicMergePatchType, ready, metav1.PatchOptions{}, "status")
		c.must(err1, err2, err3)
	}
	c.must(poll(ctx, func() error {
		deployment, err := c.Client().AppsV1().Deployments(doctorSystem).Get(ctx, "hallmark", metav1.GetOptions{})
		if err == nil && deployment.Status.ReadyReplicas != 2 {
			err = fmt.Errorf("%d replicas are ready", deployment.Status.ReadyReplicas)
		}
		return err
	}))
}

// workspaces run good images and bad ones, and one Deployment makes many pods of the same.
func (c *clinic) workspaces() {
	c.Helper()
	ctx, core := c.Context(), c.Client().CoreV1()
	c.must(c.CreateNamespace(ctx, "team-a"), c.CreateNamespace(ctx, "team-b"))
	for _, p := range []struct{ namespace, name, image string }{
		{"team-a", "good", w.ref("golden/ws:v1.0.0")}, {"team-a", "pinned", w.pinned("golden/ws:v1.0.0")},
		{"team-a", "foreign", foreignImage}, {"team-b", "foreign", foreignImage},
		{"team-b", "unsigned", w.ref("golden/ws:v9.9.9")}, {"team-b", "root", w.ref("golden/root:v1.0.0")},
		{"team-b", "ended", "evil.example/ended:v1.0.0"},
	} {
		_, err := core.Pods(p.namespace).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: p.name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "dev", Image: p.image}}},
		}, metav1.CreateOptions{})
		c.must(err)
	}
	_, err := core.Pods("team-b").Patch(ctx, "ended", types.StrategicMergePatchType, []byte(`{"status": {"phase": "Succeeded"}}`), metav1.PatchOptions{}, "status")
	c.must(err)
	// More than two pages of a list.
	many, labels := int32(600), map[string]string{"app": "many"}
	_, err = c.Client().AppsV1().Deployments("team-b").Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "many"},
		Spec: appsv1.DeploymentSpec{Replicas: &many, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "dev", Image: w.ref("golden/ws:latest")}}},
		}},
	}, metav1.CreateOptions{})
	c.must(err)
	began := time.Now()
	for {
		deployment, err := c.Client().AppsV1().Deployments("team-b").Get(ctx, "many", metav1.GetOptions{})
		c.must(err)
		if deployment.Status.Replicas == many {
			return
		}
		if time.Since(began) > 5*time.Minute {
			c.Fatalf("after five minutes there are %d pods of %d", deployment.Status.Replicas, many)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// examine runs doctor.
func (c *clinic) examine(args ...string) (stdout, stderr string, code int) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 3*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(w.dir, "hallmark"), append([]string{"doctor", "--kubeconfig", c.Kubeconfig()}, args...)...)
	command.Env = []string{"HOME=" + c.TempDir(), "PATH=" + os.Getenv("PATH")}
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		c.Fatal(err)
	}
	return out.String(), errs.String(), command.ProcessState.ExitCode()
}

// golden compares with a file beside the command's own golden files, where the names of this run have given way to others.
func (c *clinic) golden(name, got string) {
	c.Helper()
	got = strings.ReplaceAll(strings.ReplaceAll(got, w.Registry, "registry.example.com"), w.Config, "hallmark.yaml")
	for _, r := range []struct{ pattern, with string }{
		{`many-[0-9a-f]+-[a-z0-9]{5}`, "many-HASH-ID"}, {`policy [0-9a-f]{7}`, "policy REVISION"}, {`sha256:[0-9a-f]{12,64}`, "sha256:DIGEST"},
		{`ends at [0-9TZ:-]+`, "ends at TIME"}, {`https://127\.0\.0\.1:\d+`, "https://SERVER"},
	} {
		got = regexp.MustCompile(r.pattern).ReplaceAllString(got, r.with)
	}
	path := filepath.Join("..", "..", "..", "cmd", "hallmark", "testdata", name)
	if *updateGolden {
		c.must(os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	c.must(err)
	if got != string(want) {
		c.Errorf("doctor says\n%s\nwant %s (-update writes it)\n%s", got, path, want)
	}
}

// TestDoctor examines an installation that is well but for what runs in it, one that is sick in many ways, and one of which one
// may see nothing.
func TestDoctor(t *testing.T) {
	c := newClinic(t)
	t.Run("nothing installed", func(t *testing.T) {
		out, _, code := (&clinic{t, c.Cluster}).examine("--config", w.Config)
		if code != 1 || !strings.Contains(out, "problem  ValidatingWebhookConfiguration hallmark does not exist") {
			t.Errorf("exit code %d:\n%s", code, out)
		}
	})
	c.workspaces()
	c.install()
	t.Run("well", func(t *testing.T) {
		c := &clinic{t, c.Cluster}
		out, _, code := c.examine()
		if code != 1 {
			t.Errorf("exit code %d, want 1, since pods would be refused", code)
		}
		c.golden("doctor.golden", out)
	})
	t.Run("json", func(t *testing.T) {
		c := &clinic{t, c.Cluster}
		out, _, code := c.examine("-o", "json")
		var report struct{ Pods map[string]int }
		if err := json.Unmarshal([]byte(out), &report); err != nil || code != 1 {
			t.Fatalf("exit code %d: %v", code, err)
		}
		if p := report.Pods; p["judged"] != 606 || p["distinct"] != 7 || p["allowed"] != 2 || p["refused"] != 604 {
			t.Errorf("of 606 pods, 7 of them distinct, 2 are good; got %v", p)
		}
		c.golden("doctor.json", out)
	})
	t.Run("no rights", func(t *testing.T) {
		c := &clinic{t, c.Cluster}
		out, errs, code := c.examine("--context", nobody, "--config", w.Config)
		if code != 2 || !strings.Contains(errs, "error: ") {
			t.Errorf("exit code %d, want 2: %s", code, errs)
		}
		c.golden("doctor-rights.golden", out)
	})
	t.Run("sick", func(t *testing.T) {
		c := &clinic{t, c.Cluster}
		c.sicken()
		out, _, code := c.examine("--offline")
		if code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		c.golden("doctor-sick.golden", out)
	})
	t.Run("no cluster", func(t *testing.T) {
		c := &clinic{t, c.Cluster}
		_, errs, code := c.examine("--context", "absent")
		if code != 2 || !strings.Contains(errs, `context "absent" does not exist`) {
			t.Errorf("exit code %d: %s", code, errs)
		}
	})
}

// sicken makes about every mistake that doctor knows of.
func (c *clinic) sicken() {
	c.Helper()
	ctx, registrations := c.Context(), c.Client().AdmissionregistrationV1()
	_, err1 := registrations.MutatingWebhookConfigurations().Patch(ctx, "hallmark", types.JSONPatchType, []byte(`[
		{"op": "remove", "path": "/webhooks/0/rules"},
		{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"},
		{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"},
		{"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 10}
	]`), metav1.PatchOptions{})
	other, _, err2 := newAuthority()
	c.must(err2)
	bundle, err2 := json.Marshal(encodeCertificate(other.Raw))
	c.must(err2)
	_, err2 = registrations.ValidatingWebhookConfigurations().Patch(ctx, "hallmark", types.JSONPatchType, []byte(`[
		{"op": "replace", "path": "/webhooks/0/rules", "value": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
		{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": `+string(bundle)+`},
		{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"},
		{"op": "replace", "path": "/webhooks/0/objectSelector", "value": {"matchLabels": {"judge": "me"}}},
		{"op": "replace", "path": "/webhooks/0/namespaceSelector", "value": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
	]`), metav1.PatchOptions{})
	none := []byte(`{"spec": {"replicas": 0}}`)
	_, err3 := c.Client().AppsV1().Deployments(doctorSystem).Patch(ctx, "hallmark", types.StrategicMergePatchType, none, metav1.PatchOptions{})
	c.must(err1, err2, err3, poll(ctx, func() error {
		deployment, err := c.Client().AppsV1().Deployments(doctorSystem).Get(ctx, "hallmark", metav1.GetOptions{})
		if err == nil && deployment.Status.ReadyReplicas != 0 {
			err = errors.New("replicas are left")
		}
		return err
	}))
}

// newAuthority is a CA of its own.
func newAuthority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority " + rand.Text()[:6]}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(90 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

// issue gives a serving certificate and its key, in PEM.
func issue(ca *x509.Certificate, caKey *ecdsa.PrivateKey, host string) (cert, key []byte, err error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, own.Public(), caKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(own)
	return encodeCertificate(der), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), err
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
