package policy

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
)

// TestReads: what no rule reads is not in the input, which is the same for the workspaces of all developers then.
func TestReads(t *testing.T) {
	all := "dryRun kind name namespace operation subresource time uid user"
	for rego, want := range map[string]struct {
		request                  string // besides kind, which the shipped rules read
		workspace, object, image bool
	}{
		`deny contains {"message": "no"} if input.request.time == "x"`:                     {request: "time"},
		`deny contains {"message": "no"} if input.request.user.groups[_] == "x"`:           {request: "user"},
		`deny contains {"message": "no"} if input.request["name"] == "x"`:                  {request: "name"},
		`deny contains {"message": "no"} if { r := input.request; r.time == "x" }`:         {request: all},
		`deny contains {"message": "no"} if object.get(input, ["request", "uid"], 1) == 1`: {all, true, true, true},
		`deny contains {"message": "no"} if input.request[_] == "x"`:                       {request: all},
		`deny contains {"message": "no"} if { some k; input[k].time == "x" }`:              {all, true, true, true},
		`deny contains {"message": "no"} if walk(input, [["request", "uid"], "x"])`:        {all, true, true, true},
		`deny contains {"message": "no"} if input.workspace.owner == "x"`:                  {workspace: true},
		`deny contains {"message": "no"} if input.old.spec == "x"`:                         {object: true},
		`deny contains {"message": "no"} if input.images[_].image.labels.x == "x"`:         {image: true},
		`deny contains {"message": "no"} if input.images[_].signatures[_].signer == "x"`:   {},
	} {
		e, err := engine(t, rego)
		if err != nil {
			t.Fatal(err)
		}
		got := readsOf(e)
		delete(got.request, "kind")
		request := strings.Join(slices.Sorted(maps.Keys(got.request)), " ")
		if request != strings.ReplaceAll(want.request, "kind ", "") || got.workspace != want.workspace || got.object != want.object ||
			got.image != want.image {
			t.Errorf("%s: reads %+v, want %+v", rego, got, want)
		}
	}
}

// readsOf is what the rules of all groups read.
func readsOf(e *Engine) reads {
	all := reads{request: map[string]bool{}}
	for _, phase := range e.groups {
		for _, g := range phase {
			all.object, all.workspace, all.image = all.object || g.reads.object, all.workspace || g.reads.workspace, all.image || g.reads.image
			maps.Copy(all.request, g.reads.request)
		}
	}
	return all
}

// TestMembersRead: of the configuration, rules have what some of them mentions, by whatever way.
func TestMembersRead(t *testing.T) {
	for rego, want := range map[string]string{
		`deny contains {"message": "no"} if input.request.name == "x"`:                                    "pin", // which y reads
		`deny contains {"message": "no"} if data.hallmark.config.mode == "x"`:                             "mode pin",
		`deny contains {"message": "no"} if data.hallmark.config["tags"].allow == "x"`:                    "pin tags",
		`deny contains {"message": "no"} if data.hallmark.config.none == "x"`:                             "pin",
		`deny contains {"message": "no"} if { c := data.hallmark.config; c.mode == "x" }`:                 "mode pin tags",
		`deny contains {"message": "no"} if { some k; data.hallmark.config[k].allow == "x" }`:             "mode pin tags",
		`deny contains {"message": "no"} if { some k; data.hallmark[k].mode == "x" }`:                     "mode pin tags",
		`deny contains {"message": "no"} if object.get(data.hallmark.config, ["mode"], "") == "x"`:        "mode pin tags",
		`deny contains {"message": "no"} if f(data.hallmark.config)` + "\nf(c) if c.mode == \"x\"":        "mode pin tags",
		"import data.hallmark.config as c\ndeny contains {\"message\": \"no\"} if c.tags.allow == \"x\"":  "pin tags",
		"import data.hallmark.config.tags\ndeny contains {\"message\": \"no\"} if tags.allow[_] == \"x\"": "pin tags",
	} {
		source := Source{"x.rego": []byte("package hallmark.rules.x\n\n" + rego), "y.rego": []byte(
			"package hallmark.rules.y\n\ndeny contains {\"message\": \"no\"} if data.hallmark.config.pin.pods == \"x\"")}
		compiler, err := source.Compile(schema(t))
		if err != nil {
			t.Fatalf("%s: %v", rego, err)
		}
		config := map[string]any{"mode": "enforce", "pin": map[string]any{"pods": "rewrite"}, "tags": map[string]any{"allow": []any{}}}
		if got := strings.Join(slices.Sorted(maps.Keys(membersRead(compiler, config))), " "); got != want {
			t.Errorf("%s: reads %q, want %q", rego, got, want)
		}
	}
}

// TestMembersOfRequest: what a rule may read by the schema is what it gets.
func TestMembersOfRequest(t *testing.T) {
	var document struct {
		Properties struct {
			Request struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(schema(t), &document); err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(maps.Keys(document.Properties.Request.Properties))
	m := mentions{request: map[string]bool{}}
	m.wholeRequest()
	if got := slices.Sorted(maps.Keys(m.request)); !slices.Equal(got, want) {
		t.Errorf("the engine knows %q, the schema %q", got, want)
	}
	e, err := engine(t, `deny contains {"message": concat(" ", sort([k | some k, _ in input.request]))}`)
	if err != nil {
		t.Fatal(err)
	}
	findings, err := e.Judge(t.Context(), 0, input(1))
	if err != nil || len(findings) != 1 || findings[0].Message != strings.Join(want, " ") {
		t.Errorf("got %+v, %v; want %q", findings, err, want)
	}
}

// TestFactsByOtherWays: a fact that a rule reaches without its name in a reference is fetched all the same.
func TestFactsByOtherWays(t *testing.T) {
	for title, rego := range map[string]string{
		"name given to a function": `deny contains {"message": "no"} if { some image in input.images; count(_get(image, "signatures")) == 0 }
_get(object, name) := object[name]`,
		"name put together": `deny contains {"message": "no"} if { some image in input.images; count(_get(image, concat("", ["signa", "tures"]))) == 0 }
_get(object, name) := object[name]`,
		"object.get in a function": `deny contains {"message": "no"} if { some image in input.images; count(_get(image)) == 0 }
_get(o) := object.get(o, ["signatures"], [])`,
		"function of a function": `deny contains {"message": "no"} if { some image in input.images; _outer(image) == "" }
_outer(x) := _inner(1, [x])
_inner(_, y) := json.marshal(y)`,
		"all images":        `deny contains {"message": json.marshal(input.images)}`,
		"all images, named": `deny contains {"message": json.marshal([1, images])} if images := input.images`,
		"set of images": `deny contains {"message": json.marshal(_all)}
_all contains image if some image in input.images`,
		"one of a set": `deny contains {"message": json.marshal(image)} if some image in _all
_all contains image if some image in input.images`,
		"function that gives it": `deny contains {"message": json.marshal(_first(1))}
_first(n) := input.images[n]`,
		"walk": `deny contains {"message": "no"} if { some image in input.images; walk(image, [_, "x"]) }`,
	} {
		e, err := engine(t, rego)
		if err != nil {
			t.Fatal(title, err)
		}
		for _, r := range e.Rules() {
			if r.Name == "x" && r.Needs&webhook.FactSignatures == 0 {
				t.Errorf("%s: needs %q, want signatures", title, r.Needs)
			}
		}
	}
	for title, rego := range map[string]string{
		"count":           `deny contains {"message": "no"} if count(input.images) > 3`,
		"number of a set": `deny contains {"message": "no"} if count({image.where | some image in input.images}) > 3`,
		"member of a function": `deny contains {"message": "no"} if { some image in input.images; _name(image) == "x" }
_name(image) := upper(image.name)`,
	} {
		e, err := engine(t, rego)
		if err != nil {
			t.Fatal(title, err)
		}
		for _, r := range e.Rules() {
			if r.Name == "x" && r.Needs != 0 {
				t.Errorf("%s: needs %q, want nothing", title, r.Needs)
			}
		}
	}
}
