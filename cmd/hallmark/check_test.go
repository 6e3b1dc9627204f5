package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// checkWorld is a registry and a directory with its configuration.
func checkWorld(t testing.TB) *harness.Fixture {
	t.Helper()
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Registry.Close() })
	return f
}

type checked struct {
	code     int
	out, err string
}

// runCheckIn runs the command as main does, with stdin.
func runCheckIn(t testing.TB, f *harness.Fixture, stdin string, args ...string) checked {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"check", "--config", filepath.Join(f.Dir, "hallmark.yaml")}, args...)
	code := run(t.Context(), args, streams{strings.NewReader(stdin), &out, &errs})
	return checked{code, out.String(), errs.String()}
}

// podYAML is a pod in YAML; the image is on line 7 of it.
func podYAML(name, namespace, image, more string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s}\nspec:\n  containers:\n  - name: dev\n    image: %s\n%s",
		name, namespace, image, more)
}

// jsonOf runs check -o json and holds the output against the schema.
func jsonOf(t testing.TB, f *harness.Fixture, stdin string, args ...string) (int, []checkResult) {
	t.Helper()
	got := runCheckIn(t, f, stdin, append([]string{"-o", "json"}, args...)...)
	var results []checkResult
	if err := json.Unmarshal([]byte(got.out), &results); err != nil {
		t.Fatalf("%v\n%s%s", err, got.out, got.err)
	}
	for _, mistake := range schemaMistakes(t, []byte(got.out)) {
		t.Errorf("docs/check.schema.json: %s\n%s", mistake, got.out)
	}
	return got.code, results
}

// schemaMistakes holds output against the schema that users are given.
func schemaMistakes(t testing.TB, output []byte) (mistakes []string) {
	t.Helper()
	return mistakesUnder(t, "check.schema.json", output)
}

// mistakesUnder holds output against one of the schemas of docs.
func mistakesUnder(t testing.TB, file string, output []byte) (mistakes []string) {
	t.Helper()
	schema, err := os.ReadFile(filepath.Join("../../docs", file))
	if err != nil {
		t.Fatal(err)
	}
	query := rego.New(rego.Query(`match := json.match_schema(input.document, input.schema)`),
		rego.Input(map[string]any{"document": string(output), "schema": string(schema)}), rego.StrictBuiltinErrors(true))
	found, err := query.Eval(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	match := found[0].Bindings["match"].([]any)
	for _, mistake := range match[1].([]any) {
		mistakes = append(mistakes, fmt.Sprint(mistake))
	}
	return mistakes
}

// summaries are results, short: LINE KIND NAMESPACE/NAME DECISION RULE@LINE…
func summaries(results []checkResult) []string {
	var list []string
	for _, r := range results {
		text := fmt.Sprintf("%d %s %s/%s %s", r.Line, r.Kind, r.Namespace, r.Name, r.Decision)
		for _, f := range r.Findings {
			text += fmt.Sprintf(" %s/%s@%d", f.Mode, f.Rule, f.Line)
		}
		list = append(list, text)
	}
	return list
}

func TestCheckAgainstRegistry(t *testing.T) {
	f := checkWorld(t)
	deployment := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  template:\n    spec:\n      containers:\n      - name: dev\n        image: %s\n"
	for title, c := range map[string]struct {
		text string
		code int
		want []string
	}{
		"a good pod":      {podYAML("a", "team", f.Ref("golden/ws:v1.0.0"), ""), 0, []string{"1 Pod team/a allowed"}},
		"pinned already":  {podYAML("a", "team", f.Pinned("golden/ws:v1.0.0"), ""), 0, []string{"1 Pod team/a allowed"}},
		"an unsigned one": {podYAML("a", "team", f.Ref("golden/ws:v9.9.9"), ""), 1, []string{"1 Pod team/a denied enforce/signature@7"}},
		"root":            {podYAML("a", "team", f.Ref("golden/root:v1.0.0"), ""), 1, []string{"1 Pod team/a denied enforce/user@7"}},
		"warn mode":       {podYAML("a", "warn-x", f.Ref("golden/root:v1.0.0"), ""), 0, []string{"1 Pod warn-x/a allowed warn/user@7"}},
		"audit mode":      {podYAML("a", "audit-x", f.Ref("golden/root:v1.0.0"), ""), 0, []string{"1 Pod audit-x/a allowed audit/user@7"}},
		"a workload":      {fmt.Sprintf(deployment, f.Ref("golden/ws:v1.0.0")), 0, []string{"1 Deployment default/d allowed"}},
		"a bad workload":  {fmt.Sprintf(deployment, f.Ref("golden/ws:latest")), 1, []string{"1 Deployment default/d denied enforce/tag@9"}},
		"no such image":   {podYAML("a", "team", f.Ref("golden/ws:v7.0.0"), ""), 1, []string{"1 Pod team/a denied enforce/pinned@7"}},
		"denied and unread": {podYAML("a", "team", f.Ref("golden/ws:v9.9.9"), "---\nkind: [\n"), 1,
			[]string{"1 Pod team/a denied enforce/signature@7", "10  / undecided"}},
		"allowed and unread": {podYAML("a", "team", f.Ref("golden/ws:v1.0.0"), "---\nkind: [\n---\n"+podYAML("b", "team", f.Ref("golden/ws:v1.0.0"), "")), 2,
			[]string{"1 Pod team/a allowed", "10  / undecided", "11 Pod team/b allowed"}},
		"a malformed pod": {podYAML("a", "team", "[x]", ""), 1, []string{"1 Pod team/a denied"}},
		"an image in env": {podYAML("a", "team", f.Ref("golden/envbox:v1.0.0"), "    env: [{name: CODER_INNER_IMAGE,\n      value: ubuntu}]\n"), 1,
			[]string{"1 Pod team/a denied enforce/golden@9 enforce/registry@9 enforce/tag@9"}},
	} {
		t.Run(title, func(t *testing.T) {
			code, results := jsonOf(t, f, c.text, "-")
			if diff := cmp.Diff(c.want, summaries(results)); diff != "" || code != c.code {
				t.Errorf("exit %d, want %d; -want +got\n%s", code, c.code, diff)
			}
		})
	}
}

// TestCheckPatch: the result says what the pinning half would do, and that is what was judged.
func TestCheckPatch(t *testing.T) {
	f := checkWorld(t)
	_, results := jsonOf(t, f, podYAML("a", "team", f.Ref("golden/ws:v1.0.0"), ""), "-")
	var replaced []string
	for _, op := range results[0].Patch {
		if op.Op == "replace" {
			replaced = append(replaced, fmt.Sprint(op.Path, " ", op.Value))
		}
	}
	if diff := cmp.Diff([]string{"/spec/containers/0/image " + f.Pinned("golden/ws:v1.0.0")}, replaced); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	text := runCheckIn(t, f, podYAML("a", "team", f.Ref("golden/ws:v1.0.0"), ""), "-")
	if want := "stdin:1: Pod team/a: allowed\n  /spec/containers/0/image becomes " + f.Pinned("golden/ws:v1.0.0") + "\n"; !strings.HasPrefix(text.out, want) {
		t.Errorf("got %s\nwant %s", text.out, want)
	}
}

// TestCheckRegistryDown: what cannot be found out is neither allowed nor denied.
func TestCheckRegistryDown(t *testing.T) {
	f := checkWorld(t)
	if err := f.Registry.Close(); err != nil {
		t.Fatal(err)
	}
	good := podYAML("a", "team", f.Ref("golden/ws:v1.0.0"), "")
	code, results := jsonOf(t, f, good, "-")
	if diff := cmp.Diff([]string{"1 Pod team/a undecided enforce/pinned@7"}, summaries(results)); diff != "" || code != 2 {
		t.Errorf("exit %d, want 2; -want +got\n%s", code, diff)
	}
	got := runCheckIn(t, f, good, "-")
	if !strings.Contains(got.out, "stdin:1: Pod team/a: could not be checked\n  Image ") || got.err != "error: 1 object could not be checked\n" {
		t.Errorf("got %+v", got)
	}
	if code, _ := jsonOf(t, f, good+"---\n"+podYAML("b", "team", "ubuntu", ""), "-"); code != 1 {
		t.Errorf("exit %d with another one denied, want 1", code)
	}
}

// TestCheckOffline: nobody is asked, and what nobody was asked for is named.
func TestCheckOffline(t *testing.T) {
	f := checkWorld(t)
	if err := os.Remove(filepath.Join(f.Dir, "registry-ca.crt")); err != nil {
		t.Fatal(err) // it is on the cluster, not on the laptop
	}
	for title, c := range map[string]struct {
		text string
		code int
		want []string
		says string
	}{
		"a good pod": {podYAML("a", "team", f.Ref("golden/ws:v1.0.0"), ""), 0, []string{"1 Pod team/a allowed"},
			"; not checked offline: signature of 1 image, user of 1 image."},
		"an unsigned one": {podYAML("a", "team", f.Ref("golden/ws:v9.9.9"), "    securityContext: {runAsUser: 1000}\n"), 0, []string{"1 Pod team/a allowed"},
			"; not checked offline: signature of 1 image."},
		"root in the pod":   {podYAML("a", "team", f.Ref("golden/ws:v1.0.0"), "    securityContext: {runAsUser: 0}\n"), 1, []string{"1 Pod team/a denied enforce/user@7"}, ""},
		"a rolling tag":     {podYAML("a", "team", f.Ref("golden/ws:latest"), ""), 1, []string{"1 Pod team/a denied enforce/tag@7"}, ""},
		"a public registry": {podYAML("a", "team", "ubuntu:v1.0.0", ""), 1, []string{"1 Pod team/a denied enforce/golden@7 enforce/registry@7"}, ""},
		"no reference":      {podYAML("a", "team", "REGISTRY/x", ""), 1, []string{"1 Pod team/a denied enforce/reference@7"}, ""},
		"not golden":        {podYAML("a", "team", f.Ref("sandbox/evil:v1.0.0"), ""), 1, []string{"1 Pod team/a denied enforce/golden@7"}, ""},
		"tag and digest": {podYAML("a", "team", f.Pinned("golden/ws:v1.0.0"), "    securityContext: {runAsUser: 1000}\n"), 0, []string{"1 Pod team/a allowed"},
			"; not checked offline: golden of 1 image, signature of 1 image, tag of 1 image."},
	} {
		t.Run(title, func(t *testing.T) {
			code, results := jsonOf(t, f, c.text, "--offline", "-")
			if diff := cmp.Diff(c.want, summaries(results)); diff != "" || code != c.code {
				t.Errorf("exit %d, want %d; -want +got\n%s", code, c.code, diff)
			}
			text := runCheckIn(t, f, c.text, "--offline", "-")
			if offline := strings.Contains(text.out, "not checked offline"); !strings.Contains(text.out, c.says) || offline != (c.says != "") {
				t.Errorf("the summary does not say %q:\n%s", c.says, text.out)
			}
		})
	}
	if asked := f.Registry.Requests(); len(asked) > 0 {
		t.Errorf("the registry was asked: %v", asked)
	}
}

// TestCheckIsTheWebhook: check says of a review what the webhook answers over HTTPS.
func TestCheckIsTheWebhook(t *testing.T) {
	f := checkWorld(t)
	client := webhookOf(t, f)
	for _, image := range []string{"golden/ws:v1.0.0", "golden/ws:v9.9.9", "golden/ws:latest", "golden/root:v1.0.0", "golden/multiroot:v1.0.0", "elsewhere/x:v1.0.0"} {
		for _, kind := range []string{"Pod", "ephemeral", "Job"} {
			t.Run(kind+" "+image, func(t *testing.T) {
				o := reviewed(kind, f.Ref(image), f.Pinned("golden/ws:v1.0.0"))
				admitted, err := client.Admit(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				review, err := servertest.NewReview("00000000-0000-4000-8000-000000000000", o)
				if err != nil {
					t.Fatal(err)
				}
				text, err := json.Marshal(review)
				if err != nil {
					t.Fatal(err)
				}
				_, results := jsonOf(t, f, string(text), "-")
				got, want := results[0], checkAllowed
				if !admitted.Allowed {
					want = checkDenied
				}
				withoutID := func(message string) string { before, _, _ := strings.Cut(message, " · decision "); return before }
				if got.Decision != want || withoutID(got.Message) != withoutID(admitted.Message) {
					t.Errorf("check: %s %q\nwebhook: %s %q", got.Decision, got.Message, want, admitted.Message)
				}
				if (len(got.Patch) > 0) != (admitted.Patch != nil) {
					t.Errorf("check patches %v, the webhook %s", got.Patch, admitted.Patch)
				}
			})
		}
	}
}

// reviewed makes an object of a kind; an ephemeral container comes into a pod that runs.
func reviewed(kind, image, runs string) servertest.Object {
	container := func(name, image string) string { return fmt.Sprintf(`{"name":%q,"image":%q}`, name, image) }
	pod := func(more string) []byte {
		return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"ws","namespace":"team"},"spec":{"containers":[%s]%s}}`, container("dev", runs), more)
	}
	switch kind {
	case "ephemeral":
		return servertest.Object{
			Operation: "UPDATE", SubResource: "ephemeralcontainers", Old: pod(""), JSON: pod(`,"ephemeralContainers":[` + container("debug", image) + `]`),
		}
	case "Job":
		return servertest.Object{JSON: fmt.Appendf(nil, `{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"ws","namespace":"team"},`+
			`"spec":{"template":{"spec":{"containers":[%s]}}}}`, container("dev", image))}
	}
	runs = image
	return servertest.Object{JSON: pod("")}
}

// webhookOf serves the real handler with the files of a fixture.
func webhookOf(t *testing.T, f *harness.Fixture) *servertest.Client {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(f.Dir, "hallmark.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := shippedPolicies(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewTLSServer(handlerOf(t, text, source))
	t.Cleanup(s.Close)
	client, err := servertest.NewClient(s.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// TestCheckMany: many files at once, each result in its place.
func TestCheckMany(t *testing.T) {
	f := checkWorld(t)
	dir := filepath.Join(f.Dir, "many")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 100 {
		image, decision := "golden/ws:v1.0.0", "allowed"
		if i%10 == 0 {
			image, decision = "golden/root:v1.0.0", "denied enforce/user@7"
		}
		name := fmt.Sprintf("p%02d", i)
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(podYAML(name, "team", f.Ref(image), "")), 0o600); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("1 Pod team/%s %s", name, decision))
	}
	f.Registry.Reset()
	_, results := jsonOf(t, f, "", dir)
	if diff := cmp.Diff(want, summaries(results)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if asked := len(f.Registry.Requests()); asked > 12 {
		t.Errorf("the registry was asked %d times about two images", asked)
	}
}
