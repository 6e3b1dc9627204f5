package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// telling finds what it can of everything in the input, so that any difference is a difference of findings.
const telling = `deny contains {"message": "{x}", "args": {"x": json.marshal(object.remove(input, ["object", "old"]))}}
warn contains {"image": image.where, "message": "seen"} if some image in input.images`

// changes makes inputs that differ from input(2) in one thing each.
func changes() map[string]func(in *webhook.Input) {
	image := func(f func(i *webhook.Image)) func(*webhook.Input) {
		return func(in *webhook.Input) { f(in.Images[1]) }
	}
	return map[string]func(in *webhook.Input){
		"nothing":            func(*webhook.Input) {},
		"namespace":          func(in *webhook.Input) { in.Request.Namespace = "other" },
		"user":               func(in *webhook.Input) { in.Request.User.Name = "eve" },
		"groups":             func(in *webhook.Input) { in.Request.User.Groups = []string{"a", "b"} },
		"one group":          func(in *webhook.Input) { in.Request.User.Groups = []string{"ab"} },
		"kind":               func(in *webhook.Input) { in.Request.Kind = "Deployment" },
		"dry run":            func(in *webhook.Input) { in.Request.DryRun = true },
		"order of images":    func(in *webhook.Input) { slices.Reverse(in.Images) },
		"one image":          func(in *webhook.Input) { in.Images = in.Images[:1] },
		"where":              image(func(i *webhook.Image) { i.Where = "containers[evil]" }),
		"role":               image(func(i *webhook.Image) { i.Role = webhook.RoleInit }),
		"digest":             image(func(i *webhook.Image) { i.Ref.Digest = "sha256:" + strings.Repeat("b", 64) }),
		"tag":                image(func(i *webhook.Image) { i.Ref.Tag = "v1.2.4" }),
		"no tag":             image(func(i *webhook.Image) { i.Ref.Tag = "" }),
		"registry":           image(func(i *webhook.Image) { i.Ref.Registry = "evil.example" }),
		"error":              image(func(i *webhook.Image) { i.Error = "it is empty" }),
		"class":              image(func(i *webhook.Image) { i.Entry.TagClass = "rolling" }),
		"version":            image(func(i *webhook.Image) { i.Entry.Version = []int{1, 2} }),
		"path":               image(func(i *webhook.Image) { i.Entry.Path = map[string]string{"a": "b", "c": "d"} }),
		"another path":       image(func(i *webhook.Image) { i.Entry.Path = map[string]string{"a": "d", "c": "b"} }),
		"foreign":            image(func(i *webhook.Image) { i.Entry.Registry.Host = false }),
		"no tag rule":        image(func(i *webhook.Image) { i.Entry.Tags = nil }),
		"tag rule":           image(func(i *webhook.Image) { i.Entry.Tags.Class = false }),
		"not golden":         image(func(i *webhook.Image) { i.Entry.Golden = nil }),
		"decommissioned":     image(func(i *webhook.Image) { i.Entry.Golden.Status = "decommissioned" }),
		"locked":             image(func(i *webhook.Image) { i.Entry.Golden.Follow = "locked" }),
		"threshold":          image(func(i *webhook.Image) { i.Entry.Signed[0].Threshold = 2 }),
		"exemption":          image(func(i *webhook.Image) { i.Entry.Exemptions = []webhook.Exemption{{Name: "x", Rules: []string{"tag"}}} }),
		"user of image":      image(func(i *webhook.Image) { i.User.Effective = "0" }),
		"root":               image(func(i *webhook.Image) { i.User.Root = true }),
		"user unknown":       image(func(i *webhook.Image) { i.User.Known = false }),
		"unsigned":           image(func(i *webhook.Image) { i.Signatures.Valid = nil }),
		"signed by another":  image(func(i *webhook.Image) { i.Signatures.Valid[0].Signer = "other" }),
		"signed later":       image(func(i *webhook.Image) { i.Signatures.Valid[0].At = time.Unix(1e9, 0) }),
		"rejected signature": image(func(i *webhook.Image) { i.Signatures.Rejected = []string{"1 by nobody"} }),
		"signatures unread":  image(func(i *webhook.Image) { i.Signatures = nil }),
		"tag moved":          image(func(i *webhook.Image) { i.TagDigest = "sha256:" + strings.Repeat("c", 64) }),
		"content":            image(func(i *webhook.Image) { i.Content.Platforms[0].Labels = map[string]string{"a": "b"} }),
		"not derived":        image(func(i *webhook.Image) { i.Derived = &webhook.Derived{} }),
		"derived":            image(func(i *webhook.Image) { i.Derived = &webhook.Derived{From: i.Entry.Golden, Digest: "d"} }),
		"unknown":            image(func(i *webhook.Image) { i.Unknown = []webhook.Unknown{{Fact: webhook.FactUser, Reason: "timeout"}} }),
		"attested": image(func(i *webhook.Image) {
			i.Attested = &webhook.Attestations{Valid: []webhook.Attestation{{PredicateType: "a", Predicate: &webhook.Predicate{JSON: []byte(`{"a":1}`)}}}}
		}),
		"attested otherwise": image(func(i *webhook.Image) {
			i.Attested = &webhook.Attestations{Valid: []webhook.Attestation{{PredicateType: "a", Predicate: &webhook.Predicate{JSON: []byte(`{"a":2}`)}}}}
		}),
	}
}

// TestRememberedIsJudged: whatever an engine has judged before, it says of an input what one says that has judged
// nothing else. All shipped rules are on, and one that tells everything it sees apart from the request's own object.
func TestRememberedIsJudged(t *testing.T) {
	const rules = `deny contains {"message": "{x}", "args": {"x": json.marshal([input.request.namespace, input.request.user, input.request.kind,
	input.request.dryRun, input.images])}}
warn contains {"image": image.where, "message": "seen"} if some image in input.images`
	warm, err := engine(t, rules)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for round := range 2 {
		for title, change := range changes() {
			for _, phase := range []webhook.Phase{webhook.EarlyPhase, webhook.LatePhase} {
				in := input(2)
				change(in)
				got, err := warm.Judge(t.Context(), phase, in)
				if err != nil {
					t.Fatal(err)
				}
				cold := *warm
				cold.memory = newMemory()
				want, err := cold.Judge(t.Context(), phase, in)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("round %d, %s, phase %d: remembers\n%+v\nand judges\n%+v", round, title, phase, got, want)
				}
				for i := range got {
					if got[i].Image != nil && !slices.Contains(in.Images, got[i].Image) {
						t.Errorf("%s: a finding is about an image of another request", title)
					}
				}
				if round == 0 && phase == webhook.LatePhase {
					text := fmt.Sprintf("%+v", messages(got))
					if other, same := said[text]; same {
						t.Errorf("%q and %q are the same to the rules, so the case shows nothing", title, other)
					}
					said[text] = title
				}
			}
		}
	}
	if len(warm.memory.young) == 0 {
		t.Error("nothing was remembered")
	}
}

func messages(findings []webhook.Finding) []string {
	var all []string
	for _, f := range findings {
		all = append(all, f.Rule+": "+f.Message)
	}
	return all
}

// TestNotRemembered: rules that see what each workspace has for itself judge each request, and what failed is tried again.
func TestNotRemembered(t *testing.T) {
	for title, rego := range map[string]string{
		"object":    telling,
		"time":      `deny contains {"message": input.request.time}`,
		"name":      `deny contains {"message": "no"} if input.request.name == "x"`,
		"workspace": `deny contains {"message": "no"} if input.workspace.owner == "x"`,
		"fails":     `deny contains {"message": "no"} if 1 / (count(input.images) - 1) > 1`,
	} {
		e, err := engine(t, rego)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Judge(t.Context(), webhook.EarlyPhase, input(1)); err != nil {
			t.Fatal(err)
		}
		if n := len(e.memory.young); n != 0 {
			t.Errorf("%s: %d judgements are remembered", title, n)
		}
	}
}

// TestOthersAreRemembered: one rule that sees the object keeps no other from being remembered, and both find what they do.
func TestOthersAreRemembered(t *testing.T) {
	source := Source{
		"a.rego": []byte(`package hallmark.rules.a
deny contains {"message": "host"} if input.object.spec.hostNetwork`),
		"b.rego": []byte(`package hallmark.rules.b
deny contains {"image": image.where, "message": "seen"} if some image in input.images`),
	}
	e, err := New(t.Context(), Config{Source: source, Schema: schema(t)})
	if err != nil {
		t.Fatal(err)
	}
	for i, object := range []string{`{"spec":{"hostNetwork":true}}`, `{"spec":{}}`, `{"spec":{"hostNetwork":true}}`} {
		in := input(1)
		in.Request.Object = []byte(object)
		findings, err := e.Judge(t.Context(), webhook.EarlyPhase, in)
		want := []string{"b: seen", "a: host"}
		if i == 1 {
			want = want[:1]
		}
		if err != nil || !slices.Equal(messages(findings), want) {
			t.Errorf("%s: got %q, %v; want %q", object, messages(findings), err, want)
		}
	}
	if n := len(e.memory.young); n != 1 {
		t.Errorf("%d judgements are remembered, want 1", n)
	}
}

// TestRecalledIsOnesOwn: what a caller does to findings is not remembered.
func TestRecalledIsOnesOwn(t *testing.T) {
	e, err := engine(t, `deny contains {"image": image.where, "message": "no"} if some image in input.images`)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		findings, err := e.Judge(t.Context(), webhook.EarlyPhase, input(1))
		if err != nil || len(findings) != 1 || findings[0].Message != "no" || findings[0].Mode != "" {
			t.Fatalf("got %+v, %v", findings, err)
		}
		findings[0].Message += "!"
		findings[0].Mode = webhook.Enforce
	}
}

// TestMemoryIsBounded: any number of inputs leaves two halves behind at most, and what is asked for now and then stays.
func TestMemoryIsBounded(t *testing.T) {
	m := newMemory()
	key := func(i int) (k judgementKey) {
		binary.LittleEndian.PutUint64(k[:], uint64(i))
		return sha256.Sum256(k[:])
	}
	image := &webhook.Image{}
	finding := []webhook.Finding{{Image: image, Message: strings.Repeat("x", 800)}}
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 10_000 {
				m.keep(key(worker*10_000+i+1), finding, []*webhook.Image{image})
				if _, known := m.recall(key(0), []*webhook.Image{image}); !known {
					m.keep(key(0), nil, nil)
				}
			}
		})
	}
	group.Wait()
	if n := len(m.young) + len(m.old); n*1000 > 2*memoryBytes {
		t.Errorf("%d judgements are kept", n)
	}
	if _, known := m.recall(key(0), nil); !known {
		t.Error("what is asked for all the time was forgotten")
	}
	if _, known := m.recall(key(1), []*webhook.Image{image}); known {
		t.Error("the first is still there")
	}
}

// FuzzDocument: whatever the bytes are, reading them ends in a value or an error.
func FuzzDocument(f *testing.F) {
	d := new(document)
	if err := d.input(input(2), reads{request: map[string]bool{"user": true}, workspace: true, image: true}); err != nil {
		f.Fatal(err)
	}
	f.Add(d.bytes)
	f.Add([]byte(`{"` + "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"))
	f.Add([]byte(`x`))
	f.Add([]byte(`.`))
	f.Add([]byte(`{[.].`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d := &document{bytes: text}
		if value, err := d.value(); (value == nil) == (err == nil) {
			t.Errorf("got %v, %v", value, err)
		}
	})
}
