// Package test holds the structure of the product: what may import what, and what no package may do. The rules are
// tables with their reasons, and each comes with code that breaks it, which shows that it still looks.
package test

import (
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hallmark-admission/hallmark"

// A layer is a package of the product and the packages of this repository that it may import.
type layer struct {
	dir    string
	may    []string
	reason string
}

func layers() []layer {
	core := []string{"webhook"}
	const (
		adapter = "adapters never import each other; they meet in cmd/hallmark"
		alone   = "it is a stand-in for the world outside, so it must not share code with what it tests"
	)
	return []layer{
		{"webhook", nil, "a decision is reached without knowing who serves it, reads for it or judges for it"},
		{"webhook/server", core, adapter}, {"webhook/config", core, adapter}, {"webhook/catalog", core, adapter},
		{"webhook/registry", core, adapter}, {"webhook/signature", core, adapter}, {"webhook/policy", []string{"webhook", "webhook/endpoint"}, adapter},
		{"webhook/evidence", core, adapter}, {"webhook/pullsecrets", core, adapter}, {"webhook/cluster", core, adapter}, {"webhook/source", core, adapter},
		{"webhook/trace", core, adapter}, {"webhook/decisionlog", []string{"webhook/endpoint"}, "it sends what it is given"},
		{"webhook/endpoint", nil, "it knows nothing of what is sent"},
		{"webhook/registrytest", nil, alone}, {"webhook/servertest", nil, alone},
		{"policies", nil, "it is Rego and its schema, which Go only embeds"},
		{"cmd/hallmark", []string{"webhook", "webhook/...", "policies"}, "the product does not need its test programs"},
	}
}

// An owner is the packages that alone may import a module.
type owner struct {
	path   string
	dirs   []string
	reason string
}

func owners() []owner {
	return []owner{
		{"github.com/open-policy-agent/opa", []string{"webhook/policy"}, "Rego is compiled and asked in one place"},
		{"github.com/sigstore/cosign", []string{"webhook/signature"}, "its calls need the guards that stand there"},
		{"github.com/sigstore/sigstore", []string{"webhook/signature", "webhook/registrytest"},
			"signatures are verified in one place, and made only by the test registry"},
		{"github.com/sigstore/sigstore-go", []string{"webhook/signature", "webhook/registrytest"},
			"signatures are verified in one place, and made only by the test registry"},
		{"github.com/theupdateframework/go-tuf", []string{"webhook/signature"}, "whom one trusts is read in one place"},
		{"github.com/google/go-containerregistry",
			[]string{"webhook/registry", "webhook/signature", "webhook/evidence", "webhook/registrytest"},
			"who holds it could read a registry past the one hardened transport"},
		{"k8s.io/client-go", []string{"webhook/cluster"}, "answering an admission needs no Kubernetes credentials"},
		{"sigs.k8s.io/controller-runtime", []string{"webhook/cluster"}, "answering an admission needs no Kubernetes credentials"},
		{"go.opentelemetry.io", []string{"webhook/trace"}, "nothing of a decision knows that it is traced"},
		{"github.com/spf13/cobra", []string{"cmd/hallmark"}, "flags are read where the program is wired"},
	}
}

// An allowance is a place that may do what no other may.
type allowance struct {
	file, function string // an empty function is the whole file; what is done there, where it is no function
	reason         string
}

func mayStartContexts() []allowance {
	return []allowance{
		{"cmd/hallmark/main.go", "", "where the process begins"},
		{"webhook/server/server.go", "Run", "shutdown goes on after the context that ended it"},
	}
}

// mayTune are variables of the Go runtime by which it is set up, before anything is decided.
func mayTune() []allowance {
	return []allowance{{"cmd/hallmark/main.go", "variable runtime.MemProfileRate of another package", "the runtime has no other switch for it"}}
}

func mayPrint() []allowance {
	return []allowance{
		{"webhook/registrytest/registry.go", "", "go-containerregistry's registry wants a *log.Logger, which is silenced there"},
	}
}

// A ban is a dependency that must not get into the binary, but perhaps through one package.
type ban struct {
	path, unless, reason string
}

func bans() []ban {
	return []ban{
		{"github.com/chrismellard/docker-credential-acr-env", "", "it sends the credentials of a pod to Azure for any registry that asks"},
		{"github.com/google/go-containerregistry/pkg/authn/k8schain", "", "it brings the clients of every cloud; credentials are a Docker config"},
		{"github.com/hashicorp/vault/api", "", "it has no time-outs and may run a token helper; a key is one request"},
		{"k8s.io/client-go", module + "/webhook/cluster", "answering an admission needs no Kubernetes credentials"},
	}
}

// A broken is code that a check must complain about, in words that contain want.
type broken struct {
	name  string
	files map[string]string
	want  string
}

func TestArchitecture(t *testing.T) {
	files, err := readModule("..")
	if err != nil {
		t.Fatal(err)
	}
	product, err := parse(files)
	if err != nil {
		t.Fatal(err)
	}
	if len(product) < 10 {
		t.Fatalf("found only %d packages", len(product))
	}
	for _, check := range []struct {
		name   string
		run    func([]*source) []string
		broken []broken
	}{
		{"imports of this repository", layerViolations, brokenLayers()},
		{"imports of other modules", ownerViolations, brokenOwners()},
		{"package names", nameViolations, brokenNames()},
		{"no func init", initViolations, brokenInits()},
		{"no mutable package variable", variableViolations, brokenVariables()},
		{"no new context", contextViolations, brokenContexts()},
		{"no printing", printViolations, brokenPrints()},
	} {
		t.Run(check.name, func(t *testing.T) {
			for _, violation := range check.run(product) {
				t.Error(violation)
			}
			for _, b := range check.broken {
				t.Run(b.name, func(t *testing.T) {
					sources, err := parse(b.files)
					if err != nil {
						t.Fatal(err)
					}
					wantOne(t, check.run(sources), b.want)
				})
			}
		})
	}
}

// TestBinary looks at everything that is linked, and not only at what this repository imports itself.
func TestBinary(t *testing.T) {
	const root = module + "/cmd/hallmark"
	graph, err := importGraph(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if len(graph) < 100 {
		t.Fatalf("go list found only %d packages", len(graph))
	}
	for _, violation := range banViolations(graph, root) {
		t.Error(violation)
	}
	const client, cluster = "k8s.io/client-go/rest", module + "/webhook/cluster"
	for _, tc := range []struct {
		name  string
		graph map[string][]string
		want  string
	}{
		{"client-go behind a library", map[string][]string{root: {"a"}, "a": {"b"}, "b": {client}}, root + " → a → b → " + client},
		{"client-go beside cluster", map[string][]string{root: {cluster, "a"}, cluster: {client}, "a": {client}}, root + " → a → " + client},
		{"client-go through cluster", map[string][]string{root: {cluster}, cluster: {client}}, ""},
		{"k8schain through cluster", map[string][]string{root: {cluster}, cluster: {bans()[1].path}}, cluster + " → " + bans()[1].path},
		{"acr-env", map[string][]string{root: {"a"}, "a": {bans()[0].path + "/pkg/token"}}, "a → " + bans()[0].path},
	} {
		t.Run(tc.name, func(t *testing.T) { wantOne(t, banViolations(tc.graph, root), tc.want) })
	}
}

// wantOne wants exactly one violation that contains text, or none for "".
func wantOne(t *testing.T, got []string, text string) {
	t.Helper()
	if text == "" && len(got) == 0 || len(got) == 1 && text != "" && strings.Contains(got[0], text) {
		return
	}
	t.Errorf("violations:\n got %q\nwant one with %q", got, text)
}

// oneFile is a package of one file.
func oneFile(path, body string) map[string]string {
	name := path[:strings.LastIndex(path, "/")]
	name = name[strings.LastIndex(name, "/")+1:]
	if strings.HasPrefix(path, "cmd/") {
		name = "main"
	}
	return map[string]string{path: "package " + name + "\n" + body}
}

func imports(paths ...string) string {
	return "import (\n_ \"" + strings.Join(paths, "\"\n_ \"") + "\"\n)"
}

func brokenLayers() []broken {
	return []broken{
		{"adapter imports adapter", oneFile("webhook/server/a.go", imports(module+"/webhook/policy")), "webhook/server/a.go:3: webhook/server must not import webhook/policy: adapters never"},
		{"core imports adapter", oneFile("webhook/a.go", imports(module+"/webhook/catalog")), "webhook must not import webhook/catalog"},
		{"adapter imports policies", oneFile("webhook/policy/a.go", imports(module+"/policies")), "must not import policies"},
		{"stand-in imports core", oneFile("webhook/registrytest/a.go", imports(module+"/webhook")), "must not import webhook: it is a stand-in"},
		{"product imports test program", oneFile("cmd/hallmark/a.go", imports(module+"/test/harness")), "must not import test/harness"},
		{"unknown package", oneFile("webhook/extra/a.go", imports("fmt")), "webhook/extra has no line in the table of layers"},
		{"adapter imports core", oneFile("webhook/policy/a.go", imports(module+"/webhook")), ""},
		{"tests import what they like", oneFile("webhook/policy/a_test.go", imports(module+"/policies")), ""},
	}
}

func brokenOwners() []broken {
	var list []broken
	for _, o := range owners() {
		list = append(list, broken{o.path, oneFile("webhook/server/a.go", imports(o.path+"/pkg/x")), "must not import " + o.path + "/pkg/x: " + o.reason})
		for _, dir := range o.dirs {
			list = append(list, broken{o.path + " in " + dir, oneFile(dir+"/a.go", imports(o.path+"/pkg/x")), ""})
		}
	}
	return list
}

func brokenNames() []broken {
	var list []broken
	for _, name := range []string{"util", "utils", "common", "helpers", "types"} {
		list = append(list, broken{name, oneFile("webhook/"+name+"/a.go", ""), `package "` + name + `" is named for no purpose`})
	}
	return append(list,
		broken{"by directory", map[string]string{"test/util/a.go": "package pick"}, `package "util" is named`},
		broken{"by clause", map[string]string{"webhook/pick/a.go": "package common"}, `package "common" is named`})
}

func brokenInits() []broken {
	return []broken{
		{"init", oneFile("webhook/policy/a.go", "func init() {}"), "webhook/policy/a.go:2: func init"},
		{"method called init", oneFile("webhook/policy/a.go", "type T int\nfunc (T) init() {}"), ""},
	}
}

func brokenVariables() []broken {
	in := func(body string) map[string]string {
		return oneFile("webhook/policy/a.go", "var v = map[string][]int{}\nvar n, p = 0, &T{}\ntype T struct{ f int }\nfunc g(x int, m map[string]int) {\n"+body+"\n}")
	}
	var list []broken
	for name, body := range map[string]string{
		"assignment": "n = 1", "in a closure": "func() { n = x }()", "assignment of several": "x, n = 1, 2", "op assignment": "n += x",
		"increment": "n++", "map index": `v["a"] = nil`, "slice index": `v["a"][0] = 1`, "field": "p.f = 1", "behind a pointer": "*p = T{}",
		"address": "y := &n; _ = y", "address of element": `y := &v["a"][0]; _ = y`, "range": "for n = range 3 {}",
		"delete": `delete(v, "a")`, "clear": "clear(v)", "copy": `copy(v["a"], nil)`, "sort": `slices.Sort(v["a"])`, "maps": "maps.Copy(v, nil)",
	} {
		if name == "sort" || name == "maps" {
			files := in(body)
			files["webhook/policy/a.go"] = strings.Replace(files["webhook/policy/a.go"], "\n", "\nimport (\"maps\"; \"slices\")\n", 1)
			list = append(list, broken{name, files, "package variable v is changed"})
			continue
		}
		list = append(list, broken{name, in(body), "is changed"})
	}
	slices.SortFunc(list, func(a, b broken) int { return strings.Compare(a.name, b.name) })
	other := oneFile("webhook/policy/a.go", "import \"net/http\"\nfunc g() { http.DefaultClient.Timeout = 1 }")
	lock := oneFile("webhook/policy/a.go", "import \"sync\"\nvar lock sync.Mutex")
	count := oneFile("webhook/policy/a.go", "import \"sync/atomic\"\nvar count = atomic.Int64{}")
	return append(list,
		broken{"of another package", other, "variable http.DefaultClient of another package is changed"},
		broken{"a lock", lock, "package variable lock is a sync.Mutex"}, broken{"a counter", count, "package variable count is a atomic.Int64"},
		broken{"local of the same name", in("n := 1; n++; v := m; v[\"a\"] = n; m[\"a\"]++"), ""},
		broken{"reading", in(`x = n; m["a"] = len(v["a"]); y := p.f; y++`), ""})
}

func brokenContexts() []broken {
	in := func(path, name, body string) map[string]string {
		return oneFile(path, "import \"context\"\nfunc "+name+"() { "+body+" }")
	}
	return []broken{
		{"Background", in("webhook/server/a.go", "Run", "_ = context.Background()"), "context.Background starts a context"},
		{"TODO", in("webhook/a.go", "f", "_ = context.TODO()"), "context.TODO starts a context"},
		{"elsewhere in server.go", in("webhook/server/server.go", "f", "_ = context.Background()"), "context.Background"},
		{"under another name", oneFile("webhook/a.go", "import c \"context\"\nvar x = c.Background()"), "context.Background"},
		{"shutdown", in("webhook/server/server.go", "Run", "_ = context.Background()"), ""},
		{"main", in("cmd/hallmark/main.go", "main", "_ = context.Background()"), ""},
		{"detached", in("webhook/a.go", "f", "_ = context.WithoutCancel(nil)"), ""},
		{"test program", in("test/harness/a.go", "f", "_ = context.Background()"), ""},
	}
}

func brokenPrints() []broken {
	return []broken{
		{"fmt.Println", oneFile("webhook/a.go", "import \"fmt\"\nfunc f() { fmt.Println() }"), "fmt.Println prints"},
		{"fmt.Printf", oneFile("cmd/hallmark/a.go", "import \"fmt\"\nfunc f() { fmt.Printf(\"\") }"), "fmt.Printf prints"},
		{"println", oneFile("webhook/a.go", "func f() { println() }"), "println prints"},
		{"log", oneFile("webhook/server/a.go", imports("log")), "imports log"},
		{"fmt.Fprintln", oneFile("webhook/a.go", "import \"fmt\"\nfunc f() { fmt.Fprintln(nil) }"), ""},
	}
}
