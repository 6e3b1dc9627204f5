package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/cluster"
)

// namespaceLabel is what API servers put on every namespace: its name.
const namespaceLabel = "kubernetes.io/metadata.name"

// readRegistrations reads both webhook configurations, and from them where the release is.
func (d *doctor) readRegistrations(ctx context.Context) {
	for _, mutating := range []bool{true, false} {
		r, err := d.inspector.Registration(ctx, mutating, d.flags.name)
		kind := map[bool]string{true: "MutatingWebhookConfiguration ", false: "ValidatingWebhookConfiguration "}[mutating]
		switch {
		case err != nil:
			d.report.failed("registration", kind+d.flags.name, err)
			continue
		case r == nil:
			d.report.add("registration", doctorProblem, kind+d.flags.name+" does not exist, so no API server calls the webhook",
				"install the chart, or give its name with --name")
			continue
		}
		d.registrations = append(d.registrations, r)
		for _, w := range r.Webhooks {
			if s := w.ClientConfig.Service; s != nil {
				d.namespace, d.service = s.Namespace, s.Name
			}
		}
	}
}

// judgeRegistrations looks at every entry.
func (d *doctor) judgeRegistrations() {
	together := 0
	for _, r := range d.registrations {
		for i := range r.Webhooks {
			w := &r.Webhooks[i]
			together += w.TimeoutSeconds
			before := len(d.report.Checks)
			d.judgeWebhook(r, w)
			if len(d.report.Checks) == before {
				d.report.add("registration", doctorOK, fmt.Sprintf("%s (%s) is active; failurePolicy %s, %ds", w.Name, r.Kind, w.FailurePolicy, w.TimeoutSeconds), "")
			}
		}
	}
	if together > 10 {
		d.report.add("registration", doctorWarning, fmt.Sprintf("the time-outs are %ds together, and a pod waits for both", together),
			"set webhook.timeoutSeconds so that they are at most 10 together")
	}
}

// judgeWebhook says what is wrong with an entry, and nothing when nothing is.
func (d *doctor) judgeWebhook(r *cluster.Registration, w *cluster.Webhook) {
	add := func(status, message, fix string) { d.report.add("registration", status, w.Name+" "+message, fix) }
	logs := "kubectl -n " + orDefault(d.namespace, "NAMESPACE") + " logs deploy/" + d.flags.name + "-controller says why"
	covered := map[string]bool{}
	for _, rule := range w.Rules {
		for _, resource := range rule.Resources {
			covered[resource] = slices.Contains(rule.Operations, "CREATE") && slices.Contains(rule.Operations, "UPDATE") || slices.Contains(rule.Operations, "*")
		}
	}
	switch {
	case len(w.Rules) == 0:
		add(doctorProblem, "has no rules, so no API server calls it", logs)
	case !covered["pods"] && !covered["*"] && !covered["*/*"]:
		add(doctorProblem, "is not called for the creation and the update of pods", "put webhook rules back as the chart has them")
	case !covered["pods/ephemeralcontainers"] && !covered["*/*"] && !covered["pods/*"]:
		add(doctorProblem, "is not called for ephemeral containers: kubectl debug starts any image", "put webhook rules back as the chart has them")
	}
	if len(w.ClientConfig.CABundle) == 0 {
		add(doctorProblem, "has no caBundle, so API servers trust only public authorities", logs)
	}
	switch {
	case r.Mutating && w.FailurePolicy == "Fail":
		add(doctorWarning, "fails closed, although the judging half refuses what is not pinned anyway", "set failurePolicy Ignore")
	case !r.Mutating && d.mode == webhook.Enforce && w.FailurePolicy != "Fail":
		add(doctorProblem, "lets everything in while the webhook is down, although the mode is enforce", "set webhook.failurePolicy to Fail, or to auto")
	case !r.Mutating && d.mode != "" && d.mode != webhook.Enforce && w.FailurePolicy == "Fail":
		add(doctorWarning, "stops pods while the webhook is down, although the mode is "+string(d.mode), "set webhook.failurePolicy to Ignore, or to auto")
	}
	if s := w.ObjectSelector; s != nil && len(s.MatchLabels)+len(s.MatchExpressions) > 0 {
		add(doctorProblem, "has an objectSelector: who writes a pod can label it out of reach", "remove objectSelector; scope is by namespace")
	}
	system := []string{"kube-system", "kube-public", "kube-node-lease"}
	if d.namespace != "" {
		system = append(system, d.namespace)
	}
	for _, namespace := range system {
		if selects(w.NamespaceSelector, map[string]string{namespaceLabel: namespace}) {
			add(doctorProblem, "is called for namespace "+namespace+": a webhook that is down could keep it from coming back",
				"exclude it in namespaceSelector by "+namespaceLabel)
		}
	}
}

// selects says whether a selector takes a namespace. One that cannot be read selects nothing; the API server would not have
// stored it.
func selects(selector *metav1.LabelSelector, of map[string]string) bool {
	if selector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(of))
}

// expirySoon is when a certificate that nobody has renewed is worth a word: in its last two weeks, or of a short life the
// last sixth. The controller renews it when a third is left.
func expirySoon(leaf *x509.Certificate) time.Duration {
	return min(14*24*time.Hour, leaf.NotAfter.Sub(leaf.NotBefore)/6)
}

// judgeCertificate holds the serving certificate against every caBundle.
func (d *doctor) judgeCertificate(ctx context.Context) {
	if d.namespace == "" {
		return // which is said already
	}
	const check = "certificate"
	name := orDefault(d.flags.tlsSecret, d.flags.name+"-tls")
	data, err := d.inspector.Secret(ctx, d.namespace, name)
	secret := "Secret " + d.namespace + "/" + name
	switch {
	case err != nil:
		d.report.failed(check, secret, err)
		return
	case data == nil:
		d.report.add(check, doctorProblem, secret+" does not exist, so replicas cannot start",
			"look at the controller's log, or give its name with --tls-secret")
		return
	}
	leaf, err := servingCertificate(data)
	if err != nil {
		d.report.add(check, doctorProblem, secret+" holds no certificate with its key: "+err.Error(), "delete it, and the controller makes a new one")
		return
	}
	before := len(d.report.Checks)
	host := d.service + "." + d.namespace + ".svc"
	for _, r := range d.registrations {
		for _, w := range r.Webhooks {
			roots := x509.NewCertPool()
			if len(w.ClientConfig.CABundle) == 0 {
				continue // which is said already
			}
			roots.AppendCertsFromPEM(w.ClientConfig.CABundle)
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
				d.report.add(check, doctorProblem, fmt.Sprintf("the caBundle of %s does not verify the certificate: %v", w.Name, err),
					"look at the log of the controller, or of who writes the caBundle")
			}
		}
	}
	if left := time.Until(leaf.NotAfter); left < expirySoon(leaf) && left > 0 {
		d.report.add(check, doctorWarning, "the serving certificate ends at "+leaf.NotAfter.UTC().Format(time.RFC3339)+", and nobody has renewed it", "look at the log of the controller")
	}
	if len(d.report.Checks) == before {
		d.report.add(check, doctorOK, "the serving certificate fits every caBundle; it ends at "+leaf.NotAfter.UTC().Format(time.RFC3339), "")
	}
}

func servingCertificate(data map[string][]byte) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(data["tls.crt"], data["tls.key"])
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(pair.Certificate[0])
}

// judgeReplicas looks at the Deployment that bears the name of the Service.
func (d *doctor) judgeReplicas(ctx context.Context) {
	if d.service == "" {
		return // which is said already
	}
	const check = "replicas"
	deployment := "Deployment " + d.namespace + "/" + d.service
	r, err := d.inspector.Replicas(ctx, d.namespace, d.service)
	if err != nil {
		d.report.failed(check, deployment, err)
	}
	if err == nil && r == nil {
		d.report.add(check, doctorUnknown, deployment+" does not exist", "look at what the Service selects")
	}
	if r == nil {
		return
	}
	nodes := strings.Join(slices.Sorted(maps.Keys(r.Nodes)), ", ")
	switch {
	case r.Wanted == 0:
		d.report.add(check, doctorProblem, deployment+" is scaled to no replica", "set webhook.replicas to 3")
	case r.Ready == 0:
		d.report.add(check, doctorProblem, fmt.Sprintf("%s has no ready replica of %d", deployment, r.Wanted), "kubectl -n "+d.namespace+" describe pods says why")
	case r.Ready < r.Wanted:
		d.report.add(check, doctorProblem, fmt.Sprintf("%s has %d ready replicas of %d", deployment, r.Ready, r.Wanted), "kubectl -n "+d.namespace+" describe pods says why")
	case r.Wanted == 1:
		d.report.add(check, doctorWarning, deployment+" has one replica: whenever it restarts, nothing is judged", "set webhook.replicas to 3")
	case len(r.Nodes) == 1:
		d.report.add(check, doctorWarning, fmt.Sprintf("all %d replicas are on node %s: when it fails, nothing is judged", r.Ready, nodes), "spread them over nodes")
	default:
		d.report.add(check, doctorOK, fmt.Sprintf("%s has %d ready replicas on %s", deployment, r.Ready, plural(len(r.Nodes), "node")), "")
	}
}

// judgeScope lists the namespaces for which the judging half is called. The function says whether it is for one.
func (d *doctor) judgeScope(ctx context.Context) func(namespace string) bool {
	const check = "scope"
	var selector *metav1.LabelSelector
	found := false
	for _, r := range d.registrations {
		if !r.Mutating && len(r.Webhooks) > 0 {
			selector, found = r.Webhooks[0].NamespaceSelector, true
		}
	}
	all, err := d.inspector.Namespaces(ctx)
	if err != nil {
		d.report.failed(check, "the namespaces", err)
	}
	if err != nil || !found {
		system := []string{"kube-system", "kube-public", "kube-node-lease", d.namespace}
		return func(namespace string) bool { return !slices.Contains(system, namespace) }
	}
	in := map[string]bool{}
	for namespace, labels := range all {
		if selects(selector, labels) {
			in[namespace] = true
			d.report.InScope = append(d.report.InScope, namespace)
		}
	}
	slices.Sort(d.report.InScope)
	switch n := len(d.report.InScope); n {
	case 0:
		d.report.add(check, doctorWarning, fmt.Sprintf("none of %s is in scope, so nothing is judged", plural(len(all), "namespace")),
			`label one: kubectl label namespace NAME hallmark.dev/enforce=true, or set scope.mode to all`)
	default:
		d.report.add(check, doctorOK, fmt.Sprintf("%d of %s in scope: %s", n, plural(len(all), "namespace"), some(d.report.InScope, 8)), "")
	}
	return func(namespace string) bool { return in[namespace] }
}

// some lists the first of a long list.
func some(list []string, most int) string {
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}
