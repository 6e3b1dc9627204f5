package policy

import (
	"context"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/policies"
	"github.com/hallmark-admission/hallmark/webhook"
)

func schema(t testing.TB) []byte {
	t.Helper()
	text, err := fs.ReadFile(policies.Files(), "schema/input.json")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// engine compiles one rule named x beside the shipped ones.
func engine(t testing.TB, rego string) (*Engine, error) {
	t.Helper()
	source := Source{}
	if rego != "" {
		source["x.rego"] = []byte("package hallmark.rules.x\n\n" + rego)
	}
	return New(t.Context(), Config{Source: source, Schema: schema(t), Data: map[string]any{"pin": map[string]any{"pods": "rewrite"}}})
}

func input(n int) *webhook.Input {
	in := &webhook.Input{Request: &webhook.Request{
		UID: "1", Operation: webhook.Create, Kind: "Pod", Namespace: "team", Object: []byte(`{"kind":"Pod","spec":{"hostNetwork":true}}`),
	}}
	for i := range n {
		digest := "sha256:" + strings.Repeat("a", 64)
		in.Images = append(in.Images, &webhook.Image{
			Where: fmt.Sprintf("containers[c%d]", i), Pointer: "/spec/containers/0/image", Role: webhook.RoleWorkspace, Changed: true,
			Ref: webhook.Reference{Registry: "registry.corp", Repository: "golden/base", Tag: "v1.2.3", Digest: digest},
			Entry: webhook.CatalogueEntry{
				Registry: webhook.RegistryMatch{Host: true, Repository: true}, TagClass: "exact", Version: []int{1, 2, 3},
				Tags:   &webhook.TagRule{Allow: []string{"exact"}, Class: true, Match: true},
				Golden: &webhook.Golden{Name: "base", Repository: "registry.corp/golden/base", Status: "active", Role: true},
				Signed: []webhook.SignatureRule{{AnyOf: []string{"ci"}, Threshold: 1}},
			},
			User:       webhook.User{Known: true, Applies: true, Effective: "1000", Source: "pod", Verifiable: true},
			Signatures: &webhook.Signatures{Valid: []webhook.Signature{{Signer: "ci", Digest: digest}}, Found: 1},
			Content:    &webhook.Content{Digest: digest, Platforms: []webhook.Platform{{OS: "linux", Architecture: "amd64", User: "1000"}}},
			TagDigest:  digest,
		})
	}
	return in
}

// TestBrokenRules: a rule that is undefined, of the wrong shape or fails is a finding that denies, never nothing.
func TestBrokenRules(t *testing.T) {
	for title, c := range map[string]struct{ rego, says string }{
		"undefined complete rule":   {`deny := {{"message": "no"}} if input.request.kind == "Node"`, "deny is undefined"},
		"not a set":                 {`deny := "yes"`, "deny is not a set"},
		"boolean":                   {`deny := false`, "deny is not a set"},
		"entry of strings":          {`deny contains "no"`, "no finding"},
		"no message":                {`deny contains {"image": "containers[c0]"}`, "message is not a string"},
		"image that does not exist": {`deny contains {"image": "containers[other]", "message": "no"}`, "none of the images"},
		"division by zero":          {`deny contains {"message": "no"} if 1 / (count(input.images) - 1) > 1`, "divide by zero"},
		"to_number of a word":       {`deny contains {"message": "no"} if to_number(input.request.namespace) > 1`, "to_number"},
		"conflicting values": {`deny contains {"message": _m}
_m := "a" if input.request.kind == "Pod"
_m := "b" if input.request.namespace == "team"`, "conflict"},
	} {
		t.Run(title, func(t *testing.T) {
			e, err := engine(t, c.rego)
			if err != nil {
				t.Fatal(err)
			}
			findings, err := e.Judge(t.Context(), webhook.EarlyPhase, input(1))
			if err != nil {
				t.Fatal(err)
			}
			if len(findings) != 1 || !findings[0].Undecided || findings[0].Rule != "x" || !strings.Contains(findings[0].Message, c.says) {
				t.Errorf("findings %+v, want one that says %q", findings, c.says)
			}
		})
	}
}

// TestOneBrokenRuleIsOneFinding: the others are judged all the same.
func TestOneBrokenRuleIsOneFinding(t *testing.T) {
	source := Source{
		"broken.rego": []byte(`package hallmark.rules.broken
deny contains {"message": "no"} if to_number(input.request.namespace) > 1`),
		"works.rego": []byte(`package hallmark.rules.works
deny contains {"image": image.where, "message": "{n} is one", "args": {"n": image.name}} if some image in input.images`),
	}
	e, err := New(t.Context(), Config{Source: source, Schema: schema(t)})
	if err != nil {
		t.Fatal(err)
	}
	findings, err := e.Judge(t.Context(), webhook.EarlyPhase, input(1))
	if err != nil || len(findings) != 2 || findings[0].Rule != "broken" || findings[1].Message != "base is one" {
		t.Errorf("findings %+v, %v", findings, err)
	}
}

// TestLoadErrors: mistakes are found when rules are loaded, with file and line.
func TestLoadErrors(t *testing.T) {
	for title, c := range map[string]struct{ rego, says string }{
		"typo in a field":           {`deny contains {"message": "no"} if input.images[_].regsitry == "x"`, "x.rego:3"},
		"typo in the request":       {`deny contains {"message": "no"} if input.request.namespaec == "x"`, "undefined ref"},
		"syntax":                    {`deny contains {`, "x.rego:3"},
		"neither deny nor warn":     {`dney contains {"message": "no"}`, "neither deny nor warn"},
		"unused variable":           {`deny contains {"message": "no"} if { x := 1 }`, "unused"},
		"http.send":                 {`deny contains {"message": "no"} if http.send({"url": "http://a", "method": "get"})`, "undefined function http.send"},
		"net.lookup_ip_addr":        {`deny contains {"message": "no"} if net.lookup_ip_addr("a")`, "undefined function"},
		"opa.runtime":               {`deny contains {"message": "no"} if opa.runtime().env`, "undefined function"},
		"clock":                     {`deny contains {"message": "no"} if time.now_ns() > 1`, "undefined function"},
		"chance":                    {`deny contains {"message": "no"} if rand.intn("a", 2) == 1`, "undefined function"},
		"function that is not ours": {`deny contains {"message": "no"} if signed(input)`, "undefined function"},
	} {
		t.Run(title, func(t *testing.T) {
			_, err := engine(t, c.rego)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
}

// TestMentions: which facts a rule needs is read off its text, and what cannot be read off counts as all.
func TestMentions(t *testing.T) {
	for title, c := range map[string]struct {
		body  string
		facts webhook.Fact
	}{
		"nothing fetched":        {`some image in input.images; image.registry == "x"`, 0},
		"the request's user":     {`input.request.user.name == "x"`, 0},
		"labels of the image":    {`some image in input.images; image.image.labels.a`, webhook.FactImage},
		"by index":               {`input.images[0].signatures`, webhook.FactSignatures},
		"the user":               {`some image in input.images; image.user.root`, webhook.FactUser},
		"not":                    {`some image in input.images; not image.signatures`, webhook.FactSignatures},
		"count of signatures":    {`some image in input.images; image.signaturesFound > 1`, webhook.FactSignatures},
		"in a comprehension":     {`count([s | some image in input.images; some s in image.signatures]) > 1`, webhook.FactSignatures},
		"in a function":          {`some image in input.images; _f(image)`, webhook.FactTagDigest},
		"object.get":             {`some image in input.images; object.get(image, "signatures", [])`, webhook.FactSignatures},
		"object.get of a path":   {`some image in input.images; object.get(image, ["image", "labels"], {}) == {}`, webhook.FactImage},
		"object.get of anything": {`some image in input.images; some k in ["a"]; object.get(image, k, 1)`, webhook.AllFacts},
		"any field":              {`some image in input.images; image[_] == 1`, webhook.AllFacts},
		"walk":                   {`some image in input.images; walk(image, [_, 1])`, webhook.AllFacts},
		"any part of the input":  {`some k; input[k] == 1`, webhook.AllFacts},
		"the signed of a rule":   {`some image in input.images; some r in image.signedBy; count(object.get(r, "signed", [])) == 1`, webhook.FactSignatures},
		"the whole input":        {`json.marshal(input) == "x"`, webhook.AllFacts},
		"all images":             {`count(input.images) > 3`, 0},
	} {
		t.Run(title, func(t *testing.T) {
			e, err := engine(t, `deny contains {"message": "no"} if { `+c.body+` }`+"\n"+`_f(image) if image.tagDigest == "x"`)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.Rules()[0].Needs; got != c.facts {
				t.Errorf("needs %v, want %v", got, c.facts)
			}
		})
	}
}

// TestDefaultOff: a rule whose METADATA says so is judged only when the configuration names it.
func TestDefaultOff(t *testing.T) {
	source := Source{"x.rego": []byte(`# METADATA
# custom:
#   default: "off"
package hallmark.rules.x

deny contains {"message": "no"} if count(input.images) > 0
`)}
	for _, c := range []struct {
		on, off  []string
		findings int
	}{{nil, nil, 0}, {[]string{"x"}, nil, 1}, {[]string{"x"}, []string{"x"}, 0}} {
		e, err := New(t.Context(), Config{Source: source, Schema: schema(t), On: c.on, Off: c.off})
		if err != nil {
			t.Fatal(err)
		}
		findings, err := e.Judge(t.Context(), webhook.EarlyPhase, input(1))
		if err != nil || len(findings) != c.findings || e.Rules()[0].Off != (c.findings == 0) {
			t.Errorf("on %q, off %q: %+v, %v", c.on, c.off, findings, err)
		}
	}
}

// TestInputObject: the object is there for rules that read it.
func TestInputObject(t *testing.T) {
	e, err := engine(t, `deny contains {"message": "hostNetwork"} if input.object.spec.hostNetwork`)
	if err != nil {
		t.Fatal(err)
	}
	findings, err := e.Judge(t.Context(), webhook.EarlyPhase, input(1))
	if err != nil || len(findings) != 1 || findings[0].Message != "hostNetwork" || findings[0].Image != nil {
		t.Errorf("findings %+v, %v", findings, err)
	}
}

// TestEndlessRule: evaluation ends with its context.
func TestEndlessRule(t *testing.T) {
	e, err := engine(t, `deny contains {"message": "no"} if { n := numbers.range(1, 100000); some a in n; some b in n; some c in n; a + b + c < 0 }`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if findings, err := e.Judge(ctx, webhook.EarlyPhase, input(1)); err == nil {
		t.Errorf("findings %+v and no error", findings)
	}
	if elapsed := time.Since(start); elapsed > 5*time.Second {
		t.Errorf("took %v", elapsed)
	}
}

func TestFill(t *testing.T) {
	args := map[string]any{"a": "{b}", "b": "x", "list": []any{"1", "2", "3", "4", "5"}, "four": []any{"1", "2", "3", "4"}}
	for message, want := range map[string]string{
		"plain": "plain", "{a}{b}": "{b}x", "{c} {": "{c} {", "{{b}}": "{x}", "{list}": "1, 2, 3 and 2 more", "{four}": "1, 2, 3, 4",
	} {
		if got := fill(message, args); got != want {
			t.Errorf("fill(%q) = %q, want %q", message, got, want)
		}
	}
}

// shipped compiles the shipped rules.
func shipped(t testing.TB) *Engine {
	t.Helper()
	source := Source{}
	if err := source.ReadFS(policies.Files()); err != nil {
		t.Fatal(err)
	}
	e, err := New(t.Context(), Config{
		Source: source, Schema: schema(t), Data: map[string]any{"pin": map[string]any{"pods": "rewrite"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestShippedRules: phases and facts are what the flow counts on, and a good image passes all of them.
func TestShippedRules(t *testing.T) {
	e := shipped(t)
	want := []webhook.Rule{
		{Name: "attestation", Needs: webhook.FactAttestations},
		{Name: "golden", Needs: webhook.FactTagDigest | webhook.FactDerivedFrom, Early: true}, {Name: "pinned"}, {Name: "privileged", Off: true}, {Name: "reference"}, {Name: "registry"},
		{Name: "signature", Needs: webhook.FactSignatures},
		{Name: "tag", Needs: webhook.FactTagDigest, Early: true}, {Name: "user", Needs: webhook.FactUser, Early: true},
	}
	if got := e.Rules(); !reflect.DeepEqual(got, want) {
		t.Errorf("rules\n%+v, want\n%+v", got, want)
	}
	for _, phase := range []webhook.Phase{webhook.EarlyPhase, webhook.LatePhase} {
		if findings, err := e.Judge(t.Context(), phase, input(3)); err != nil || len(findings) > 0 {
			t.Errorf("phase %d: %+v, %v", phase, findings, err)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	e := shipped(b)
	for _, images := range []int{1, 5} {
		in := input(images)
		for phase, name := range map[webhook.Phase]string{webhook.EarlyPhase: "early", webhook.LatePhase: "late"} {
			b.Run(fmt.Sprintf("%s/images=%d", name, images), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := e.Judge(b.Context(), phase, in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
