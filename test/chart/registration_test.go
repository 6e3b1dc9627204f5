package chart

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// entry is what both kinds of webhooks have in common.
type entry struct {
	name              string
	client            admissionv1.WebhookClientConfig
	rules             []admissionv1.RuleWithOperations
	namespaceSelector *metav1.LabelSelector
	objectSelector    *metav1.LabelSelector
	conditions        []admissionv1.MatchCondition
	failure           admissionv1.FailurePolicyType
	matchPolicy       admissionv1.MatchPolicyType
	sideEffects       admissionv1.SideEffectClass
	timeout           int32
	versions          []string
}

func (i *installed) pin() entry {
	i.Helper()
	w := get[*admissionv1.MutatingWebhookConfiguration](i, "hallmark").Webhooks[0]
	return entry{
		w.Name, w.ClientConfig, w.Rules, w.NamespaceSelector, w.ObjectSelector, w.MatchConditions, *w.FailurePolicy,
		*w.MatchPolicy, *w.SideEffects, *w.TimeoutSeconds, w.AdmissionReviewVersions,
	}
}

func (i *installed) judge() entry {
	i.Helper()
	w := get[*admissionv1.ValidatingWebhookConfiguration](i, "hallmark").Webhooks[0]
	return entry{
		w.Name, w.ClientConfig, w.Rules, w.NamespaceSelector, w.ObjectSelector, w.MatchConditions, *w.FailurePolicy,
		*w.MatchPolicy, *w.SideEffects, *w.TimeoutSeconds, w.AdmissionReviewVersions,
	}
}

// TestScope: namespaces alone decide, those without which there is no cluster are left out by exact name, and no label of a
// pod takes it out.
func TestScope(t *testing.T) {
	everySet(t, func(i *installed) {
		for _, e := range []entry{i.pin(), i.judge()} {
			if e.objectSelector != nil {
				i.Errorf("%s has the objectSelector %v: whoever makes a pod could take it out", e.name, e.objectSelector)
			}
			if e.namespaceSelector.MatchLabels != nil {
				i.Errorf("%s has matchLabels", e.name)
			}
			selector, err := metav1.LabelSelectorAsSelector(e.namespaceSelector)
			if err != nil {
				i.Fatal(err)
			}
			excluded := e.namespaceSelector.MatchExpressions[0]
			for _, name := range []string{"kube-system", "kube-node-lease", "kube-public", namespace} {
				if excluded.Key != "kubernetes.io/metadata.name" || !slices.Contains(excluded.Values, name) {
					i.Errorf("%s does not leave out %s by its name: %v", e.name, name, excluded)
				}
				for _, like := range []string{name + "-x", "x" + name, strings.ToUpper(name)} {
					if !selector.Matches(labels{"kubernetes.io/metadata.name": like, "hallmark.dev/enforce": "true"}) {
						i.Errorf("%s leaves out %s", e.name, like)
					}
				}
			}
			for _, operator := range e.namespaceSelector.MatchExpressions[1:] {
				if operator.Operator != metav1.LabelSelectorOpIn || !reflect.DeepEqual(operator.Values, []string{"true"}) {
					i.Errorf("%s selects by %v", e.name, operator)
				}
			}
		}
	})
	t.Run("the label", func(t *testing.T) {
		for values, unlabelled := range map[string]bool{``: false, `{scope: {mode: all}}`: true} {
			selector, err := metav1.LabelSelectorAsSelector(install(t, values).judge().namespaceSelector)
			if err != nil {
				t.Fatal(err)
			}
			if got := selector.Matches(labels{"kubernetes.io/metadata.name": "dev"}); got != unlabelled {
				t.Errorf("%s: a namespace without the label is judged: %t, want %t", values, got, unlabelled)
			}
		}
	})
	t.Run("exclude", func(t *testing.T) {
		values := install(t, `{scope: {exclude: [istio-system, kube-system]}}`).judge().namespaceSelector.MatchExpressions[0].Values
		if want := []string{"kube-system", "kube-node-lease", "kube-public", namespace, "istio-system"}; !slices.Equal(values, want) {
			t.Errorf("got %q, want %q", values, want)
		}
	})
}

// labels are those of a namespace.
type labels map[string]string

func (l labels) Has(key string) bool              { _, has := l[key]; return has }
func (l labels) Get(key string) string            { return l[key] }
func (l labels) Lookup(key string) (string, bool) { v, has := l[key]; return v, has }

// TestRegistration: what does not depend on values.
func TestRegistration(t *testing.T) {
	everySet(t, func(i *installed) {
		for _, e := range []entry{i.pin(), i.judge()} {
			if e.matchPolicy != admissionv1.Equivalent || e.sideEffects != admissionv1.SideEffectClassNone || !slices.Equal(e.versions, []string{"v1"}) {
				i.Errorf("%s: %s %s %s", e.name, e.matchPolicy, e.sideEffects, e.versions)
			}
			s := e.client.Service
			path := map[string]string{"pin.hallmark.dev": "/mutate", "judge.hallmark.dev": "/validate"}[e.name]
			if s == nil || s.Namespace != namespace || *s.Path != path || *s.Port != get[*corev1.Service](i, s.Name).Spec.Ports[0].Port {
				i.Errorf("%s calls %+v", e.name, s)
			}
		}
		if got := i.pin().failure; got != admissionv1.Ignore {
			i.Errorf("the pinning half has the failure policy %s: the judging half is there for that", got)
		}
		if policy := get[*admissionv1.MutatingWebhookConfiguration](i, "hallmark").Webhooks[0].ReinvocationPolicy; *policy != admissionv1.IfNeededReinvocationPolicy {
			i.Errorf("reinvocationPolicy %s: a sidecar that comes later would not be pinned", *policy)
		}
	})
}

// TestFailurePolicy: a webhook that does not answer stops nothing while nothing is denied.
func TestFailurePolicy(t *testing.T) {
	for values, want := range map[string]admissionv1.FailurePolicyType{
		``:                                     admissionv1.Ignore,
		`{config: {mode: warn}}`:               admissionv1.Ignore,
		`{config: {mode: enforce}}`:            admissionv1.Fail,
		`{config: {mode: null}}`:               admissionv1.Fail, // the file enforces when it says nothing
		`{config: {rules: {golden: enforce}}}`: admissionv1.Fail,
		`{config: {namespaces: [{match: [a], mode: warn}, {match: [b], mode: enforce}]}}`: admissionv1.Fail,
		`{config: {mode: enforce}, webhook: {failurePolicy: Ignore}}`:                     admissionv1.Ignore,
		`{webhook: {failurePolicy: Fail}}`:                                                admissionv1.Fail,
	} {
		t.Run(values, func(t *testing.T) {
			if got := install(t, values).judge().failure; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// TestTimeouts: both halves together take 10 seconds at most, and the webhook answers before an API server gives up.
func TestTimeouts(t *testing.T) {
	everySet(t, func(i *installed) {
		mutate, validate := i.pin().timeout, i.judge().timeout
		if mutate+validate > 10 || mutate < 1 || validate < 1 {
			i.Errorf("%d and %d seconds", mutate, validate)
		}
		var file struct{ Limits struct{ Deadline string } }
		if err := yaml.Unmarshal([]byte(i.config()), &file); err != nil {
			i.Fatal(err)
		}
		deadline, err := time.ParseDuration(file.Limits.Deadline)
		if err != nil || deadline >= time.Duration(validate)*time.Second {
			i.Errorf("limits.deadline %s is not below %ds: %v", file.Limits.Deadline, validate, err)
		}
		// Of the pinning half the time-out is shorter still; the server takes what the API server sends, less a margin.
		pod := i.pod("webhook")
		if grace, delay := *pod.TerminationGracePeriodSeconds, int64(15); grace < delay+int64(validate) {
			i.Errorf("terminationGracePeriodSeconds %d is too short for a delay of %d and a review of %d", grace, delay, validate)
		}
	})
}

// TestActiveLast: with the controller, entries come without rules and caBundle, which call nobody; the controller finds the
// rules under the names of the entries. Without it they stand there from the start.
func TestActiveLast(t *testing.T) {
	everySet(t, func(i *installed) {
		pin, judge := i.pin(), i.judge()
		if !i.names()["Deployment/hallmark-controller"] {
			if len(pin.rules) == 0 || len(judge.rules) == 0 {
				i.Error("nobody is called, and nobody will be")
			}
			return
		}
		if pin.rules != nil || judge.rules != nil || pin.client.CABundle != nil || judge.client.CABundle != nil {
			i.Error("the webhooks are active before anybody answers")
		}
		if got := i.rules(); len(got) != 2 || len(got[pin.name]) == 0 || len(got[judge.name]) == 0 {
			i.Errorf("the rules of %s and %s: %v", pin.name, judge.name, got)
		}
	})
}

// rules are those that the controller sets.
func (i *installed) rules() map[string][]admissionv1.RuleWithOperations {
	i.Helper()
	var rules map[string][]admissionv1.RuleWithOperations
	if err := yaml.UnmarshalStrict([]byte(get[*corev1.ConfigMap](i, "hallmark-webhooks").Data["rules.yaml"]), &rules); err != nil {
		i.Fatal(err)
	}
	return rules
}

// kindsOf are the resources of kinds, as the API server names them.
var kindsOf = map[string]string{
	"/pods": "/Pod", "/pods/ephemeralcontainers": "/Pod", "/replicationcontrollers": "/ReplicationController", "/podtemplates": "/PodTemplate",
	"apps/deployments": "apps/Deployment", "apps/statefulsets": "apps/StatefulSet", "apps/daemonsets": "apps/DaemonSet",
	"apps/replicasets": "apps/ReplicaSet", "batch/jobs": "batch/Job", "batch/cronjobs": "batch/CronJob",
}

// TestRules: what is sent is what the code can judge (webhook/object.go, podKindOf), no more and no less.
func TestRules(t *testing.T) {
	known := map[string]bool{}
	for _, literal := range stringsOf(t, "../../webhook/object.go", "podKindOf") {
		if strings.Contains(strings.Trim(literal, "/"), "/") || strings.HasPrefix(literal, "/") {
			known[literal] = true
		}
	}
	sent := map[string][]string{}
	for name, rules := range install(t, ``).rules() {
		for _, rule := range rules {
			if !slices.Equal(rule.Operations, []admissionv1.OperationType{admissionv1.Create, admissionv1.Update}) ||
				!slices.Equal(rule.APIVersions, []string{"v1"}) || *rule.Scope != admissionv1.NamespacedScope {
				t.Errorf("%s: %+v", name, rule)
			}
			for _, resource := range rule.Resources {
				sent[name] = append(sent[name], rule.APIGroups[0]+"/"+resource)
			}
		}
	}
	judged := map[string]bool{}
	for _, resource := range sent["judge.hallmark.dev"] {
		if kindsOf[resource] == "" {
			t.Errorf("%s is sent, which has no images or is not in this test", resource)
		}
		judged[kindsOf[resource]] = true
	}
	if !reflect.DeepEqual(judged, known) {
		t.Errorf("sent are %v\njudged can be %v", judged, known)
	}
	if want := []string{"/pods", "/pods/ephemeralcontainers"}; !slices.Equal(sent["pin.hallmark.dev"], want) {
		t.Errorf("pinned are %q, want %q: workloads belong to others", sent["pin.hallmark.dev"], want)
	}
}

// stringsOf are the string literals in the cases of a function of the product.
func stringsOf(t *testing.T, file, function string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, declaration := range parsed.Decls {
		f, ok := declaration.(*ast.FuncDecl)
		if !ok || f.Name.Name != function {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			clause, ok := n.(*ast.CaseClause)
			if !ok {
				return true
			}
			for _, expression := range clause.List {
				if literal, ok := expression.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					found = append(found, strings.Trim(literal.Value, `"`))
				}
			}
			return true
		})
	}
	if found == nil {
		t.Fatalf("%s has no function %s with cases", file, function)
	}
	return found
}

// TestRights: the webhook has none, and the controller those by name that it needs.
func TestRights(t *testing.T) {
	i := install(t, ``)
	var got []string
	say := func(where string, rules []rbacv1.PolicyRule) {
		for _, r := range rules {
			got = append(got, fmt.Sprintf("%s: %v of %v %v in %q", where, r.Verbs, r.Resources, r.ResourceNames, r.APIGroups))
		}
	}
	for _, role := range all[*rbacv1.Role](i) {
		say("Role "+role.Name, role.Rules)
	}
	for _, role := range all[*rbacv1.ClusterRole](i) {
		say("ClusterRole "+role.Name, role.Rules)
	}
	slices.Sort(got)
	want := []string{
		`ClusterRole hallmark-controller: [get patch] of [mutatingwebhookconfigurations validatingwebhookconfigurations] [hallmark] in ["admissionregistration.k8s.io"]`,
		`ClusterRole hallmark-release: [release] of [namespaces] [] in ["hallmark.dev"]`,
		`Role hallmark-controller: [create] of [events] [] in [""]`,
		`Role hallmark-controller: [create] of [secrets] [] in [""]`,
		`Role hallmark-controller: [get update] of [leases] [hallmark-controller] in ["coordination.k8s.io"]`,
		`Role hallmark-controller: [get update] of [secrets] [hallmark-tls hallmark-ca] in [""]`,
		`Role hallmark-controller: [get] of [deployments] [hallmark-controller] in ["apps"]`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, binding := range all[*rbacv1.ClusterRoleBinding](i) {
		for _, subject := range binding.Subjects {
			if subject.Name != "hallmark-controller" || subject.Namespace != namespace {
				t.Errorf("%s is bound to %v", binding.RoleRef.Name, subject)
			}
		}
	}
	if *i.pod("webhook").AutomountServiceAccountToken {
		t.Error("the webhook has a token")
	}
	if i := install(t, enforceValues); !*i.pod("webhook").AutomountServiceAccountToken {
		t.Error("with pullSecrets the webhook needs a token")
	} else if role := get[*rbacv1.Role](i, "hallmark-pull-secrets"); role.Namespace != "team-a" || role.Rules[0].ResourceNames[0] != "corp-registry" {
		t.Errorf("it reads secrets by %+v", role)
	}
}

// TestForeignCertificates: with cert-manager and with a Secret of one's own, the controller keeps its hands off.
func TestForeignCertificates(t *testing.T) {
	i := install(t, `{certificates: {certManager: {enabled: true}}}`)
	for _, name := range []string{"Issuer/hallmark-selfsigned", "Certificate/hallmark-ca", "Issuer/hallmark-ca", "Certificate/hallmark-tls"} {
		if !i.names()[name] {
			t.Errorf("there is no %s", name)
		}
	}
	for _, annotations := range []map[string]string{
		get[*admissionv1.MutatingWebhookConfiguration](i, "hallmark").Annotations,
		get[*admissionv1.ValidatingWebhookConfiguration](i, "hallmark").Annotations,
	} {
		if got := annotations["cert-manager.io/inject-ca-from"]; got != namespace+"/hallmark-tls" {
			t.Errorf("the CA comes from %q", got)
		}
	}
	i.checkHandsOff("hallmark-tls")
	i = install(t, `{certificates: {existingSecret: corp-tls, caBundle: "-----BEGIN CERTIFICATE-----\n"}}`)
	i.checkHandsOff("corp-tls")
	if got := string(i.judge().client.CABundle); got != "-----BEGIN CERTIFICATE-----\n" {
		t.Errorf("caBundle is %q", got)
	}
	if i.judge().rules != nil {
		t.Error("the rules are the controller's, also when the certificate is not")
	}
}

func (i *installed) checkHandsOff(secret string) {
	i.Helper()
	args := i.container("controller").Args
	for _, want := range []string{"--tls-secret=", "--ca-secret="} {
		if !slices.Contains(args, want) {
			i.Errorf("%s is not among %q", want, args)
		}
	}
	for _, rule := range get[*rbacv1.Role](i, "hallmark-controller").Rules {
		if slices.Contains(rule.Resources, "secrets") {
			i.Errorf("the controller may %v secrets", rule.Verbs)
		}
	}
	for _, volume := range i.pod("webhook").Volumes {
		if volume.Name == "tls" && (volume.Secret.SecretName != secret || volume.Secret.Optional != nil) {
			i.Errorf("the certificate comes from %+v", volume.Secret)
		}
	}
}

// TestRegistrationInFiles: what stands in the ConfigMap is the registration as the cluster would have it, by URL, active, and
// under a name that the API gives nobody; and the cluster has none.
func TestRegistrationInFiles(t *testing.T) {
	const files = `{controller: {enabled: false}, certificates: {existingSecret: tls, caBundle: PEM}, backstop: {when: always}, config: {mode: enforce}`
	inCluster := install(t, files+"}")
	i := install(t, files+`, registration: {from: files, url: "https://hallmark.corp.example:8443/"}}`)
	for name := range i.names() {
		if strings.Contains(name, "WebhookConfiguration/") || strings.Contains(name, "doctor") {
			t.Errorf("%s is there", name)
		}
	}
	data := get[*corev1.ConfigMap](i, "hallmark-registration").Data
	pin := get[*admissionv1.MutatingWebhookConfiguration](decode(t, data["mutating.yaml"]), "hallmark.static.k8s.io").Webhooks
	judge := get[*admissionv1.ValidatingWebhookConfiguration](decode(t, data["validating.yaml"]), "hallmark.static.k8s.io").Webhooks
	for url, c := range map[string]struct {
		got       admissionv1.WebhookClientConfig
		rules     []admissionv1.RuleWithOperations
		inCluster entry
	}{
		"https://hallmark.corp.example:8443/mutate":   {pin[0].ClientConfig, pin[0].Rules, inCluster.pin()},
		"https://hallmark.corp.example:8443/validate": {judge[0].ClientConfig, judge[0].Rules, inCluster.judge()},
	} {
		if c.got.Service != nil || *c.got.URL != url || string(c.got.CABundle) != "PEM" {
			t.Errorf("%s is called at %+v", url, c.got)
		}
		if !reflect.DeepEqual(c.rules, c.inCluster.rules) || len(c.rules) == 0 {
			t.Errorf("%s is called for %+v, want %+v", url, c.rules, c.inCluster.rules)
		}
	}
	if policy := judge[0].FailurePolicy; policy == nil || *policy != admissionv1.Fail {
		t.Error("it fails open")
	}
}
