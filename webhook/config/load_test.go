package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/catalog"
)

var today = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const smallest = `apiVersion: hallmark.dev/v1alpha1
kind: Configuration
registries: [{host: "registry.corp:5000"}]
tags: {allow: [exact]}
`

func TestLoad(t *testing.T) {
	c, problems, err := Load([]byte(smallest), today)
	if err != nil || len(problems) > 0 {
		t.Fatalf("%v, problems %v", err, problems)
	}
	want := defaults()
	want.APIVersion, want.Kind = APIVersion, Kind
	want.Registries = []Registry{{Host: "registry.corp:5000"}}
	want.Tags.Allow = []string{"exact"}
	if diff := cmp.Diff(want, c.File); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestMistakes: each is found, with its line, and keeps the file from being used.
func TestMistakes(t *testing.T) {
	const head = "apiVersion: hallmark.dev/v1alpha1\nkind: Configuration\nregistries: [{host: \"registry.corp:5000\"}]\ntags: {allow: [exact]}\n"
	for title, c := range map[string]struct{ text, says string }{
		"empty":                   {"", "the file is empty"},
		"no YAML":                 {"a: [", "line 1"},
		"two documents":           {head + "---\na: b\n", "one document"},
		"another kind":            {"kind: ConfigMap\ntags: {allow: [exact]}\n", "want apiVersion hallmark.dev/v1alpha1"},
		"unknown key":             {head + "regsitries: []\n", `line 5: unknown key "regsitries"`},
		"unknown key inside":      {head + "pin: {podz: off}\n", `line 5: unknown key "podz"`},
		"key given twice":         {head + "mode: warn\nmode: audit\n", "already defined"},
		"wrong type":              {head + "limits: {signatures: many}\n", "line 5: cannot unmarshal"},
		"duration":                {head + "cache: {tagTTL: soon}\n", "line 5: want a duration"},
		"size":                    {head + "limits: {manifestBytes: -4Mi}\n", "line 5: want a size"},
		"mode":                    {head + "mode: enfroce\n", `line 5: mode: want one of enforce, warn, audit, not "enfroce"`},
		"mode off for everything": {head + "mode: off\n", "line 5: mode"},
		"mode of a rule":          {head + "rules:\n  golden: no\n", "line 6: rules.golden"},
		"tag class of no tag":     {strings.Replace(head, "[exact]", "[exact], classes: [{match: [a/*], class: digest}]", 1), `line 4: tags.classes[0].class: want the class of a tag, not "digest"`},
		"tag class unknown":       {strings.Replace(head, "[exact]", "[exact], classes: [{match: [a/*], class: excat}]", 1), `line 4: tags.classes[0].class: want the class of a tag, not "excat"`},
		"tag class of nothing":    {strings.Replace(head, "[exact]", "[exact], classes: [{class: exact}]", 1), "line 4: tags.classes[0].match"},
		"tag class by bad regexp": {strings.Replace(head, "[exact]", "[exact], classes: [{match: [a/*], pattern: '(', class: exact}]", 1), "line 4: tags.classes[0].pattern"},
		"no tags":                 {"apiVersion: hallmark.dev/v1alpha1\nkind: Configuration\n", "tags.allow: is missing"},
		"class":                   {head + "#\n" + "signers: {}\n" + "message: {helpURL: \"javascript:x\"}\n", "helpURL"},
		"host with a scheme":      {strings.Replace(head, "registry.corp:5000", "https://registry.corp", 1), "line 3: registries[0].host: want a host"},
		"host with a path":        {strings.Replace(head, "registry.corp:5000", "registry.corp/golden", 1), "registries[0].host"},
		"host twice":              {strings.Replace(head, `"}]`, `"}, {host: "registry.corp:5000"}]`, 1), "twice"},
		"repository prefix":       {strings.Replace(head, `"}]`, `", repositories: ["golden*"]}]`, 1), `"golden/**"`},
		"exemption of everything on a host": {head + "exemptions: [{name: a, namespaces: [b], images: [\"registry.corp\"], rules: [tag], reason: c, owner: d, expires: 2027-01-01}]\n",
			"must begin with a registry and go on with a repository"},
		"exemption without an end":      {head + "exemptions: [{name: a, namespaces: [b], images: [\"r.io/a\"], rules: [tag], reason: c, owner: d}]\n", "exemptions[0].expires"},
		"exemption without a reason":    {head + "exemptions: [{name: a, namespaces: [b], images: [\"r.io/a\"], rules: [tag], owner: d, expires: 2027-01-01}]\n", "needs a reason and an owner"},
		"exemption without rules":       {head + "exemptions: [{name: a, namespaces: [b], images: [\"r.io/a\"], reason: c, owner: d, expires: 2027-01-01}]\n", "exemptions[0].rules"},
		"pattern that does not compile": {strings.Replace(head, "[exact]}", `[exact], repositories: [{match: ["r.io/a"], allow: [exact], pattern: "v(["}]}`, 1), "does not compile"},
		"pattern of several lines":      {strings.Replace(head, "[exact]}", `[exact], repositories: [{match: ["r.io/a"], allow: [exact], pattern: "(?m)^v1$"}]}`, 1), "several lines"},
		"signer that nobody named":      {head + "signatures: [{match: [\"r.io/**\"], anyOf: [ci]}]\n", `signer "ci" is not in signers`},
		"threshold":                     {head + "signers: {ci: {key: x}}\nsignatures: [{match: [\"r.io/**\"], anyOf: [ci], threshold: 2}]\n", "from 1 to the 1 signers"},
		"signer without a key":          {head + "signers: {ci: {}}\n", "exactly one of"},
		"empty keyless identity":        {head + "signers: {ci: {keyless: {issuer: \"https://a\"}}}\n", "an empty one would trust everybody"},
		"golden tag":                    {head + "goldenImages: [{name: a, repository: \"r.io/a:v1\"}]\n", "without tag"},
		"golden twice":                  {head + "goldenImages: [{name: a, repository: \"r.io/a\"}, {name: b, repository: \"r.io/a\"}]\n", "same repository"},
		"golden short name":             {head + "goldenImages: [{name: a, repository: ubuntu}]\n", "docker.io/library/ubuntu"},
		"golden status":                 {head + "goldenImages: [{name: a, repository: \"r.io/a\", status: gone}]\n", "decommissioned"},
		"golden successor":              {head + "goldenImages: [{name: a, repository: \"r.io/a\", successor: b}]\n", `no golden image is named "b"`},
		"attested by nobody":            {head + "attestations: [{match: [\"r.io/**\"], predicateType: a/b, anyOf: [b]}]\n", `signer "b" is not in signers`},
		"attested nothing":              {head + "attestations: [{match: [\"r.io/**\"], anyOf: [b]}]\n", "attestations[0].predicateType: is missing"},
		"attested in short":             {head + "attestations: [{match: [\"r.io/**\"], predicateType: slsa, anyOf: [b]}]\n", "want a predicate type in full"},
		"identity without a subject":    {head + "signers: {a: {keyless: {issuer: \"https://i\"}, trustedRoot: /r.json}}\n", "an empty one would trust everybody"},
		"identity without an issuer":    {head + "signers: {a: {keyless: {subject: s}, trustedRoot: /r.json}}\n", "an empty one would trust everybody"},
		"identity by two":               {head + "signers: {a: {keyless: {issuer: \"https://i\", subject: s, subjectPattern: p}, trustedRoot: /r.json}}\n", "want one of subject and subjectPattern"},
		"identity in several lines":     {head + "signers: {a: {keyless: {issuer: \"https://i\", subjectPattern: \"(?m)^x$\"}, trustedRoot: /r.json}}\n", "flags for several lines"},
		"identity without a root":       {head + "signers: {a: {keyless: {issuer: \"https://i\", subject: s}}}\n", "signers.a.trustedRoot: is missing"},
		"root somewhere":                {head + "signers: {a: {key: k, trustedRoot: root.json}}\n", "want an absolute path or tuf"},
		"demand":                        {head + "signers: {a: {key: k, transparencyLog: yes}}\n", "want one of required, optional, ignored"},
		"optional SCT":                  {head + "signers: {a: {key: k, sct: optional}}\n", "want one of required, ignored"},
		"glass for everybody":           {head + "breakGlass: {groups: [\"system:authenticated\"]}\n", "everybody of a kind is in"},
		"glass for all pods":            {head + "breakGlass: {groups: [\"system:serviceaccounts:team\"]}\n", "everybody of a kind is in"},
		"moment":                        {head + "signers: {a: {key: k, notAfter: soon}}\n", "want a day such as 2027-03-31"},
		"repository claim":              {head + "signers: {a: {key: k}}\nsignatures: [{match: [\"r.io/**\"], anyOf: [a], repository: none}]\n", "signatures[0].repository: want one of match, require, any"},
		"platforms":                     {head + "signers: {a: {key: k}}\nsignatures: [{match: [\"r.io/**\"], anyOf: [a], platforms: some}]\n", "signatures[0].platforms: want one of exact, inherit, each"},
		"TUF nowhere":                   {head + "tuf: {url: tuf, root: /r.json}\n", "want the URL of a TUF repository"},
		"rewrite to nowhere":            {head + "rewrites: [{from: docker.io/a, to: r.io/a}]\n", "rewrites[0].to: r.io is not in registries"},
		"rewrite of a name":             {head + "rewrites: [{from: codercom, to: \"registry.corp:5000/a\"}]\n", "rewrites[0].from"},
		"locked to nothing":             {head + "goldenImages: [{name: a, repository: \"r.io/a\", follow: locked}]\n", "needs the digests"},
		"digest of nothing":             {head + "goldenImages: [{name: a, repository: \"r.io/a\", follow: locked, digests: [abc]}]\n", "digests[0]"},
		"null as a key":                 {head + "~: 0\n", "line 5: want a plain word as a key"},
		"number as a key":               {head + "rules: {1: warn}\n", "line 5: want a plain word as a key"},
		"deadline":                      {head + "limits: {deadline: 40s}\n", "30s"},
		"pull secrets for ever":         {head + "pullSecrets: {enabled: true, cacheTTL: 1h}\n", "pullSecrets.cacheTTL: want at most 5m0s"},
		"pull secrets not remembered":   {head + "pullSecrets: {enabled: true, cacheTTL: 0s}\n", "want a duration"},
		"decisions in the clear":        {head + "decisionLog: {url: http://logs.corp.example/logs}\n", "decisionLog.url: want a URL that begins with https://"},
		"decisions with a password":     {head + "decisionLog: {url: \"https://u:p@logs.corp.example/logs\"}\n", "decisionLog.url: want a URL without credentials"},
		"decisions to nowhere":          {head + "decisionLog: {input: true}\n", "decisionLog.url: is missing"},
		"decisions with a near file":    {head + "decisionLog: {url: https://logs.corp.example/logs, ca: ca.pem}\n", "decisionLog.ca: want an absolute path"},
		"decisions under another name":  {head + "decisionLog: {url: https://logs.corp.example/logs, labels: {app: x}}\n", "decisionLog.labels.app: this label is set by Hallmark"},
		"decisions all the time":        {head + "decisionLog: {url: https://logs.corp.example/logs, every: 1ms}\n", "decisionLog.every: want at least 100ms"},
		"pull secrets of a server":      {head + "pullSecrets: {enabled: true, server: x}\n", `unknown key "server"`},
		"bundle of nothing":             {head + "policies: {bundles: [{unsigned: true}]}\n", "line 5: policies.bundles[0]: want exactly one of url and oci"},
		"bundle from two places":        {head + "policies: {bundles: [{url: \"https://a/b\", oci: \"registry.corp:5000/a:v1\", unsigned: true}]}\n", "want exactly one of url and oci"},
		"bundle in the clear":           {head + "policies: {bundles: [{url: \"http://a/b\", unsigned: true}]}\n", "policies.bundles[0].url: want a URL that begins with https://"},
		"bundle by a file":              {head + "policies: {bundles: [{url: /etc/bundle.tar.gz, unsigned: true}]}\n", "want a URL such as https://"},
		"bundle with a password":        {head + "policies: {bundles: [{url: \"https://a:b@c/d\", unsigned: true}]}\n", "without credentials, query and fragment"},
		"bundle with a signed URL":      {head + "policies: {bundles: [{url: \"https://c/d?sig=e\", unsigned: true}]}\n", "without credentials, query and fragment"},
		"bundle on another registry":    {head + "policies: {bundles: [{oci: \"r.io/a:v1\", unsigned: true}]}\n", "policies.bundles[0].oci: r.io is not in registries"},
		"bundle without a tag":          {head + "policies: {bundles: [{oci: \"registry.corp:5000/a\", unsigned: true}]}\n", "want a tag or a digest"},
		"bundle with another's login":   {head + "policies: {bundles: [{oci: \"registry.corp:5000/a:v1\", credentials: /t, unsigned: true}]}\n", "a registry has its own in registries"},
		"bundle by nobody":              {head + "policies: {bundles: [{url: \"https://a/b\"}]}\n", "policies.bundles[0].verification: is missing"},
		"bundle by a key and nobody":    {head + "policies: {bundles: [{url: \"https://a/b\", verification: {keyFile: /k}, unsigned: true}]}\n", "want one of verification and unsigned"},
		"bundle by an empty key":        {head + "policies: {bundles: [{url: \"https://a/b\", verification: {scope: s}}]}\n", "verification.keyFile: is missing"},
		"bundle by a key somewhere":     {head + "policies: {bundles: [{url: \"https://a/b\", verification: {keyFile: k}}]}\n", "want an absolute path"},
		"bundle with a CA somewhere":    {head + "policies: {bundles: [{url: \"https://a/b\", ca: ca.pem, unsigned: true}]}\n", "policies.bundles[0].ca: want an absolute path"},
		"bundle all the time":           {head + "policies: {bundles: [{url: \"https://a/b\", every: 10ms, unsigned: true}]}\n", "want at least 1s"},
		"bundle twice":                  {head + "policies: {bundles: [{url: \"https://a/b\", unsigned: true}, {url: \"https://a/b\", unsigned: true}]}\n", "https://a/b stands there twice"},
		"namespace":                     {head + "namespaces: [{match: [\"Team A\"], mode: warn}]\n", "namespaces[0].match[0]"},
	} {
		t.Run(title, func(t *testing.T) {
			c0, _, err := Load([]byte(c.text), today)
			if err == nil || c0 != nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
}

// TestAllMistakesAtOnce: one look at the file is enough.
func TestAllMistakesAtOnce(t *testing.T) {
	_, _, err := Load([]byte(`apiVersion: hallmark.dev/v1alpha1
kind: Configuration
mode: sometimes
tgas: {}
registries:
  - host: https://a
  - host: b
    plainHTPP: true
tags: {allow: [excat]}
`), today)
	want := []string{"line 3: mode:", `line 4: unknown key "tgas"`, "line 6: registries[0].host", `line 8: unknown key "plainHTPP"`, "line 9: tags.allow[0]"}
	var got []string
	if err != nil {
		got = strings.Split(err.Error(), "\n")
	}
	if len(got) != len(want) {
		t.Fatalf("got %d mistakes:\n%v", len(got), err)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("mistake %d is %q, want %q", i, got[i], want[i])
		}
	}
}

func TestDoubts(t *testing.T) {
	text := strings.Replace(smallest, `"}]`, `", plainHTTP: true}]`, 1) +
		"exemptions: [{name: old, namespaces: [b], images: [\"r.io/a\"], rules: [tag], reason: c, owner: d, expires: 2026-11-20}]\n"
	c, problems, err := Load([]byte(text), today)
	if err != nil || c == nil || len(problems) != 2 {
		t.Fatalf("%v, problems %v", err, problems)
	}
	for i, says := range []string{"without TLS", "has expired"} {
		if !problems[i].Warning || !strings.Contains(problems[i].String(), says) {
			t.Errorf("problem %d is %q", i, problems[i])
		}
	}
}

func TestMode(t *testing.T) {
	c, _, err := Load([]byte(smallest+`
rules: {tag: warn, user: off, registry: enforce}
namespaces:
  - {match: ["sandbox-*"], mode: audit}
  - {match: ["sandbox-x", "strict"], mode: enforce}
mode: warn
goldenImages: [{name: a, repository: "r.io/a"}]
`), today)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]webhook.Mode{
		"signature/team": "warn", "tag/team": "warn", "user/team": "off", "registry/team": "enforce",
		"signature/sandbox-x": "audit", "tag/sandbox-x": "audit", "user/sandbox-x": "off", "registry/sandbox-x": "audit",
		"signature/strict": "enforce", "tag/strict": "warn", "user/strict": "off", "golden/strict": "enforce",
	} {
		rule, namespace, _ := strings.Cut(at, "/")
		if got := c.Mode(rule, namespace); got != want {
			t.Errorf("rule %s in %s: %s, want %s", rule, namespace, got, want)
		}
	}
}

// TestSecretsStayOut: rules see the configuration, but no path of a secret and no key.
func TestSecretsStayOut(t *testing.T) {
	text := strings.Replace(smallest, `"}]`, `", ca: /etc/ca, credentials: /etc/docker.json}]`, 1) + "signers: {ci: {key: PEM}}\n"
	c, _, err := Load([]byte(text), today)
	if err != nil {
		t.Fatal(err)
	}
	if all := fmt.Sprint(c.Data()); strings.Contains(all, "docker.json") || strings.Contains(all, "PEM") || !strings.Contains(all, "registry.corp:5000") {
		t.Errorf("data: %s", all)
	}
}

// TestPullSecretsAreOff unless the file says otherwise.
func TestPullSecretsAreOff(t *testing.T) {
	for more, want := range map[string]PullSecrets{
		"":                              {false, Duration(30 * time.Second)},
		"pullSecrets: {cacheTTL: 10s}":  {false, Duration(10 * time.Second)},
		"pullSecrets: {enabled: true}":  {true, Duration(30 * time.Second)},
		"pullSecrets: {enabled: false}": {false, Duration(30 * time.Second)},
	} {
		c, _, err := Load([]byte(smallest+"\n"+more+"\n"), today)
		if err != nil || c.PullSecrets != want {
			t.Errorf("%q: %+v, %v", more, c, err)
		}
	}
}

// TestBundles: what the file leaves out, and what rules are not told.
func TestBundles(t *testing.T) {
	c, problems, err := Load([]byte(smallest+`policies:
  bundles:
    - {url: "https://policies.corp/a.tar.gz", ca: /ca, credentials: /token, verification: {keyFile: /key, keyID: k, scope: s}}
    - {oci: "registry.corp:5000/policies/b:v1", every: 5m, unsigned: true}
    - {url: "http://127.0.0.1:8080/c.tar.gz", verification: {keyFile: /other}}
`), today)
	if err != nil || len(problems) != 1 || !problems[0].Warning || !strings.Contains(problems[0].String(), "line 8: policies.bundles[1].unsigned") {
		t.Fatalf("%v, problems %v", err, problems)
	}
	want := []Bundle{
		{
			URL: "https://policies.corp/a.tar.gz", CA: "/ca", Credentials: "/token", Every: Duration(time.Minute),
			Verification: &BundleVerification{KeyFile: "/key", KeyID: "k", Scope: "s"},
		},
		{OCI: "registry.corp:5000/policies/b:v1", Every: Duration(5 * time.Minute), Unsigned: true},
		{URL: "http://127.0.0.1:8080/c.tar.gz", Every: Duration(time.Minute), Verification: &BundleVerification{KeyFile: "/other"}},
	}
	if diff := cmp.Diff(want, c.Policies.Bundles); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/ca", "/key", "/other"}, c.Files()); diff != "" {
		t.Errorf("files -want +got:\n%s", diff)
	}
	if all := fmt.Sprint(c.Data()); strings.Contains(all, "/token") || strings.Contains(all, "/key") {
		t.Errorf("data: %s", all)
	}
}

func TestTagClassesAreTheCatalogues(t *testing.T) {
	if !slices.Equal(tagClasses(), catalog.Classes()) {
		t.Errorf("config knows %v, the catalogue %v", tagClasses(), catalog.Classes())
	}
}

// TestWatch sees a file that is written, and one that is swapped as a mounted ConfigMap is.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	changed := make(chan struct{}, 10)
	done := make(chan error)
	go func() {
		done <- Watch(t.Context(), func() []string { return []string{dir} }, func() { changed <- struct{}{} })
	}()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Error(err)
		}
	}
	see := func(what string, f func()) {
		deadline := time.After(10 * time.Second)
		for {
			f()
			select {
			case <-changed:
				return
			case <-time.After(300 * time.Millisecond): // the watch may not have begun yet
			case <-deadline:
				t.Fatalf("%s was not seen", what)
			}
		}
	}
	see("a write", func() { write("a.yaml", "1") })
	see("a swap", func() {
		write("new", "2")
		_ = os.Remove(filepath.Join(dir, "..data"))
		if err := os.Symlink("new", filepath.Join(dir, "..data")); err != nil {
			t.Error(err)
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(smallest))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, _, err := Load(text, today)
		if (c == nil) == (err == nil) {
			t.Fatalf("configuration %v with error %v", c != nil, err)
		}
	})
}
