package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestExcludedNamespaces: where the cluster itself and the webhook live nothing is touched, and nobody is asked.
func TestExcludedNamespaces(t *testing.T) {
	for _, namespace := range []string{"kube-system", "kube-public", "kube-node-lease", systemNamespace} {
		t.Run(namespace, func(t *testing.T) {
			s := session{t, namespace, "admin"}
			o := newPod("foreign", foreignImage)
			offset := logSize(t)
			s.ok(o, "create", "-f", "-")
			pod := s.pod("foreign")
			if got := placesOf(&pod.Spec)["containers[dev]"]; got != foreignImage || len(pod.Annotations) > 0 {
				t.Errorf("stored with image %s and annotations %v", got, pod.Annotations)
			}
			if asked := decisions(t, offset, `"namespace":"`+namespace+`"`); len(asked) > 0 {
				t.Errorf("the webhook was asked: %s", asked)
			}
			s.ok(nil, "delete", "pod", "foreign")
		})
	}
}

// TestLookAlikeNamespaces: only the exact names are excluded, and no label makes another namespace one of them.
func TestLookAlikeNamespaces(t *testing.T) {
	for _, prefix := range []string{"kube-system", "xkube-system", "kube-public", "hallmark-system"} {
		s := newSession(t, prefix)
		s.contains(s.refused(newPod("ws", foreignImage), "create", "-f", "-"), "Image "+foreignImage+" is not allowed")
	}
	s := newSession(t, "labels")
	for _, label := range []string{
		"kubernetes.io/metadata.name=kube-system", "kubernetes.io/metadata.name-", "hallmark.dev/ignore=true", "control-plane=true",
	} {
		// The API server may refuse the label or restore its own; what counts is what comes of it.
		_, _, _ = s.as("admin").kubectl(nil, "label", "namespace", s.namespace, label, "--overwrite")
		s.contains(s.refused(newPod("ws", foreignImage), "create", "-f", "-"), "Image "+foreignImage+" is not allowed")
	}
}

// TestForgedOrigins: neither an annotation nor an owner nor a label exempts a pod, whoever it claims to come from.
func TestForgedOrigins(t *testing.T) {
	s := newSession(t, "forged")
	bad := func() object { return newPod("ws", foreignImage) }
	mirror := func(name string) object {
		return newPod(name, foreignImage).meta("annotations", object{"kubernetes.io/config.mirror": "abc"}).with("nodeName", "n1")
	}
	owner := []any{object{
		"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "6e1f0a52-0000-4000-8000-000000000000", "controller": true,
	}}
	for title, o := range map[string]object{
		"mirror annotation": mirror("ws"),
		"owner":             bad().meta("ownerReferences", owner),
		"our annotations": bad().meta("annotations", object{
			"hallmark.dev/images": `{"containers[dev]":{"digest":"` + w.Digests["golden/ws:v1.0.0"] + `"}}`, "hallmark.dev/policy": "x"}),
		"break-glass annotation": bad().meta("annotations", object{"hallmark.dev/exempt": "true", "hallmark.dev/break-glass": "incident 7"}),
		"labels":                 bad().meta("labels", object{"hallmark.dev/exempt": "true", "com.coder.resource": "true"}),
		"assigned to a node":     bad().with("nodeName", "n1"),
	} {
		t.Run(title, func(t *testing.T) {
			s := s.on(t)
			s.checkRefusal(s.refused(o, "create", "-f", "-"), fromServer, "Image "+foreignImage+" is not allowed.",
				"- containers[dev]: golden: x is not a golden image",
				"- containers[dev]: registry: evil.example is not an internal registry")
		})
	}
	t.Run("impersonation", func(t *testing.T) {
		s := s.on(t)
		s.contains(s.refused(mirror("ws"), "create", "--validate=false", "-f", "-", "--as="+node, "--as-group=system:nodes"), "cannot impersonate")
	})
	t.Run("good image with an owner", func(t *testing.T) {
		s := s.on(t)
		o := newPod("owned", w.ref("golden/ws:v1.0.0")).meta("ownerReferences", owner)
		got := s.ok(o, "create", "--dry-run=server", "-f", "-", "-o", "jsonpath={.spec.containers[0].image}")
		if got != w.pinned("golden/ws:v1.0.0") {
			t.Errorf("stored as %s", got)
		}
	})
	t.Run("mirror pod of a kubelet", func(t *testing.T) { // it runs already; refusing it would only hide it
		s := s.on(t).as(node)
		got := s.ok(mirror("mirror"), "create", "-f", "-", "-o", "jsonpath={.spec.containers[0].image}{.metadata.annotations}")
		if got != foreignImage+`{"kubernetes.io/config.mirror":"abc"}` {
			t.Errorf("stored as %s", got)
		}
	})
	t.Run("other pod of a kubelet", func(t *testing.T) {
		s := s.on(t).as(node)
		s.contains(s.refused(bad(), "create", "-f", "-"), "Image "+foreignImage+" is not allowed")
	})
	t.Run("labels changed through the status", func(t *testing.T) {
		s := s.on(t)
		s.ok(newPod("status", w.ref("golden/ws:v1.0.0")), "create", "-f", "-")
		s.as("admin").ok(nil, "patch", "pod", "status", "--subresource=status", "-p", `{"metadata":{"labels":{"hallmark.dev/exempt":"true"}}}`)
		s.contains(s.refused(nil, "set", "image", "pod/status", "dev="+foreignImage), "Image "+foreignImage+" is not allowed")
	})
}

// TestWarnMode: the pod is stored, and kubectl shows what would refuse it, a warning for each line of the refusal.
func TestWarnMode(t *testing.T) {
	s, enforced := newSession(t, "warn"), newSession(t, "enforced")
	for title, o := range map[string]object{
		"foreign registry": newPod("foreign", foreignImage),
		"not signed":       newPod("unsigned", w.ref("golden/ws:v9.9.9")),
		"rolling tag":      newPod("rolling", w.ref("golden/ws:latest")),
		"root":             newPod("root", w.ref("golden/root:v1.0.0")),
		"deployment":       newWorkload("Deployment", object{"containers": []any{container("dev", foreignImage)}}),
	} {
		t.Run(title, func(t *testing.T) {
			s := s.on(t)
			var want []string
			for line := range strings.Lines(enforced.on(t).refused(o, "create", "-f", "-")) {
				if finding, found := strings.CutPrefix(line, "- "); found {
					want = append(want, "Warning: hallmark: "+strings.TrimSpace(finding))
				}
			}
			stdout, stderr, err := s.kubectl(o, "create", "-f", "-")
			if err != nil || !strings.HasSuffix(stdout, " created\n") {
				t.Errorf("not stored: %s %v", stdout, err)
			}
			got := strings.Split(strings.TrimSpace(stderr), "\n")
			for i, line := range got {
				// A warning has no first line, so the fix stands here.
				for _, verb := range []string{"; set ", "; use ", "; ask "} {
					line, _, _ = strings.Cut(line, verb)
				}
				got[i] = line
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("kubectl warns\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
	t.Run("good image", func(t *testing.T) {
		s := s.on(t)
		s.ok(newPod("good", w.ref("golden/ws:v1.0.0")), "create", "-f", "-")
		checkPinned(t, s.pod("good"), dev("golden/ws:v1.0.0"))
	})
}

// TestAuditMode: the pod is stored without a word; the audit log of the cluster knows what would refuse it.
func TestAuditMode(t *testing.T) {
	s := newSession(t, "audit")
	s.ok(newPod("foreign", foreignImage), "create", "-f", "-")
	s.ok(newWorkload("Deployment", object{"containers": []any{container("dev", foreignImage)}}), "create", "-f", "-")
	s.ok(newPod("good", w.ref("golden/ws:v1.0.0")), "create", "-f", "-")
	checkPinned(t, s.pod("good"), dev("golden/ws:v1.0.0"))

	notes := auditNotes(s, "pods", "foreign")
	if notes["judge.hallmark.dev/decision"] != "allowed" || len(notes["judge.hallmark.dev/id"]) != 8 {
		t.Errorf("audit annotations: %v", notes)
	}
	s.contains(notes["judge.hallmark.dev/findings"], `"rule":"registry","mode":"audit","where":"containers[dev]"`,
		"evil.example is not an internal registry")
	s.contains(auditNotes(s, "deployments", "deployment")["judge.hallmark.dev/findings"], `"rule":"registry","mode":"audit"`)
}

// TestAuditOfRefusal: the audit log has a refused pod under the id that the developer was given.
func TestAuditOfRefusal(t *testing.T) {
	s := newSession(t, "refused")
	id := s.checkRefusal(s.refused(newPod("ws", w.ref("golden/ws:v9.9.9")), "create", "-f", "-"), fromServer,
		"Image "+w.ref("golden/ws:v9.9.9")+"@"+w.Digests["golden/ws:v9.9.9"][:19]+" is not allowed: ask the image's owner to sign it.",
		"- containers[dev]: signature: not signed by ci (no signature found)")
	notes := auditNotes(s, "pods", "ws")
	if notes["judge.hallmark.dev/decision"] != "denied" || notes["judge.hallmark.dev/id"] != id {
		t.Errorf("audit annotations: %v, want denied with id %s", notes, id)
	}
	s.contains(notes["judge.hallmark.dev/findings"], w.pinned("golden/ws:v9.9.9"))
}

// auditNotes waits for the audit event of a request of the namespace, and gives its annotations.
func auditNotes(s session, resource, name string) (notes map[string]string) {
	s.Helper()
	s.eventually(func() error {
		text, err := os.ReadFile(w.auditLog())
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			var event struct {
				ObjectRef   struct{ Resource, Namespace, Name string }
				Annotations map[string]string
			}
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				continue // the last line, half written
			}
			at := event.ObjectRef
			if at.Namespace == s.namespace && at.Resource == resource && at.Name == name {
				notes = event.Annotations
				return nil
			}
		}
		return fmt.Errorf("the audit log has no event about %s %s/%s", resource, s.namespace, name)
	})
	return notes
}
