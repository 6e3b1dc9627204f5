package attack

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// TestRewrites: names of a public registry lead to the mirror, in pods by the patch and in workloads by judgement.
func TestRewrites(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, func(text string) string {
		host := hostOf(text)
		return text + fmt.Sprintf("rewrites:\n  - {from: docker.io/codercom, to: %q}\n  - {from: docker.io/codercom/special, to: %q}\n",
			host+"/golden", host+"/sandbox")
	})
	a := w.admit(t, w.pod(image("codercom/ws:v1.0.0")))
	allowed().check(t, a)
	if len(a.Replaced) != 1 || a.Replaced[0].Value != w.Pinned("golden/ws:v1.0.0") {
		t.Errorf("replaced %v, want %s", a.Replaced, w.Pinned("golden/ws:v1.0.0"))
	}
	if !strings.Contains(string(a.Object), `\"reference\":\"codercom/ws:v1.0.0\"`) {
		t.Errorf("the annotation does not keep the original: %s", a.Object)
	}
	allowed().check(t, w.admit(t, template("apps/v1", "Deployment", w.pod(image("index.docker.io/codercom/ws:v1.0.0"))["spec"].(object))))
	allowed().check(t, w.admit(t, w.pod(image("docker.io/codercom/ws:v1.0.0@"+w.Digests["golden/ws:v1.0.0"]))))

	denied("does not exist", "has no tag v8.8.8 of golden/ws").check(t, w.admit(t, w.pod(image("codercom/ws:v8.8.8"))))
	denied("does not exist").check(t, w.admit(t, w.pod(image("codercom/old:v1.0.0@sha256:"+strings.Repeat("0", 64)))))
	denied("docker.io is not an internal registry").check(t, w.admit(t, w.pod(image("codercom-evil/ws:v1.0.0"))))
	denied("docker.io is not an internal registry").check(t, w.admit(t, w.pod(image("library/ws:v1.0.0"))))
	denied("sandbox").check(t, w.admit(t, w.pod(image("codercom/special/evil:v1.0.0"))))
	t.Run("past the mutating half", func(t *testing.T) {
		response, err := w.Client.Review(t.Context(), "/validate", servertest.Object{JSON: encode(t, w.pod(image("codercom/ws:v1.0.0")))})
		if err != nil || response.Allowed || !strings.Contains(response.Result.Message, "docker.io is not an internal registry") {
			t.Errorf("got %+v, %v", response, err)
		}
	})
}

// hostOf finds the registry in the text of a fixture's configuration.
func hostOf(text string) string {
	_, rest, _ := strings.Cut(text, `host: "`)
	host, _, _ := strings.Cut(rest, `"`)
	return host
}

// TestLockedImage: only the digests of the entry run, whatever the tag names and whoever signed.
func TestLockedImage(t *testing.T) {
	digest := ""
	w := newWorld(t, registrytest.Config{}, nil)
	digest = w.Digests["golden/ws:v1.0.0"]
	w.configure(t, func(text string) string {
		return strings.Replace(text, `/golden/ws", owner: devex`, `/golden/ws", follow: locked, digests: ["`+digest+`"], owner: devex`, 1)
	})
	eventually(t, "the lock", func() bool { return !w.admit(t, w.pod(image(w.Ref("golden/ws:v1.0.1")))).Allowed })
	allowed().check(t, w.admit(t, w.pod()))
	allowed().check(t, w.admit(t, template("apps/v1", "Deployment", w.pod()["spec"].(object))))
	for _, o := range []object{
		w.pod(image(w.Ref("golden/ws:v1.0.1"))), w.pod(image(w.Pinned("golden/ws:v1.0.1"))),
		template("apps/v1", "Deployment", w.pod(image(w.Ref("golden/ws:v1.0.1")))["spec"].(object)),
	} {
		denied("golden: golden image ws is locked to other digests than "+w.Digests["golden/ws:v1.0.1"][:19]).check(t, w.admit(t, o))
	}
}

// TestStickyImage: a pod that runs keeps its digest when its manifest is applied again, though the tag has moved on.
func TestStickyImage(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, func(text string) string {
		return strings.Replace(text, `/golden/ws", owner: devex`, `/golden/ws", follow: sticky, owner: devex`, 1) + "cache: {tagTTL: 1ns}\n"
	})
	running := w.admit(t, w.pod())
	allowed().check(t, running)
	if err := w.Registry.Tag(t.Context(), "golden/ws", "v1.0.0", w.Digests["golden/ws:v1.0.1"]); err != nil {
		t.Fatal(err)
	}
	again := w.admitObject(t, servertest.Object{Operation: "UPDATE", JSON: encode(t, w.pod()), Old: running.Object})
	allowed().check(t, again)
	if len(again.Replaced) != 1 || again.Replaced[0].Value != w.Pinned("golden/ws:v1.0.0") {
		t.Errorf("a running pod became %v", again.Replaced)
	}
	fresh := w.admit(t, w.pod())
	allowed().check(t, fresh)
	if want := w.Ref("golden/ws:v1.0.0") + "@" + w.Digests["golden/ws:v1.0.1"]; len(fresh.Replaced) != 1 || fresh.Replaced[0].Value != want {
		t.Errorf("a new pod got %v, want %s", fresh.Replaced, want)
	}
	t.Run("another tag", func(t *testing.T) {
		a := w.admitObject(t, servertest.Object{Operation: "UPDATE", JSON: encode(t, w.pod(image(w.Ref("golden/ws:v1.0.1")))), Old: running.Object})
		allowed().check(t, a)
		if a.Replaced[0].Value != w.Pinned("golden/ws:v1.0.1") {
			t.Errorf("got %v", a.Replaced)
		}
	})
}

// TestGoldenImagesAreWarm: what the catalogue names is read before the first workspace wants it.
func TestGoldenImagesAreWarm(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, func(text string) string {
		return strings.ReplaceAll(text, "owner: devex", "owner: devex, defaultTag: v1.0.0")
	})
	eventually(t, "the golden images", func() bool { return strings.Contains(w.Log(), "golden images read") })
	if err := w.Registry.Close(); err != nil {
		t.Fatal(err)
	}
	allowed().check(t, w.admit(t, w.pod()))
	allowed().check(t, w.admit(t, w.pod(image(w.Ref("golden/multi:v1.0.0")))))
}
