package attack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// TestOtherDigest: what comes for a digest is that digest or nothing, manifest, config and payload alike.
func TestOtherDigest(t *testing.T) {
	parts := map[string]want{
		"/manifests/sha256:": denied("returned other content than sha256:"),
		"/blobs/CONFIG":      denied("returned other content than sha256:"),
		"/blobs/PAYLOAD":     denied("not signed by ci"),
	}
	registries, swap := map[string]*registrytest.Registry{}, map[string]func(http.ResponseWriter, *http.Request) bool{}
	var targets []target
	for part := range parts {
		registries[part] = serving(t, nil, func(rw http.ResponseWriter, r *http.Request) bool { return swap[part](rw, r) })
		targets = append(targets, targetOf(registries[part]))
	}
	w := besiege(t, "", targets...)
	for part, r := range registries {
		digest := w.publish(t, r, "pinned/ws", "v1.0.0")
		other, err := r.PushImage(t.Context(), registrytest.Image{Repository: "golden/ws", Tag: "v6.6.6", User: "0"})
		if err != nil {
			t.Fatal(err)
		}
		evil, err := r.Manifest(t.Context(), "golden/ws", other)
		if err != nil {
			t.Fatal(err)
		}
		path := strings.NewReplacer("CONFIG", configOf(t, r, "pinned/ws", digest), "PAYLOAD", payloadOf(t, r, "pinned/ws", digest)).Replace(part)
		swap[part] = func(rw http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, path) {
				return false
			}
			send(evil.MediaType, string(evil.Body))(rw, r)
			return true
		}
		parts[part].check(t, w.admit(t, w.pod(image(r.Host()+"/pinned/ws@"+digest))))
	}
	w.sound(t)
}

// TestTagFlips: a tag is resolved once in an admission, and what is judged is what is pinned, whatever the registry says
// of the tag a moment later. When nothing is remembered from one half to the other, a flip between them is a refusal.
func TestTagFlips(t *testing.T) {
	var digests [2]string // signed, unsigned
	var registry *registrytest.Registry
	var mutex sync.Mutex
	asked := map[string]int{}
	registry = serving(t, nil, func(rw http.ResponseWriter, r *http.Request) bool {
		_, tag, _ := strings.Cut(r.URL.Path, "/manifests/v")
		if tag == "" {
			return false
		}
		mutex.Lock()
		asked[tag]++
		flip := (asked[tag] + int(tag[0])) % 2 // even tags are signed first, odd ones unsigned
		mutex.Unlock()
		manifest, err := registry.Manifest(context.Background(), "golden/ws", digests[1-flip])
		if err != nil {
			t.Error(err)
		}
		send(manifest.MediaType, string(manifest.Body))(rw, r)
		return true
	})
	w := besiege(t, "", targetOf(registry))
	forgetful := besiege(t, "cache: {tagTTL: 1ns}\n", targetOf(registry))
	digests[0] = w.publish(t, registry, "golden/ws", "good")
	// Another key signs for the other webhook, which has a fixture of its own.
	if err := registry.Sign(t.Context(), "golden/ws", digests[0], forgetful.Key, registrytest.SignOptions{}); err != nil {
		t.Fatal(err)
	}
	unsigned, err := registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/ws", Tag: "evil", User: "1000", Labels: map[string]string{"evil": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	digests[1] = unsigned
	ref := registry.Host() + "/golden/ws:v"
	three := func(ref string) object {
		return w.pod(with("containers", []any{foreign("a", ref), foreign("b", ref)}), with("initContainers", []any{foreign("c", ref)}))
	}
	for i := range 8 {
		tag := fmt.Sprintf("%d.0.0", i)
		want := allowed()
		if i%2 == 1 {
			want = denied("not signed by ci")
		}
		a := w.admit(t, three(ref+tag))
		want.check(t, a)
		if len(a.Replaced) != 3 {
			t.Errorf("pinned %v", a.Replaced)
		}
		for _, replaced := range a.Replaced {
			if replaced.Value != ref+tag+"@"+digests[i%2] {
				t.Errorf("pinned %v, want %s", replaced, digests[i%2])
			}
		}
		mutex.Lock()
		if asked[tag] != 1 {
			t.Errorf("the tag was asked for %d times", asked[tag])
		}
		mutex.Unlock()
	}
	for i := range 8 {
		for _, o := range []object{w.pod(image(fmt.Sprintf("%s%d.1.0", ref, i))), three(fmt.Sprintf("%s%d.2.0", ref, i)), w.pod(image(fmt.Sprintf("%s%d.3.0@%s", ref, i, digests[1])))} {
			a := forgetful.admit(t, o)
			if a.Allowed && (len(a.Replaced) == 0 || strings.Contains(string(a.Object), digests[1])) {
				t.Errorf("allowed %s", a.Object)
			}
			response, err := forgetful.Client.Review(t.Context(), "/validate", servertest.Object{JSON: encode(t, o)})
			if err != nil || response.Allowed {
				t.Errorf("the judging half alone allowed a tag (%v)", err)
			}
		}
	}
}

// TestMovedTagWhileCached: a tag that moves to an unsigned digest gives nobody that digest, neither from what is
// remembered nor anew.
func TestMovedTagWhileCached(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, func(text string) string { return text + "cache: {tagTTL: 300ms}\n" })
	good := w.Pinned("golden/ws:v1.0.0")
	allowed().check(t, w.admit(t, w.pod()))
	if err := w.Registry.Tag(t.Context(), "golden/ws", "v1.0.0", w.Digests["golden/ws:v9.9.9"]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refusal of what the tag names now", func() bool {
		a := w.admit(t, w.pod())
		if a.Allowed && (len(a.Replaced) != 1 || a.Replaced[0].Value != good) {
			t.Fatalf("allowed with %v", a.Replaced)
		}
		return !a.Allowed
	})
	denied("not signed by ci").check(t, w.admit(t, w.pod()))
}

// TestFlapping: a registry that fails half of the time gets no more requests than a good one, what it admits is right, and
// in the end everything is.
func TestFlapping(t *testing.T) {
	var mutex sync.Mutex
	chance := rand.New(rand.NewPCG(1, 2))
	registry := serving(t, nil, func(rw http.ResponseWriter, _ *http.Request) bool {
		mutex.Lock()
		defer mutex.Unlock()
		if chance.IntN(2) == 0 {
			rw.WriteHeader(http.StatusInternalServerError)
			return true
		}
		return false
	})
	w := besiege(t, "", targetOf(registry))
	const images = 10
	digests := [images]string{}
	for i := range images {
		digests[i] = w.publish(t, registry, fmt.Sprintf("golden/ws%d", i), "v1.0.0")
	}
	admissions := 0
	for i := range images {
		ref := fmt.Sprintf("%s/golden/ws%d:v1.0.0", registry.Host(), i)
		eventually(t, "the admission of "+ref, func() bool {
			a := w.admit(t, w.pod(image(ref)))
			admissions++
			if !a.Allowed {
				// 503, or 403 when the pinning half failed and the judging half could read what was not pinned.
				want{code: a.Code, says: []string{"try again."}, without: []string{"not signed"}}.check(t, a)
				return false
			}
			if len(a.Replaced) != 1 || a.Replaced[0].Value != ref+"@"+digests[i] {
				t.Errorf("allowed with %v", a.Replaced)
			}
			return true
		})
	}
	// Both halves may ask for the tag; then manifest, config, signatures and payload.
	if n := len(registry.Requests()); n > 6*admissions {
		t.Errorf("%d requests for %d admissions", n, admissions)
	}
	w.sound(t)
}

// TestManySignatures: one good one among ninety-nine is found wherever it stands, and too many are not looked at.
func TestManySignatures(t *testing.T) {
	registry := serving(t, nil, nil)
	w := besiege(t, "", targetOf(registry))
	for name, before := range map[string]int{"first": 0, "middle": 50, "last": 99} {
		t.Run(name, func(t *testing.T) {
			repository := "golden/" + name
			digest, err := registry.PushImage(t.Context(), registrytest.Image{Repository: repository, Tag: "v1.0.0", User: "1000"})
			if err != nil {
				t.Fatal(err)
			}
			all := garbage(99)
			for _, step := range []error{
				registry.Attach(t.Context(), repository, digest, all[:before]...),
				registry.Sign(t.Context(), repository, digest, w.Key, registrytest.SignOptions{}),
				registry.Attach(t.Context(), repository, digest, all[before:]...),
			} {
				if step != nil {
					t.Fatal(step)
				}
			}
			within(t, 9*time.Second, func() {
				allowed().check(t, w.admit(t, w.pod(image(registry.Host()+"/"+repository+":v1.0.0"))))
			})
		})
	}
	t.Run("1001", func(t *testing.T) {
		digest := w.publish(t, registry, "golden/many", "v1.0.0")
		if err := registry.Attach(t.Context(), "golden/many", digest, garbage(1000)...); err != nil {
			t.Fatal(err)
		}
		registry.Reset()
		within(t, time.Second, func() {
			denied("has more than 100 signatures").check(t, w.admit(t, w.pod(image(registry.Host()+"/golden/many:v1.0.0"))))
		})
		asked := slices.DeleteFunc(registry.Requests(), func(r registrytest.Request) bool { return !strings.HasPrefix(r.Path, "/v2/golden/many/") })
		if len(asked) > 5 { // digest, signatures, and the two places where bundles could be
			t.Errorf("%d requests: %+v", len(asked), asked)
		}
	})
	w.sound(t)
}
