// Package chart applies the Helm chart to a real API server and has its policies judge: the expressions in them mean what
// that server makes of them. Nothing runs the pods, so the webhook is never there, which is what the backstop is for.
package chart

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hallmark-admission/hallmark/test/cluster"
	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
)

const (
	developer = "developer" // may do what edit allows
	tenant    = "tenant"    // may create and change namespaces
	values    = `
config:
  mode: enforce
  registries: [{host: "registry.corp.example:5000", repositories: ["golden/**"]}]
  namespaces: [{match: ["sandbox-*"], mode: warn}]
  breakGlass: {groups: ["hallmark:break-glass"]}
namespaceGuard: {require: ["coder-*"]}
`
	digest  = "@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	good    = "registry.corp.example:5000/golden/base:v3.2.1" + digest
	foreign = "evil.example/x:v1" + digest
	tag     = "registry.corp.example:5000/golden/base:v3.2.1"

	refusal     = `ValidatingAdmissionPolicy 'hallmark-backstop-enforce' with binding 'hallmark-backstop-enforce' denied request: `
	ofUpdate    = `ValidatingAdmissionPolicy 'hallmark-backstop-enforce-update' with binding 'hallmark-backstop-enforce-update' denied request: `
	notInternal = `Image "` + foreign + `" is not allowed: use one of registry.corp.example:5000/golden/**`
	notPinned   = `Image "` + tag + `" has no digest: the webhook of Hallmark, which pins images, did not answer; try again`
)

// render is helm template.
func render(t *testing.T, programs, values string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(programs, binaries.Helm), "template", "hallmark", "../../../charts/hallmark", "--no-hooks",
		"--namespace", "hallmark-system", "--values", "-")
	command.Stdin = strings.NewReader(values)
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, &stderr)
	}
	return string(out)
}

// person is somebody at a terminal.
type person struct {
	*testing.T
	*cluster.Cluster
	user      string
	namespace string
}

func (p person) kubectl(stdin string, args ...string) (stdout, stderr string, err error) {
	p.Helper()
	return p.Kubectl(p.Context(), stdin, append([]string{"--context=" + p.user, "--namespace=" + p.namespace}, args...)...)
}

// ok runs what must succeed.
func (p person) ok(stdin string, args ...string) string {
	p.Helper()
	stdout, _, err := p.kubectl(stdin, args...)
	if err != nil {
		p.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return stdout
}

// refused runs what must fail, and say so.
func (p person) refused(want, stdin string, args ...string) {
	p.Helper()
	stdout, stderr, err := p.kubectl(stdin, args...)
	if err == nil || !strings.Contains(stderr, want) {
		p.Errorf("kubectl %s: %s%s\nwant %s", strings.Join(args, " "), stdout, stderr, want)
	}
}

// run tries a pod without storing it.
func (p person) run(image string) []string {
	return []string{"run", "probe", "--image=" + image, "--dry-run=server"}
}

// until repeats what takes a moment: API servers hear of policies by a watch.
func (p person) until(want, stdin string, args ...string) {
	p.Helper()
	p.eventually(func() error {
		stdout, stderr, err := p.kubectl(stdin, args...)
		if want == "" && err == nil || want != "" && strings.Contains(stderr, want) {
			return nil
		}
		return fmt.Errorf("kubectl %s: %s%s\nwant %q", strings.Join(args, " "), stdout, stderr, want)
	})
}

func TestChart(t *testing.T) {
	programs, err := binaries.Ensure(t.Context(), binaries.Config{Progress: t.Output()}, append(binaries.Default(), binaries.Helm)...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(t.Context(), cluster.Options{
		Dir: t.TempDir(), Binaries: programs, Log: t.Output(), Timeout: 5 * time.Minute, Controllers: true,
		Users: []cluster.User{cluster.Developer(developer), {Name: tenant, ClusterRoles: []string{"tenant"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin := person{t, c, "admin", "hallmark-system"}
	admin.ok("", "create", "clusterrole", "tenant", "--verb=get,list,create,update,patch", "--resource=namespaces")
	admin.ok("", "create", "namespace", "hallmark-system")
	for _, name := range []string{"dev", "sandbox-1", "free"} {
		admin.ok("", "create", "namespace", name)
	}
	dev := person{t, c, developer, "dev"}
	dev.ok("", "run", "old", "--image="+foreign)
	for _, name := range []string{"dev", "sandbox-1"} {
		admin.ok("", "label", "namespace", name, "hallmark.dev/enforce=true")
	}

	manifest := render(t, programs, values)
	admin.ok(manifest, "apply", "--validate=strict", "-f", "-")
	for name, other := range map[string]string{
		"default": ``,
		"without a controller": `{controller: {enabled: false}, certificates: {existingSecret: tls, caBundle: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"},
			scope: {mode: all, exclude: [free]}, webhook: {autoscaling: {enabled: true}, hostNetwork: true}, backstop: {when: always}}`,
	} {
		t.Run("applied "+name, func(t *testing.T) {
			// A caBundle has to hold a certificate, and this one is only the shape of it.
			text := strings.ReplaceAll(render(t, programs, other), "caBundle:", "# caBundle:")
			person{t, c, "admin", "hallmark-system"}.ok(text, "apply", "--validate=strict", "--dry-run=server", "-f", "-")
		})
	}
	testTypes(admin)
	// The policies are enforced (that of updates always is), and have no say before the controller notes the activation.
	dev.until(ofUpdate+`Image "evil.example/other`, "", "set", "image", "pod/old", "old=evil.example/other:v1"+digest, "--dry-run=server")
	dev.ok("", dev.run(tag)...)
	dev.ok("", dev.run(foreign)...)
	admin.ok("", "annotate", "validatingwebhookconfiguration", "hallmark", "hallmark.dev/activated=2026-01-02T03:04:05Z")
	dev.until(notInternal, "", dev.run(foreign)...)

	t.Run("backstop", func(t *testing.T) { testBackstop(person{t, c, developer, "dev"}) })
	t.Run("namespaces", func(t *testing.T) { testNamespaces(person{t, c, tenant, "dev"}) })
	t.Run("registration deleted", func(t *testing.T) { testDeleted(person{t, c, developer, "dev"}, manifest) })
	t.Run("registration active", func(t *testing.T) { testActive(person{t, c, developer, "dev"}, manifest) })
}

// testTypes: the API server knows every field that the expressions name, and finds nothing wrong with their types.
func testTypes(p person) {
	policies := p.Client().AdmissionregistrationV1().ValidatingAdmissionPolicies()
	p.eventually(func() error {
		list, err := policies.List(p.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(list.Items) != 5 {
			return fmt.Errorf("there are %d policies, want 5", len(list.Items))
		}
		for _, policy := range list.Items {
			checked := policy.Status.TypeChecking
			if checked == nil {
				return fmt.Errorf("%s was not checked", policy.Name)
			}
			for _, w := range checked.ExpressionWarnings {
				p.Errorf("%s: %s: %s", policy.Name, w.FieldRef, w.Warning)
			}
		}
		return nil
	})
}

// eventually waits for what a controller does.
func (p person) eventually(check func() error) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), 30*time.Second)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			p.Fatal(err)
		}
	}
}

// testBackstop: the webhook is registered and not active, and has been.
func testBackstop(p person) {
	p.refused(refusal+notInternal, "", p.run(foreign)...)
	p.refused(refusal+notPinned, "", p.run(tag)...)
	p.ok("", p.run(good)...)
	p.ok("", "label", "pod", "old", "touched=true")
	p.refused(ofUpdate+`Image "evil.example/other`, "", "set", "image", "pod/old", "old=evil.example/other:v1"+digest)
	volume := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "volume"}, "spec": {
		"containers": [{"name": "a", "image": %q}], "volumes": [{"name": "v", "image": {"reference": %q}}]}}`, good, foreign)
	p.refused(refusal+notInternal, volume, "create", "--dry-run=server", "-f", "-")

	free := p
	free.namespace = "free"
	free.ok("", p.run(foreign)...)
	sandbox := p
	sandbox.namespace = "sandbox-1"
	if _, stderr, err := sandbox.kubectl("", p.run(foreign)...); err != nil || !strings.Contains(stderr, "Warning: Validation failed for ValidatingAdmissionPolicy 'hallmark-backstop-warn'") {
		p.Errorf("in a namespace with mode warn: %v %s", err, stderr)
	}
	admin := p
	admin.user = "admin"
	admin.refused(refusal+`Image "evil.example/debug`, "", "debug", "old", "--image=evil.example/debug:v1"+digest)
	admin.ok("", append(p.run(foreign), "--as=someone", "--as-group=hallmark:break-glass", "--as-group=system:masters")...)
}

// testNamespaces: who may change namespaces does not decide whether they are judged.
func testNamespaces(p person) {
	const stays = "the label hallmark.dev/enforce=true has Hallmark judge the images of this namespace and stays"
	p.refused(stays, "", "label", "namespace", "dev", "hallmark.dev/enforce-")
	p.refused(stays, "", "label", "namespace", "dev", "hallmark.dev/enforce=false", "--overwrite")
	p.ok("", "label", "namespace", "dev", "other=label")
	p.refused("a namespace of this name is for workspaces", "", "create", "namespace", "coder-eve")
	p.ok("", "create", "namespace", "other-eve")
	p.ok(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "coder-eve", "labels": {"hallmark.dev/enforce": "true"}}}`, "create", "-f", "-")
	admin := p
	admin.user = "admin"
	admin.ok("", "label", "namespace", "coder-eve", "hallmark.dev/enforce-")
	admin.ok("", "create", "clusterrolebinding", "release", "--clusterrole=hallmark-release", "--user="+tenant)
	p.until("", "", "label", "namespace", "dev", "hallmark.dev/enforce-", "--dry-run=server")
}

// testDeleted: somebody deletes the registration, and nothing gets in for it; what is there can be changed and deleted.
func testDeleted(p person, manifest string) {
	admin := p
	admin.user, admin.namespace = "admin", "hallmark-system"
	admin.ok("", "delete", "validatingwebhookconfiguration", "hallmark")
	const missing = refusal + "failed to configure binding: no params found for policy binding"
	p.until(missing, "", p.run(good)...)
	p.refused(missing, "", p.run(foreign)...)
	p.refused(missing, "", p.run(tag)...)
	p.ok("", "label", "pod", "old", "touched=again", "--overwrite")
	p.refused(ofUpdate, "", "set", "image", "pod/old", "old=evil.example/other:v1"+digest)
	free := p
	free.namespace = "free"
	free.ok("", p.run(foreign)...)
	admin.ok(manifest, "apply", "-f", "-")
	p.until("", "", p.run(good)...)
}

// testActive: once the webhook is active, it has the say, and what applies the chart again leaves it active.
func testActive(p person, manifest string) {
	const rules = `{"webhooks": [{"name": "judge.hallmark.dev", "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]}`
	configurations := p.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if _, err := configurations.Patch(p.Context(), "hallmark", types.StrategicMergePatchType, []byte(rules), metav1.PatchOptions{FieldManager: "hallmark-controller"}); err != nil {
		p.Fatal(err)
	}
	p.until(`failed calling webhook "judge.hallmark.dev"`, "", p.run(foreign)...)
	p.ok("", "label", "pod", "old", "touched=at-last", "--overwrite")
	admin := p
	admin.user, admin.namespace = "admin", "hallmark-system"
	admin.ok(manifest, "apply", "-f", "-")
	after, err := configurations.Get(p.Context(), "hallmark", metav1.GetOptions{})
	if err != nil || len(after.Webhooks[0].Rules) != 1 {
		p.Errorf("the chart was applied again, and the rules are %v: %v", after.Webhooks, err)
	}
	admin.ok("", "annotate", "validatingwebhookconfiguration", "hallmark", "hallmark.dev/activated=2026-01-02T03:04:05Z")
	admin.ok(manifest, "apply", "-f", "-")
	if after, err = configurations.Get(p.Context(), "hallmark", metav1.GetOptions{}); err != nil || after.Annotations["hallmark.dev/activated"] == "" {
		p.Errorf("the chart was applied again, and the annotations are %v: %v", after.Annotations, err)
	}
	p.ok("", "delete", "pod", "old", "--wait=false")
}
