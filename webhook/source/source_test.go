package source

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const podText = `apiVersion: v1
kind: Pod
metadata: {name: ws}
spec:
  containers:
  - name: dev
    image: registry.corp.example/base:v1
`

// digest of a file: what was read, one line each.
func describe(f File) []string {
	var lines []string
	for _, o := range f.Objects {
		lines = append(lines, fmt.Sprintf("%d %s %s/%s", o.Line, o.Kind, o.Namespace, o.Name))
	}
	for _, p := range f.Problems {
		lines = append(lines, fmt.Sprintf("%d %s", p.Line, p.Message))
	}
	if f.Skipped > 0 {
		lines = append(lines, fmt.Sprintf("skipped %d", f.Skipped))
	}
	return lines
}

func TestRead(t *testing.T) {
	for title, c := range map[string]struct {
		name, text string
		want       []string
	}{
		"a pod":                   {"a.yaml", podText, []string{"1 Pod default/ws"}},
		"a namespace of its own":  {"a.yaml", "kind: Pod\napiVersion: v1\nmetadata: {namespace: team, generateName: ws-}\n", []string{"1 Pod team/ws-"}},
		"nothing":                 {"a.yaml", "", nil},
		"comments only":           {"a.yaml", "# a\n---\n# b\n---\n", nil},
		"null":                    {"a.yaml", "---\nnull\n---\n~\n", nil},
		"documents":               {"a.yaml", "# one\n---\n" + podText + "---\n\n---\n" + podText + "...\n" + podText, []string{"3 Pod default/ws", "13 Pod default/ws", "21 Pod default/ws"}},
		"carriage returns":        {"a.yaml", strings.ReplaceAll(podText+"---\n"+podText, "\n", "\r\n"), []string{"1 Pod default/ws", "9 Pod default/ws"}},
		"on the separator's line": {"a.yaml", "--- {apiVersion: v1, kind: Pod}\n--- # two\n" + podText, []string{"1 Pod default/", "3 Pod default/ws"}},
		"dashes within a block":   {"a.yaml", podText + "    command: [sh, -c]\n    args:\n    - |\n      ---\n      x\n", []string{"1 Pod default/ws"}},
		"byte order mark":         {"a.yaml", "\ufeff" + podText, []string{"1 Pod default/ws"}},
		"flow style":              {"a.yaml", "{apiVersion: v1, kind: Pod}", []string{"1 Pod default/"}},
		"other kinds":             {"a.yaml", "apiVersion: v1\nkind: Service\n---\n- 1\n---\nreplicas: 3\n---\nhello\n", []string{"skipped 4"}},
		"a Job of somebody else":  {"a.yaml", "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\n", []string{"skipped 1"}},
		"a list": {"a.yaml", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n- {apiVersion: v1, kind: Secret}\n" +
			"- apiVersion: v1\n  kind: List\n  items:\n  - {apiVersion: apps/v1, kind: Deployment, metadata: {name: b}}\n",
			[]string{"4 Pod default/a", "9 Deployment default/b", "skipped 1"}},
		"a list of a kind":        {"a.json", `{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"a"}},` + "\n" + `{"metadata":{"name":"b"}}]}`, []string{"1 Pod default/a", "2 Pod default/b"}},
		"items that are none":     {"a.yaml", "apiVersion: v1\nkind: List\nitems: 3\n", []string{"skipped 1"}},
		"JSON values":             {"a.json", "{\"apiVersion\":\"v1\",\n\"kind\":\"Pod\"}\n\n{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"\\ud83d\\ude00\"}}", []string{"1 Pod default/", "4 Pod default/😀"}},
		"JSON and YAML":           {"-", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}\n---\n" + podText, []string{"1 Pod default/", "3 Pod default/ws"}},
		"JSON with tabs":          {"a.json", "{\n\t\"apiVersion\":\t\"v1\",\n\t\"kind\": \"Pod\"\n}\n", []string{"1 Pod default/"}},
		"JSON cut off":            {"a.json", "{\"apiVersion\":\"v1\",\n\"kind\":", []string{"2 is no valid JSON: ends in the middle of a JSON value"}},
		"a name twice in JSON":    {"a.json", "{\"kind\":\"Pod\",\n\"kind\":\"Pod\"}", []string{"2 is no valid JSON: /kind: duplicate object member name"}},
		"a name twice":            {"a.yaml", "---\n" + podText + "    image: evil\n", []string{"9 is no valid YAML: \"image\" stands there twice"}},
		"broken, and one more":    {"a.yaml", "kind: Pod\nmetadata: {name: [x\n---\n" + podText, []string{"4 Pod default/ws", "2 is no valid YAML: did not find expected ',' or ']'"}},
		"a tab":                   {"a.yaml", "kind: Pod\n\tname: x\n", []string{"2 is no valid YAML: found a tab character that violates indentation"}},
		"no UTF-8":                {"a.yaml", "kind: \xff\n", []string{"0 is no UTF-8 text"}},
		"Helm, once":              {"a.yaml", "kind: {{ .Values.kind }}\n---\nname: {{ x }}\n", []string{"1 looks like a Helm template"}},
		"Helm in an image":        {"a.yaml", strings.Replace(podText, "registry.corp.example/base:v1", `"{{ .Values.image }}"`, 1), []string{"7 looks like a Helm template"}},
		"braces in an argument":   {"a.yaml", podText + "    args: ['--format={{.Name}}']\n", []string{"1 Pod default/ws"}},
		"no apiVersion":           {"a.yaml", "kind: Deployment\n", []string{"1 Deployment: apiVersion is missing"}},
		"an apiVersion that went": {"a.yaml", "apiVersion: extensions/v1beta1\nkind: Deployment\n", []string{`1 Kubernetes has no Deployment in "extensions/v1beta1"`}},
		"a Pod in apps":           {"a.yaml", "apiVersion: apps/v1\nkind: Pod\n", []string{`1 Kubernetes has no Pod in "apps/v1"`}},
		"no version":              {"a.yaml", "kind: CronJob\napiVersion: 3\n", []string{"1 CronJob: apiVersion is missing"}},
		"a review": {"a.json", "{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\",\"request\":{\n\"uid\":\"1\",\"operation\":\"CREATE\"," +
			"\"namespace\":\"team\",\"kind\":{\"group\":\"\",\"version\":\"v1\",\"kind\":\"Pod\"},\n\"object\":{\"metadata\":{\"generateName\":\"ws-\"}}}}",
			[]string{"1 Pod team/ws-"}},
		"a review of nothing": {"a.json", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`,
			[]string{"1 is no AdmissionReview that can be judged: /request: is missing"}},
		"a review without kind": {"a.json", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE"}}`,
			[]string{"1 is no AdmissionReview that can be judged: /request/kind: is missing"}},
		"an old review": {"a.json", `{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}`,
			[]string{`1 is no AdmissionReview that can be judged: want kind AdmissionReview of admission.k8s.io/v1, not kind "AdmissionReview" of "admission.k8s.io/v1beta1"`}},
	} {
		t.Run(title, func(t *testing.T) {
			if diff := cmp.Diff(c.want, describe(Read(c.name, []byte(c.text), "default"))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestBombs: what would grow without bound is refused, and at once.
func TestBombs(t *testing.T) {
	laughs := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 'b'; i < 'k'; i++ {
		laughs += fmt.Sprintf("%c: &%c [%s]\n", i, i, strings.TrimSuffix(strings.Repeat("*"+string(i-1)+", ", 10), ", "))
	}
	for title, text := range map[string]string{
		"aliases":       laughs,
		"an alias loop": "a: &a [*a]\n",
		"nesting":       strings.Repeat("[", 20_000),
		"nested JSON":   strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000),
	} {
		t.Run(title, func(t *testing.T) {
			f := Read("a.yaml", []byte("kind: Pod\n---\n"+text), "default")
			if len(f.Problems) != 2 || !strings.HasPrefix(f.Problems[1].Message, "is no valid ") {
				t.Errorf("got %q, want two problems", describe(f))
			}
		})
	}
}

func TestLineOf(t *testing.T) {
	const text = `# comment
---
apiVersion: v1
kind: Pod
metadata:
  annotations: {"a/b~c": x}
spec:
  containers:
  - &first
    name: dev
    image: one
    env:
    - name: CODER_INNER_IMAGE
      value: two
  - <<: *first
    name: side
  - *first
  - {<<: [{image: three}, *first], name: flow}
`
	f := Read("a.yaml", []byte(text), "default")
	if len(f.Objects) != 1 {
		t.Fatalf("read %q", describe(f))
	}
	for pointer, want := range map[string]int{
		"":                                 3,
		"/spec/containers/0/image":         11,
		"/spec/containers/0/env/0/value":   14,
		"/spec/containers/1/image":         11, // merged
		"/spec/containers/2/image":         11, // an alias
		"/spec/containers/2":               17,
		"/spec/containers/3/image":         18,
		"/spec/containers/3/env/0/value":   14,
		"/spec/containers/9/image":         9, // nearest
		"/spec/containers/x":               9,
		"/spec/nothing":                    8,
		"/metadata/annotations/a~1b~0c":    6,
		"/spec/containers/0/image/0/never": 11,
	} {
		if got := f.Objects[0].LineOf(pointer); got != want {
			t.Errorf("%s: line %d, want %d", pointer, got, want)
		}
	}
}

// TestLineOfItem: pointers lead into the object, wherever it stands.
func TestLineOfItem(t *testing.T) {
	const pointer = "/spec/containers/0/image"
	for title, c := range map[string]struct {
		text string
		want int
	}{
		"item": {"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  spec:\n    containers:\n    - name: a\n      image: b\n", 9},
		"JSON": {"\n{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\n\"spec\":{\"containers\":[\n{\"name\":\"a\",\n\"image\":\"b\"}]}}", 5},
		"review": {"{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\",\"request\":{\"uid\":\"1\",\"operation\":\"CREATE\",\n" +
			"\"kind\":{\"version\":\"v1\",\"kind\":\"Pod\"},\"object\":{\"spec\":{\n\"containers\":[{\n\"image\":\"b\"}]}}}}", 4},
	} {
		t.Run(title, func(t *testing.T) {
			f := Read("x", []byte(c.text), "default")
			if len(f.Objects) != 1 {
				t.Fatalf("read %q", describe(f))
			}
			if got := f.Objects[0].LineOf(pointer); got != c.want {
				t.Errorf("line %d, want %d", got, c.want)
			}
		})
	}
}

// TestRequest: what is sent is what kubectl would send, and JSON goes on byte for byte.
func TestRequest(t *testing.T) {
	for title, c := range map[string]struct{ text, want string }{
		"YAML 1.1": {"apiVersion: v1\nkind: Pod\nspec: {hostNetwork: yes, a: 0x10, b: '1'}\n", `{"apiVersion":"v1","kind":"Pod","spec":{"a":16,"b":"1","hostNetwork":true}}`},
		"JSON":     {`{ "kind":"Pod","apiVersion":"v1" , "x":1.50}`, `{ "kind":"Pod","apiVersion":"v1" , "x":1.50}`},
	} {
		t.Run(title, func(t *testing.T) {
			f := Read("x", []byte(c.text), "team")
			if len(f.Objects) != 1 {
				t.Fatalf("read %q", describe(f))
			}
			request := f.Objects[0].Request
			if string(request.Object) != c.want || request.Namespace != "team" || request.Operation != "CREATE" || request.Version != "v1" {
				t.Errorf("got %+v with %s", request, request.Object)
			}
		})
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yaml", "a/c.YML", "a/d.json", "a/e.txt", ".git/f.yaml", ".hidden/g.yaml", "empty/h.txt"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("missing", filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b.yaml", filepath.Join(dir, "same.yaml")); err != nil {
		t.Fatal(err)
	}
	in := func(names ...string) []string {
		var paths []string
		for _, name := range names {
			paths = append(paths, filepath.Join(dir, filepath.FromSlash(name)))
		}
		return paths
	}
	files, errs := Find(append(append(in("a/e.txt", ""), "-"), in("b.yaml", "missing", "empty")...))
	want := append(in("a/e.txt", ".hidden/g.yaml", "a/c.YML", "a/d.json", "b.yaml", "same.yaml"), "-")
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	var said []string
	for _, err := range errs {
		said = append(said, err.Error())
	}
	for _, part := range []string{"link.yaml", "missing: no such file", "empty: no file ends in .yaml"} {
		if !strings.Contains(strings.Join(said, "\n"), part) {
			t.Errorf("errors %q do not name %q", said, part)
		}
	}
	if len(errs) != 3 {
		t.Errorf("errors %q, want 3", said)
	}
}

func TestOpen(t *testing.T) {
	large := bytes.Repeat([]byte("#"), MaxBytes+1)
	if _, err := Open("-", bytes.NewReader(large)); err == nil || !strings.Contains(err.Error(), "larger than 16 MiB") {
		t.Errorf("a large file: %v", err)
	}
	if text, err := Open("-", bytes.NewReader(large[1:])); err != nil || len(text) != MaxBytes {
		t.Errorf("one just small enough: %d bytes, %v", len(text), err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "missing"), nil); !os.IsNotExist(err) {
		t.Errorf("a missing file: %v", err)
	}
}

// FuzzRead: whatever stands in a file, reading it ends, and lines are lines of the file.
func FuzzRead(f *testing.F) {
	f.Add([]byte(podText + "---\n" + podText))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod"}]} {}`))
	f.Add([]byte("a: &a [*a]\n---\n{{ x }}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file := Read("-", text, "default")
		lines := len(regexp.MustCompile("[\n\r\u0085\u2028\u2029]").FindAll(text, -1)) + 1 // what ends a line in YAML 1.1
		for _, o := range file.Objects {
			if o.Request == nil || o.Line < 1 || o.Line > lines || o.LineOf("/spec/containers/0/image") > lines {
				t.Errorf("object %+v of %d lines", o, lines)
			}
		}
		for _, p := range file.Problems {
			if p.Line < 0 || p.Line > lines || p.Message == "" {
				t.Errorf("problem %+v of %d lines", p, lines)
			}
		}
	})
}
