package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hallmark-admission/hallmark/test/cluster/fixture"
)

// session is somebody at a terminal, in one namespace.
type session struct {
	*testing.T
	namespace string
	user      string
}

// newSession makes a namespace, whose name begins with the prefix, and gives it to the developer.
func newSession(t *testing.T, prefix string) session {
	t.Helper()
	name := prefix + "-" + strings.ToLower(rand.Text()[:6])
	if err := w.CreateNamespace(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	offset := logSize(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("decisions in %s:\n%s", name, strings.Join(decisions(t, offset, `"namespace":"`+name+`"`), "\n"))
		}
	})
	return session{t, name, developer}
}

// on is the same for a subtest.
func (s session) on(t *testing.T) session {
	s.T = t
	return s
}

// as is somebody else in the same namespace.
func (s session) as(user string) session {
	s.user = user
	return s
}

// in is the same person in another namespace.
func (s session) in(namespace string) session {
	s.namespace = namespace
	return s
}

// kubectl runs it; the object, if any, is its standard input.
func (s session) kubectl(o object, args ...string) (stdout, stderr string, err error) {
	stdin := ""
	if o != nil {
		stdin = encode(s.T, o)
	}
	return w.Kubectl(s.Context(), stdin, append([]string{"--context=" + s.user, "--namespace=" + s.namespace}, args...)...)
}

// ok runs what must succeed without a warning, and gives standard output without the newline at its end.
func (s session) ok(o object, args ...string) string {
	s.Helper()
	stdout, stderr, err := s.kubectl(o, args...)
	if err != nil {
		s.Fatal(err)
	}
	if stderr != "" {
		s.Errorf("kubectl %s says: %s", strings.Join(args, " "), stderr)
	}
	return strings.TrimSuffix(stdout, "\n")
}

// refused runs what must fail and gives standard error.
func (s session) refused(o object, args ...string) string {
	s.Helper()
	stdout, stderr, err := s.kubectl(o, args...)
	if err == nil {
		s.Errorf("kubectl %s was not refused: %s", strings.Join(args, " "), stdout)
	}
	return stderr
}

// pod is a pod as it is stored.
func (s session) pod(name string) *corev1.Pod {
	s.Helper()
	pod, err := w.Client().CoreV1().Pods(s.namespace).Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return pod
}

// absent fails when there is such a pod.
func (s session) absent(name string) {
	s.Helper()
	stdout, _, err := s.kubectl(nil, "get", "pod", name, "--ignore-not-found", "-o", "name")
	if err != nil || stdout != "" {
		s.Errorf("pod %s is stored: %s %v", name, stdout, err)
	}
}

// eventually waits for a condition that others bring about.
func (s session) eventually(check func() error) {
	s.Helper()
	if err := poll(s.Context(), check); err != nil {
		s.Fatal(err)
	}
}

// order tells the fixture to do something.
func order(t *testing.T, line ...string) fixture.Answer {
	t.Helper()
	a, err := w.Do(line...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// stopRegistry has the registry cut, or stall, every connection, until the test ends or calls the function. That returns
// when the webhook, which leaves a registry alone for a while after failures, asks it again.
func stopRegistry(t *testing.T, how string) (start func()) {
	t.Helper()
	order(t, how)
	order(t, "reset")
	start = sync.OnceFunc(func() {
		order(t, "start-registry")
		image := w.ref(newImage(t, true))
		if err := poll(context.Background(), func() error { // the context of the test is done when it cleans up
			_, err := w.try(context.Background(), image)
			return err
		}); err != nil {
			t.Errorf("the webhook does not come back to the registry: %v", err)
		}
	})
	t.Cleanup(start)
	return start
}

// noRequests fails when anybody asked the registry for anything since it was stopped.
func noRequests(t *testing.T) {
	t.Helper()
	if asked := order(t, "requests").Asked; len(asked) > 0 {
		t.Errorf("the registry was asked: %s", strings.Join(asked, ", "))
	}
}

// newImage pushes an image that nobody has ever seen and gives its name without the registry. It is signed, or not.
func newImage(t *testing.T, signed bool) string {
	t.Helper()
	number := ""
	for _, c := range []byte(rand.Text()[:8]) {
		number += string('0' + c%10)
	}
	tag := "v7.0.1" + number
	digest := order(t, "push", "golden/ws", tag, "1000").Digest
	if signed {
		order(t, "sign", "golden/ws", digest)
	}
	w.Digests["golden/ws:"+tag] = digest
	return "golden/ws:" + tag
}

const (
	// fromServer is what kubectl puts in front of a refusal of a file, and onServer of anything else.
	fromServer = `Error from server (Forbidden): error when creating "STDIN": `
	onServer   = `Error from server (Forbidden): `
	// denied is what the API server puts in front of the message.
	denied = `admission webhook "judge.hallmark.dev" denied the request: `
)

var decisionID = regexp.MustCompile(` · decision ([0-9a-f]{8})\n`)

// checkRefusal compares all that kubectl printed: its own words, those of the API server, the lines of the message and
// the last one. It gives the decision's id, under which the log of the webhook has the decision.
func (s session) checkRefusal(got, prefix string, lines ...string) (id string) {
	s.Helper()
	want := prefix + denied + strings.Join(lines, "\n") + "\npolicy " + w.hallmark.policy + " · decision "
	before, rest, _ := strings.Cut(got, " · decision ")
	if match := decisionID.FindStringSubmatch(got); match != nil && rest == match[1]+"\n" {
		id = match[1]
	}
	if before+" · decision " != want || id == "" {
		s.Errorf("kubectl printed\n%s\nwant\n%sXXXXXXXX", got, want)
		return id
	}
	if len(decisions(s.T, 0, `"id":"`+id+`"`)) != 1 {
		s.Errorf("the log has no decision %s", id)
	}
	return id
}

// contains fails when a text lacks any of the parts.
func (s session) contains(text string, parts ...string) {
	s.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			s.Errorf("%q is not in\n%s", part, text)
		}
	}
}

func logSize(t *testing.T) int64 {
	t.Helper()
	info, err := os.Stat(w.log())
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// decisions are the lines of the webhook's log after an offset that contain a text.
func decisions(t *testing.T, offset int64, part string) []string {
	t.Helper()
	text, err := os.ReadFile(w.log())
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text[offset:])) {
		if strings.Contains(line, `"msg":"decision"`) && strings.Contains(line, part) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// object is a Kubernetes object under construction.
type object map[string]any

// newPod has one container, dev, with an image.
func newPod(name, image string) object {
	return object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name},
		"spec": object{"containers": []any{container("dev", image)}},
	}
}

func container(name, image string) object { return object{"name": name, "image": image} }

// with sets a field of the spec.
func (o object) with(name string, value any) object {
	o["spec"].(object)[name] = value
	return o
}

// meta sets a field of the metadata.
func (o object) meta(name string, value any) object {
	o["metadata"].(object)[name] = value
	return o
}

func encode(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// placesOf gives the images of a pod by the names that messages and annotations have for their places.
func placesOf(spec *corev1.PodSpec) map[string]string {
	places := map[string]string{}
	add := func(list string, c corev1.Container) {
		where := fmt.Sprintf("%s[%s]", list, c.Name)
		places[where] = c.Image
		for _, e := range c.Env {
			if e.Name == "CODER_INNER_IMAGE" {
				places[where+".env["+e.Name+"]"] = e.Value
			}
		}
		for _, arg := range c.Args {
			if image, found := strings.CutPrefix(arg, "--image="); found {
				places[where+".arg[--image]"] = image
			}
		}
	}
	for _, c := range spec.InitContainers {
		add("initContainers", c)
	}
	for _, c := range spec.Containers {
		add("containers", c)
	}
	for _, c := range spec.EphemeralContainers {
		add("ephemeralContainers", corev1.Container(c.EphemeralContainerCommon))
	}
	for _, v := range spec.Volumes {
		if v.Image != nil {
			places["volumes["+v.Name+"]"] = v.Image.Reference
		}
	}
	return places
}
