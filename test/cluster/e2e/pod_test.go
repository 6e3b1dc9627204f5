package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// everywhere is the spec of a pod that names a good image wherever a pod can, besides the images that it names there.
func everywhere() (spec object, images map[string]string) {
	box := container("box", w.ref("golden/envbox:v1.0.0"))
	box["env"] = []any{
		object{"name": "CODER_AGENT_TOKEN", "value": secret},
		object{"name": "CODER_INNER_IMAGE", "value": w.ref("golden/coder:v1.0.0")},
	}
	box["args"] = []any{"docker", "--image=" + w.ref("golden/coder:v1.0.0")}
	dev := container("dev", w.ref("golden/ws:v1.0.0"))
	dev["volumeMounts"] = []any{object{"name": "data", "mountPath": "/data"}}
	spec = object{
		"initContainers": []any{container("setup", w.ref("golden/tools:v1.0.0"))},
		"containers":     []any{dev, box},
		"volumes":        []any{object{"name": "data", "image": object{"reference": w.ref("golden/data:v1.0.0")}}},
	}
	return spec, map[string]string{
		"initContainers[setup]":                  "golden/tools:v1.0.0",
		"containers[dev]":                        "golden/ws:v1.0.0",
		"containers[box]":                        "golden/envbox:v1.0.0",
		"containers[box].env[CODER_INNER_IMAGE]": "golden/coder:v1.0.0",
		"containers[box].arg[--image]":           "golden/coder:v1.0.0",
		"volumes[data]":                          "golden/data:v1.0.0",
	}
}

// checkPinned compares the images of a stored pod, place by place, and what the annotations say of them.
func checkPinned(t *testing.T, pod *corev1.Pod, images map[string]string) {
	t.Helper()
	pinned := map[string]string{}
	for where, image := range images {
		pinned[where] = w.pinned(image)
	}
	if got := placesOf(&pod.Spec); !maps.Equal(got, pinned) {
		t.Errorf("pod %s has images\n%v\nwant\n%v", pod.Name, got, pinned)
	}
	if got := pod.Annotations["hallmark.dev/policy"]; got != w.hallmark.policy {
		t.Errorf("annotation policy is %q, want %q", got, w.hallmark.policy)
	}
	var noted map[string]struct {
		Reference, Digest, Class string
		Time                     time.Time
	}
	if err := json.Unmarshal([]byte(pod.Annotations["hallmark.dev/images"]), &noted); err != nil {
		t.Errorf("annotation images: %v", err)
	}
	for where, image := range images {
		n := noted[where]
		if n.Reference != w.ref(image) || n.Digest != w.Digests[image] || n.Class != "exact" || time.Since(n.Time).Abs() > time.Minute {
			t.Errorf("annotation images has for %s\n%+v\nwant %s", where, n, w.pinned(image))
		}
		delete(noted, where)
	}
	if len(noted) > 0 {
		t.Errorf("annotation images has besides: %v", noted)
	}
}

// dev is what checkPinned wants of a pod with one container.
func dev(image string) map[string]string { return map[string]string{"containers[dev]": image} }

// TestPinned: a good pod is stored with a digest in every place, and the rest of it as it was written.
func TestPinned(t *testing.T) {
	s := newSession(t, "pinned")
	spec, images := everywhere()
	stored, err := w.Client().CoreV1().Pods(s.namespace).Create(t.Context(), typed(t, object{"metadata": object{"name": "ws"}, "spec": spec}),
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if stored.Spec.Volumes[0].Image == nil {
		t.Error("the API server drops image volumes, so that nobody can tell whether they are pinned")
	}
	checkPinned(t, stored, images)
	if env := stored.Spec.Containers[1].Env[0]; env.Value != secret || len(stored.Spec.Containers[1].Args) != 2 {
		t.Error("what names no image was changed")
	}
	if notes := fmt.Sprint(stored.Annotations); strings.Contains(notes, secret) {
		t.Errorf("an env value reached an annotation: %s", notes)
	}

	t.Run("generateName", func(t *testing.T) {
		s := newSession(t, "pinned")
		o := newPod("", w.ref("golden/ws:v1.0.0"))
		o["metadata"] = object{"generateName": "ws-"}
		offset := logSize(t)
		name := strings.TrimPrefix(s.ok(o, "create", "-f", "-", "-o", "name"), "pod/")
		checkPinned(t, s.pod(name), dev("golden/ws:v1.0.0"))
		for _, line := range decisions(t, offset, `"namespace":"`+s.namespace+`"`) {
			if !strings.Contains(line, `"name":"ws-`) {
				t.Errorf("a decision is logged without the name that the pod will begin with: %s", line)
			}
		}
	})
}

// typed decodes a pod as client-go has it.
func typed(t *testing.T, o object) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	if err := json.Unmarshal([]byte(encode(t, o)), &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}

// TestVerbs: every way by which kubectl can bring a pod about leads to the same.
func TestVerbs(t *testing.T) {
	s := newSession(t, "verbs")
	good := w.ref("golden/ws:v1.0.0")
	for title, args := range map[string][]string{
		"create":            {"create", "-f", "-"},
		"apply":             {"apply", "-f", "-"},
		"server-side apply": {"apply", "--server-side", "-f", "-"},
	} {
		t.Run(title, func(t *testing.T) {
			s := s.on(t)
			name := strings.ReplaceAll(title, " ", "-")
			s.ok(newPod(name, good), args...)
			checkPinned(t, s.pod(name), dev("golden/ws:v1.0.0"))
		})
	}
	t.Run("run", func(t *testing.T) {
		s := s.on(t)
		s.ok(nil, "run", "run", "--image="+good, "--env=CODER_AGENT_TOKEN="+secret)
		checkPinned(t, s.pod("run"), map[string]string{"containers[run]": "golden/ws:v1.0.0"})
	})
	t.Run("dry run", func(t *testing.T) {
		s := s.on(t)
		got := s.ok(newPod("dry", good), "create", "--dry-run=server", "-f", "-", "-o", "jsonpath={.spec.containers[0].image}")
		if got != w.pinned("golden/ws:v1.0.0") {
			t.Errorf("kubectl shows %s", got)
		}
		s.absent("dry")
	})
	t.Run("set image", func(t *testing.T) {
		s := s.on(t)
		s.ok(newPod("set", good), "create", "-f", "-")
		s.ok(nil, "set", "image", "pod/set", "dev="+w.ref("golden/tools:v1.0.0"))
		checkPinned(t, s.pod("set"), dev("golden/tools:v1.0.0"))
	})
	t.Run("swap", func(t *testing.T) {
		s := s.on(t)
		swap := func(a, b string) object {
			return newPod("swap", "").with("containers", []any{container("a", w.ref(a)), container("b", w.ref(b))})
		}
		s.ok(swap("golden/ws:v1.0.0", "golden/tools:v1.0.0"), "apply", "-f", "-")
		s.ok(swap("golden/tools:v1.0.0", "golden/ws:v1.0.0"), "apply", "-f", "-")
		checkPinned(t, s.pod("swap"), map[string]string{"containers[a]": "golden/tools:v1.0.0", "containers[b]": "golden/ws:v1.0.0"})
	})
	t.Run("by digest", func(t *testing.T) {
		s := s.on(t)
		s.ok(newPod("digest", w.pinned("golden/ws:v1.0.0")), "create", "-f", "-")
		if got := placesOf(&s.pod("digest").Spec)["containers[dev]"]; got != w.pinned("golden/ws:v1.0.0") {
			t.Errorf("stored as %s", got)
		}
	})
	t.Run("after it was signed", func(t *testing.T) {
		s := s.on(t)
		image := newImage(t, false)
		s.contains(s.refused(newPod("signed", w.ref(image)), "create", "-f", "-"), "signature: not signed by ci")
		order(t, "sign", "golden/ws", w.Digests[image])
		s.ok(newPod("signed", w.ref(image)), "create", "-f", "-")
		checkPinned(t, s.pod("signed"), dev(image))
	})
}

// TestReapply: what is applied again without a change changes nothing, although the file has a tag and the stored pod a
// digest. kubectl says "configured" of such a pod, as it sends the tag; diff asks the API server and knows better.
func TestReapply(t *testing.T) {
	for title, flags := range map[string][]string{"client-side": nil, "server-side": {"--server-side"}} {
		t.Run(title, func(t *testing.T) {
			s := newSession(t, "reapply")
			o := newPod("ws", w.ref("golden/ws:v1.0.0"))
			apply := append([]string{"apply", "-f", "-"}, flags...)
			s.ok(o, apply...)
			before := s.pod("ws")
			nextSecond(s) // times in annotations are in seconds
			if stdout, stderr, err := s.kubectl(o, append([]string{"diff", "-f", "-"}, flags...)...); err != nil {
				t.Errorf("diff sees a change: %s%s", stdout, stderr)
			}
			s.ok(o, apply...)
			after := s.pod("ws")
			if after.ResourceVersion != before.ResourceVersion {
				t.Errorf("applied again, the pod changed from\n%v\n%v\nto\n%v\n%v", placesOf(&before.Spec), before.Annotations,
					placesOf(&after.Spec), after.Annotations)
			}
		})
	}
	t.Run("workload", func(t *testing.T) {
		s := newSession(t, "reapply")
		spec, _ := everywhere()
		for _, kind := range workloads() {
			o := newWorkload(kind, spec)
			s.ok(o, "apply", "-f", "-")
			if got := s.ok(o, "apply", "-f", "-"); !strings.HasSuffix(got, " unchanged") {
				t.Errorf("applied again: %s", got)
			}
		}
	})
}

// nextSecond waits until the clock shows another second.
func nextSecond(s session) {
	now := time.Now().Truncate(time.Second)
	s.eventually(func() error {
		if !time.Now().Truncate(time.Second).After(now) {
			return fmt.Errorf("it is still %s", now)
		}
		return nil
	})
}

// TestAmbiguousJSON: where a field is given twice, what is judged is what is stored.
func TestAmbiguousJSON(t *testing.T) {
	s := newSession(t, "json")
	good := w.ref("golden/ws:v1.0.0")
	post := func(name, image string) (string, string, error) {
		stdin := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `"},"spec":{"containers":[{"name":"dev",` + image + `}]}}`
		return w.Kubectl(t.Context(), stdin, "--context="+s.user, "create", "-f", "-", "--raw=/api/v1/namespaces/"+s.namespace+"/pods")
	}
	if _, stderr, err := post("bad", `"image":"`+good+`","image":"`+foreignImage+`"`); err == nil {
		t.Error("the second image was not judged")
	} else {
		s.contains(stderr, onServer+denied+"Image "+foreignImage+" is not allowed")
	}
	if _, _, err := post("good", `"image":"`+foreignImage+`","image":"`+good+`","Image":"`+foreignImage+`"`); err != nil {
		t.Fatal(err)
	}
	checkPinned(t, s.pod("good"), dev("golden/ws:v1.0.0"))
}
