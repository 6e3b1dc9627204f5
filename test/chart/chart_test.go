package chart

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/helm-unittest/helm-unittest/pkg/unittest"
	"github.com/helm-unittest/helm-unittest/pkg/unittest/printer"
	"helm.sh/helm/v3/pkg/action"
)

// TestLint is helm lint --strict: a warning fails.
func TestLint(t *testing.T) {
	for name, values := range sets() {
		t.Run(name, func(t *testing.T) {
			_, v := load(t, values)
			lint := action.NewLint()
			lint.Strict, lint.Namespace, lint.KubeVersion = true, namespace, oldest()
			result := lint.Run([]string{chartDir}, v)
			for _, err := range result.Errors {
				t.Error(err)
			}
			if result.TotalChartsLinted != 1 {
				t.Errorf("%d charts were linted, want 1", result.TotalChartsLinted)
			}
		})
	}
}

// TestUnittest is helm unittest --strict.
func TestUnittest(t *testing.T) {
	var out bytes.Buffer
	colored := false
	runner := unittest.TestRunner{
		Printer: printer.NewPrinter(&out, &colored), TestFiles: []string{"tests/*_test.yaml"}, Strict: true,
	}
	if !runner.RunV3([]string{chartDir}) || !regexp.MustCompile(`Tests: +[1-9][0-9]* passed`).Match(out.Bytes()) {
		t.Error(out.String())
	}
}

// TestSameAgain: nothing in the chart is made up while it renders, a CA least of all.
func TestSameAgain(t *testing.T) {
	for name, values := range sets() {
		t.Run(name, func(t *testing.T) {
			first, err := template(t, values)
			if err != nil {
				t.Fatal(err)
			}
			second, err := template(t, values)
			if err != nil || first.Manifest != second.Manifest || hooks(first) != hooks(second) {
				t.Errorf("rendered twice, %v:\n%s%s\nand\n%s%s", err, first.Manifest, hooks(first), second.Manifest, hooks(second))
			}
		})
	}
}

// TestRefusedValues: what the chart does not know is refused with the name of the value.
func TestRefusedValues(t *testing.T) {
	for values, want := range map[string]string{
		`{replicas: 3}`:                                                     "additional properties 'replicas' not allowed",
		`{webhook: {replica: 3}}`:                                           "at '/webhook': additional properties 'replica' not allowed",
		`{webhook: {replicas: 0}}`:                                          "at '/webhook/replicas': minimum: got 0, want 1",
		`{config: {mode: block}}`:                                           "at '/config/mode': value must be one of 'audit', 'warn', 'enforce'",
		`{config: {registry: []}}`:                                          "at '/config': additional properties 'registry' not allowed",
		`{config: {registries: [corp.example]}}`:                            "at '/config/registries/0': got string, want object",
		`{config: {registries: [{repositories: [a]}]}}`:                     "at '/config/registries/0': missing property 'host'",
		`{config: {rules: {golden: yes please}}}`:                           "at '/config/rules/golden': value must be one of 'enforce', 'warn', 'audit', 'off'",
		`{config: {namespaces: [{match: ["A b"], mode: warn}]}}`:            "at '/config/namespaces/0/match/0': 'A b' does not match pattern",
		`{image: {digest: "sha256:abc"}}`:                                   "at '/image/digest': 'sha256:abc' does not match pattern",
		`{image: {repository: "a@sha256:b"}}`:                               "at '/image/repository': 'a@sha256:b' does not match pattern",
		`{scope: {mode: some}}`:                                             "at '/scope/mode': value must be one of 'labelled', 'all'",
		`{scope: {exclude: ["kube-*"]}}`:                                    "at '/scope/exclude/0': 'kube-*' does not match pattern",
		`{scope: {objectSelector: {}}}`:                                     "at '/scope': additional properties 'objectSelector' not allowed",
		`{files: {registry: {}}}`:                                           "at '/files/registry': minProperties: got 0, want 1",
		`{files: {registry: {secret: a, configMap: b}}}`:                    "at '/files/registry': maxProperties: got 2, want 1",
		`{files: {tls: {secret: a}}}`:                                       "files: /etc/hallmark/tls has files of Hallmark's own; take another name than tls",
		`{policies: {inline: {team: "package x"}}}`:                         "invalid propertyName 'team'",
		`{networkPolicy: {apiServerCIDRs: [everywhere]}}`:                   "at '/networkPolicy/apiServerCIDRs/0': 'everywhere' does not match pattern",
		`{cacheVolume: {source: {emptyDir: {}, hostPath: {path: /a}}}}`:     "at '/cacheVolume/source': maxProperties: got 2, want 1",
		`{webhook: {timeoutSeconds: {validate: 7}}}`:                        "webhook.timeoutSeconds: mutate 4 and validate 7 are 11 seconds together, and a pod waits for both; want at most 10",
		`{certificates: {existingSecret: a}}`:                               "certificates.caBundle is missing: with existingSecret the API server has to know the CA",
		`{certificates: {caBundle: a}}`:                                     "certificates.caBundle is for certificates.existingSecret",
		`{certificates: {existingSecret: a, certManager: {enabled: true}}}`: "certificates: existingSecret and certManager.enabled exclude each other",
		`{registration: {from: nowhere}}`:                                   "at '/registration/from': value must be one of 'cluster', 'files'",
		`{registration: {from: files}}`:                                     "registration.url is missing",
		`{registration: {from: files, url: "http://a"}}`:                    "at '/registration/url': 'http://a' does not match pattern",
		`{registration: {from: files, url: "https://a"}}`:                   "set controller.enabled=false, certificates.existingSecret and caBundle",
		`{registration: {from: files, url: "https://a"}, controller: {enabled: false}, certificates: {existingSecret: a, caBundle: b}}`: "set backstop.when=always or backstop.enabled=false",
		`{controller: {enabled: false}}`: "nobody makes a certificate: with controller.enabled=false set certificates.existingSecret and caBundle",
	} {
		t.Run(values, func(t *testing.T) {
			if _, err := template(t, values); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v\nwant %s", err, want)
			}
		})
	}
}

// TestNotes: the notes say what to do next, and warn of what will hurt.
func TestNotes(t *testing.T) {
	const (
		single    = "WARNING: the webhook has a single replica"
		refuses   = "WARNING: config.mode is enforce and config.registries is empty: every image is refused."
		unjudged  = "WARNING: config.mode is enforce and webhook.failurePolicy is Ignore"
		needless  = "WARNING: config.mode is audit and webhook.failurePolicy is Fail"
		unused    = "WARNING: pullSecretRoles give rights that are not used"
		noNetwork = "WARNING: webhook.hostNetwork is on"
		label     = "kubectl label namespace NAMESPACE hallmark.dev/enforce=true"
		warn      = "--set config.mode=warn"
		enforce   = "--set config.mode=enforce"
		list      = "list your registries"
	)
	for values, want := range map[string][]string{
		``:                       {label, list, warn, enforce},
		`{scope: {mode: all}}`:   {list, warn, enforce},
		`{config: {mode: warn}}`: {label, list, enforce},
		`{config: {mode: enforce, registries: [{host: a.example}]}}`:             {label, warn},
		`{config: {mode: enforce}}`:                                              {label, list, warn, refuses},
		`{webhook: {replicas: 1}}`:                                               {label, list, warn, enforce, single},
		`{webhook: {autoscaling: {enabled: true, minReplicas: 1}}}`:              {label, list, warn, enforce, single},
		`{webhook: {replicas: 1, autoscaling: {enabled: true}}}`:                 {label, list, warn, enforce},
		`{webhook: {failurePolicy: Fail}}`:                                       {label, list, warn, enforce, needless},
		`{config: {mode: enforce}, webhook: {failurePolicy: Ignore}}`:            {label, list, warn, refuses, unjudged},
		`{webhook: {hostNetwork: true}, pullSecretRoles: [{namespace: team-a}]}`: {label, list, warn, enforce, noNetwork, unused},
	} {
		t.Run(values, func(t *testing.T) {
			r, err := template(t, values)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{single, refuses, unjudged, needless, unused, noNetwork, label, warn, enforce, list} {
				wanted := false
				for _, w := range want {
					wanted = wanted || w == line
				}
				if strings.Contains(r.Info.Notes, line) != wanted {
					t.Errorf("%q stands there: %t, want %t, in\n%s", line, !wanted, wanted, r.Info.Notes)
				}
			}
		})
	}
}
