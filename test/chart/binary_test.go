package chart

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// build compiles the product, whose module is another.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "hallmark")
	command := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/hallmark")
	command.Dir = "../.."
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build hallmark: %v\n%s", err, out)
	}
	return binary
}

// TestBinary gives the product what the chart renders for it.
func TestBinary(t *testing.T) {
	binary := build(t)
	for name, values := range sets() {
		t.Run(name, func(t *testing.T) {
			i := install(t, values)
			for _, component := range []string{"webhook", "controller"} {
				if i.names()["Deployment/hallmark-"+component] {
					t.Run("flags of the "+component, func(t *testing.T) { checkFlags(t, i.container(component).Args, binary) })
				}
			}
			if doctor := i.doctor(); doctor != nil {
				t.Run("flags of doctor", func(t *testing.T) { checkFlags(t, doctor.Spec.Containers[0].Args, binary) })
			}
			t.Run("configuration", func(t *testing.T) { checkConfig(t, i, binary) })
		})
	}
	// What would be contacted is nowhere, and there is no Kubernetes to read pull secrets from.
	enforce := strings.NewReplacer("registry.corp.example:5000", "127.0.0.1:1", "pullSecrets: {enabled: true}", "").Replace(enforceValues)
	for name, values := range map[string]string{"default": ``, "enforce": enforce, "all": sets()["all"]} {
		t.Run("serve "+name, func(t *testing.T) { checkServe(t, install(t, values), binary) })
	}
}

// checkFlags has the arguments of a container read by the command that they are for; --help ends it.
func checkFlags(t *testing.T, args []string, binary string) {
	args = append(slices.Clone(args), "--help")
	out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "hallmark "+args[0]+" ") {
		t.Errorf("hallmark %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// checkConfig has the configuration decoded strictly. Files that it names are Secrets of the cluster.
func checkConfig(t *testing.T, i *installed, binary string) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(i.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), binary, "check", "--offline", "--config", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\nof\n%s", err, out, i.config())
	}
}

// mounted makes the filesystem of the webhook's pod below a directory: ConfigMaps as they are rendered, with paths moved, and
// what stands in Secrets and ConfigMaps of the admin's.
func mounted(t *testing.T, i *installed, root string) {
	t.Helper()
	sources := map[string]corev1.Volume{}
	for _, v := range i.pod("webhook").Volumes {
		sources[v.Name] = v
	}
	for _, m := range i.container("webhook").VolumeMounts {
		if m.SubPath != "" {
			t.Errorf("%s is mounted by subPath, and would not follow its source", m.Name)
		}
		dir := filepath.Join(root, m.MountPath)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		source := sources[m.Name]
		data := map[string]string{}
		switch {
		case source.ConfigMap != nil && i.names()["ConfigMap/"+source.ConfigMap.Name]:
			maps.Copy(data, get[*corev1.ConfigMap](i, source.ConfigMap.Name).Data)
		case m.Name == "cache":
			continue
		case m.Name == "tls":
			data["tls.crt"], data["tls.key"] = newCertificate(t)
		case m.Name == "file-registry":
			data["ca.pem"], _ = newCertificate(t)
		case m.Name == "file-signers":
			data["ci.pub"] = newPublicKey(t)
		}
		for name, text := range data {
			data[name] = strings.NewReplacer("/etc/hallmark/", root+"/etc/hallmark/", "/var/cache/", root+"/var/cache/").Replace(text)
		}
		if err := project(dir, data); err != nil {
			t.Fatal(err)
		}
	}
}

// project writes files as a kubelet does: into a directory of their own, behind two symbolic links.
func project(dir string, data map[string]string) error {
	const version = "..2026_11_21_16_00_00.1"
	err := errors.Join(os.Mkdir(filepath.Join(dir, version), 0o700), os.Symlink(version, filepath.Join(dir, "..data")))
	for name, text := range data {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, version, name), []byte(text), 0o600),
			os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
	return err
}

// checkServe starts the webhook with the arguments and files of its pod, asks it whether it is ready, and ends it. Only
// paths and ports are others.
func checkServe(t *testing.T, i *installed, binary string) {
	root := t.TempDir()
	mounted(t, i, root)
	var args []string
	for _, arg := range i.container("webhook").Args {
		if name, _, found := strings.Cut(arg, "listen=:"); found {
			arg = name + "listen=127.0.0.1:0"
		}
		if strings.HasPrefix(arg, "--shutdown-delay=") {
			arg = "--shutdown-delay=0s"
		}
		args = append(args, strings.ReplaceAll(arg, "=/etc/hallmark/", "="+root+"/etc/hallmark/"))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, binary, args...)
	command.Env = []string{"HOME=/nonexistent", "TMPDIR=/nonexistent"} // the root filesystem of the pod can be written nowhere
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var said struct{ Msg, Address, Metrics string }
	lines := bufio.NewScanner(stderr)
	var log []string
	for said.Msg != "serving" && lines.Scan() {
		log = append(log, lines.Text())
		_ = json.Unmarshal(lines.Bytes(), &said)
	}
	rest := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, stderr); rest <- err }()
	if said.Msg == "serving" {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		for _, url := range []string{"https://" + said.Address + "/readyz", "https://" + said.Address + "/livez", "http://" + said.Metrics + "/metrics"} {
			if response, err := client.Get(url); err != nil || response.StatusCode != http.StatusOK {
				t.Errorf("%s: %v %v", url, response, err)
			} else {
				response.Body.Close()
			}
		}
		if err := command.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(<-rest, command.Wait()); err != nil || said.Msg != "serving" {
		t.Errorf("hallmark %s: %v\n%s", strings.Join(args, " "), err, strings.Join(log, "\n"))
	}
}

func newPublicKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// newCertificate gives a self-signed certificate and its key.
func newCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"hallmark-webhook.hallmark-system.svc"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// TestConfigKeys: the schema knows the keys at the top of the configuration file, so that Helm refuses a typo before it is in
// the cluster; the file's own decoder knows all of them.
func TestConfigKeys(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties struct {
			Config struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for key := range schema.Properties.Config.Properties {
		got[key] = true
	}
	source, err := os.ReadFile("../../webhook/config/file.go")
	if err != nil {
		t.Fatal(err)
	}
	_, file, _ := strings.Cut(string(source), "type File struct {")
	file, _, _ = strings.Cut(file, "\n}")
	want := map[string]bool{}
	for line := range strings.Lines(file) {
		if _, tag, found := strings.Cut(line, `yaml:"`); found {
			want[strings.TrimSuffix(strings.TrimSpace(tag), "\"`")] = true
		}
	}
	if !reflect.DeepEqual(got, want) || len(want) < 20 {
		t.Errorf("the schema knows %v\nthe file has %v", fmt.Sprint(got), fmt.Sprint(want))
	}
}
