package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestRefusals: what a developer reads, to the letter.
func TestRefusals(t *testing.T) {
	s := newSession(t, "refusals")
	short := func(image string) string { return w.ref(image) + "@" + w.Digests[image][:len("sha256:")+12] }
	bad := container("box", w.ref("golden/envbox:v1.0.0"))
	bad["env"] = []any{object{"name": "CODER_AGENT_TOKEN", "value": secret}, object{"name": "CODER_INNER_IMAGE", "value": foreignImage}}
	for title, c := range map[string]struct {
		pod   object
		lines []string
	}{
		"not signed": {newPod("ws", w.ref("golden/ws:v9.9.9")), []string{
			"Image " + short("golden/ws:v9.9.9") + " is not allowed: ask the image's owner to sign it.",
			"- containers[dev]: signature: not signed by ci (no signature found)",
		}},
		"foreign registry": {newPod("ws", "evil.example/team/ws:v1.0.0"), []string{
			"Image evil.example/team/ws:v1.0.0 is not allowed: use " + w.ref("golden/ws:v1.0.0") + ".",
			"- containers[dev]: golden: team/ws is not a golden image",
			"- containers[dev]: registry: evil.example is not an internal registry",
		}},
		"root": {newPod("ws", w.ref("golden/root:v1.0.0")), []string{
			"Image " + short("golden/root:v1.0.0") + " is not allowed: set securityContext.runAsUser to the image's numeric user, not 0.",
			"- containers[dev]: user: runs as root (USER of the image)",
		}},
		"rolling tag": {newPod("ws", w.ref("golden/ws:latest")), []string{
			"Image " + w.ref("golden/ws:latest") + " is not allowed: use " + w.ref("golden/ws:v1.0.0") + ".",
			`- containers[dev]: tag: "latest" names whatever is newest; allowed here: exact`,
		}},
		"good and bad": {newPod("ws", w.ref("golden/ws:v1.0.0")).
			with("initContainers", []any{container("setup", "busybox")}).
			with("containers", []any{container("dev", w.ref("golden/ws:v1.0.0")), bad}).
			with("volumes", []any{object{"name": "data", "image": object{"reference": foreignImage}}}), []string{
			"Image docker.io/library/busybox is not allowed (and 2 more images).",
			"- initContainers[setup]: golden: library/busybox is not a golden image",
			"- initContainers[setup]: registry: docker.io is not an internal registry",
			`- initContainers[setup]: tag: the tag is missing, which means latest; allowed here: exact`,
			"- containers[box]: env CODER_INNER_IMAGE evil.example/x:v1.0.0: golden: x is not a golden image",
			"- containers[box]: env CODER_INNER_IMAGE evil.example/x:v1.0.0: registry: evil.example is not an internal registry",
			"- volumes[data]: golden: x is not a golden image",
			"- volumes[data]: registry: evil.example is not an internal registry",
		}},
	} {
		t.Run(title, func(t *testing.T) {
			s := s.on(t)
			s.checkRefusal(s.refused(c.pod, "create", "-f", "-"), fromServer, c.lines...)
			s.absent("ws")
		})
	}
}

// TestRefusedVerbs: whatever the command, what it prints is kubectl's own words, the webhook's name and the message.
func TestRefusedVerbs(t *testing.T) {
	s := newSession(t, "refusals")
	latest := w.ref("golden/ws:latest")
	s.ok(newPod("there", w.ref("golden/ws:v1.0.0")), "apply", "-f", "-")
	s.ok(nil, "create", "deployment", "web", "--image="+w.ref("golden/ws:v1.0.0"))
	there := object{}
	if err := json.Unmarshal([]byte(s.ok(nil, "get", "pod", "there", "-o", "json")), &there); err != nil {
		t.Fatal(err)
	}
	there["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)["image"] = latest
	const failed = "error: failed to "
	for title, c := range map[string]struct {
		pod       object
		args      string
		container string
		prefix    string
	}{
		"create":                        {newPod("new", latest), "create -f -", "dev", fromServer},
		"apply":                         {newPod("new", latest), "apply -f -", "dev", fromServer},
		"server-side apply":             {newPod("new", latest), "apply --server-side -f -", "dev", onServer},
		"dry run":                       {newPod("new", latest), "create --dry-run=server -f -", "dev", fromServer},
		"dry run of apply":              {newPod("new", latest), "apply --dry-run=server -f -", "dev", fromServer},
		"run":                           {nil, "run new --image=" + latest, "new", onServer},
		"replace":                       {there, "replace -f -", "dev", `Error from server (Forbidden): error when replacing "STDIN": `},
		"server-side apply of a change": {newPod("there", latest), "apply --server-side --force-conflicts -f -", "dev", onServer},
		"set image of a pod":            {nil, "set image pod/there dev=" + latest, "dev", failed + "patch image update to pod template: "},
		"set image of a deployment":     {nil, "set image deployment/web ws=" + latest, "ws", failed + "patch image update to pod template: "},
		"create deployment":             {nil, "create deployment new --image=" + latest, "ws", failed + "create deployment: "},
		"create job":                    {nil, "create job new --image=" + latest, "new", failed + "create job: "},
		"create cronjob":                {nil, "create cronjob new --schedule=@yearly --image=" + latest, "new", failed + "create cronjob: "},
		"debug with a copy":             {nil, "debug there --copy-to=new --container=dev --image=" + latest, "dev", onServer},
	} {
		t.Run(title, func(t *testing.T) {
			s := s.on(t)
			s.checkRefusal(s.refused(c.pod, strings.Fields(c.args)...), c.prefix,
				"Image "+latest+" is not allowed: use "+w.ref("golden/ws:v1.0.0")+".",
				"- containers["+c.container+`]: tag: "latest" names whatever is newest; allowed here: exact`)
			s.absent("new")
		})
	}
	t.Run("apply of a change", func(t *testing.T) { // kubectl quotes its patch
		s := s.on(t)
		got := s.refused(newPod("there", latest), "apply", "-f", "-")
		_, end, _ := strings.Cut(got, "\nfor: \"STDIN\": ")
		s.checkRefusal(end, `error when patching "STDIN": `,
			"Image "+latest+" is not allowed: use "+w.ref("golden/ws:v1.0.0")+".",
			`- containers[dev]: tag: "latest" names whatever is newest; allowed here: exact`)
		s.contains(got, "Error from server (Forbidden): error when applying patch:")
	})
	checkPinned(t, s.pod("there"), dev("golden/ws:v1.0.0"))
}
