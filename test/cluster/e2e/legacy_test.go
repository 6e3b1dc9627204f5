package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// createLegacy creates what is older than the webhook and would be refused today. Each test of it has a pod of its own.
func (w *world) createLegacy(ctx context.Context) error {
	if err := w.CreateNamespace(ctx, legacyNamespace); err != nil {
		return err
	}
	in := "--namespace=" + legacyNamespace
	for _, args := range [][]string{
		{"run", "debugged", "--image=" + w.ref("golden/ws:v1.0.0")},
		{"debug", "debugged", "--container=old", "--image=" + foreignImage},
		{"run", "updated", "--image=" + foreignImage},
		{"run", "changed", "--image=" + foreignImage},
		{"run", "held", "--image=" + foreignImage, `--overrides={"metadata":{"finalizers":["example.com/hold"]}}`},
		{"create", "deployment", "old", "--image=" + foreignImage},
	} {
		if _, _, err := w.Kubectl(ctx, "", append(args, in)...); err != nil {
			return err
		}
	}
	return poll(ctx, func() error {
		deployment, err := w.Client().AppsV1().Deployments(legacyNamespace).Get(ctx, "old", metav1.GetOptions{})
		if err == nil && deployment.Status.Replicas != 1 {
			err = errors.New("the deployment has no pod yet")
		}
		return err
	})
}

// legacySession is at home in the namespace of old objects.
func legacySession(t *testing.T) session { return session{t, legacyNamespace, developer} }

// TestDebugOldPod: a good ephemeral container is admitted beside a bad one that is older than the webhook; another bad
// one is not.
func TestDebugOldPod(t *testing.T) {
	s := legacySession(t)
	s.ok(nil, "debug", "debugged", "--container=good", "--image="+w.ref("golden/tools:v1.0.0"))
	got := placesOf(&s.pod("debugged").Spec)
	if got["ephemeralContainers[old]"] != foreignImage || got["ephemeralContainers[good]"] != w.pinned("golden/tools:v1.0.0") {
		t.Errorf("the pod has %v", got)
	}
	refusal := s.refused(nil, "debug", "debugged", "--container=bad", "--image="+foreignImage)
	s.contains(refusal, "- ephemeralContainers[bad]: registry: ")
	if strings.Contains(refusal, "[old]") {
		t.Errorf("what was there before is held against it: %s", refusal)
	}
}

// TestOldPodChanges: an old pod is judged when its image changes, and only then.
func TestOldPodChanges(t *testing.T) {
	s := legacySession(t)
	s.contains(s.refused(nil, "set", "image", "pod/changed", "changed=evil.example/y:v1.0.0"), "Image evil.example/y:v1.0.0 is not allowed")
	s.ok(nil, "set", "image", "pod/changed", "changed="+w.ref("golden/ws:v1.0.0"))
	checkPinned(t, s.pod("changed"), map[string]string{"containers[changed]": "golden/ws:v1.0.0"})
}

// TestOldDeployment: it may be scaled, but no pod comes of it, and who looks why finds the message in an event.
func TestOldDeployment(t *testing.T) {
	s := legacySession(t)
	s.ok(nil, "annotate", "deployment/old", "example.com/note=x")
	s.ok(nil, "scale", "deployment/old", "--replicas=2")
	s.eventually(func() error {
		got := s.ok(nil, "describe", "replicaset", "--selector=app=old")
		for _, part := range []string{
			"Error creating: " + denied + "Image " + foreignImage + " is not allowed.",
			"- containers[x]: registry: evil.example is not an internal registry",
		} {
			if !strings.Contains(got, part) {
				return fmt.Errorf("%q is not in\n%s", part, got)
			}
		}
		return nil
	})
	pods := s.ok(nil, "get", "pods", "--selector=app=old", "-o", "name")
	if strings.Count(pods, "pod/") != 1 {
		t.Errorf("pods: %s", pods)
	}
}
