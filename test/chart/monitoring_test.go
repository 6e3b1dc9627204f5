package chart

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/prometheus/promql/parser"
	corev1 "k8s.io/api/core/v1"
)

// TestMonitors: a monitor finds the pods of its component.
func TestMonitors(t *testing.T) {
	i := install(t, sets()["monitored"])
	for _, component := range []string{"webhook", "controller"} {
		m := get[*monitoringv1.ServiceMonitor](i, "hallmark-"+component)
		service := get[*corev1.Service](i, "hallmark-"+component+"-metrics")
		if !matches(m.Spec.Selector.MatchLabels, service.Labels) || m.Spec.Endpoints[0].Port != service.Spec.Ports[0].Name || m.Labels["release"] != "prometheus" {
			t.Errorf("the monitor %+v of the Service %+v", m, service)
		}
		if other := get[*corev1.Service](i, "hallmark-webhook"); matches(m.Spec.Selector.MatchLabels, other.Labels) {
			t.Error("the monitor finds the webhook's own Service as well, and counts twice")
		}
	}
	i = install(t, sets()["pod monitor"])
	for _, component := range []string{"webhook", "controller"} {
		m := get[*monitoringv1.PodMonitor](i, "hallmark-"+component)
		port := *m.Spec.PodMetricsEndpoints[0].Port
		if !matches(m.Spec.Selector.MatchLabels, i.labels(component)) ||
			!slices.ContainsFunc(i.container(component).Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
			t.Errorf("the monitor %+v", m)
		}
	}
}

// metrics are those of the product, from its sources, with their labels.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	var source []byte
	for _, file := range []string{"../../webhook/server/metrics.go", "../../webhook/cluster/report.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, text...)
	}
	found := map[string][]string{"process_resident_memory_bytes": nil}
	for _, m := range regexp.MustCompile(`(counter|histogram|gauge)\("([a-z_]+)",\s*"[^"]+"(?:\s*\+\s*"[^"]+")*((?:, "[a-z]+")*)\)`).FindAllStringSubmatch(string(source), -1) {
		labels := strings.FieldsFunc(m[3], func(r rune) bool { return strings.ContainsRune(`", `, r) })
		name := "hallmark_" + m[2]
		if m[1] == "histogram" {
			name += "_bucket"
			labels = append(labels, "le")
		}
		found[name] = labels
	}
	for _, m := range regexp.MustCompile(`(?s)Name: "(hallmark_[a-z_]+)"[^}]*\}(?:, \[\]string\{([^}]*)\})?`).FindAllStringSubmatch(string(source), -1) {
		found[m[1]] = append(found[m[1]], strings.FieldsFunc(m[2], func(r rune) bool { return strings.ContainsRune(`", `, r) })...)
	}
	found["hallmark_cache_bytes"] = []string{"cache"}
	if len(found) < 12 || !slices.Equal(found["hallmark_reloads_total"], []string{"what", "result"}) || !slices.Equal(found["hallmark_policy_info"], []string{"revision"}) {
		t.Fatalf("the metrics were not understood: %v", found)
	}
	return found
}

// checkQuery parses an expression and looks up every metric and label in it.
func checkQuery(t *testing.T, known map[string][]string, where, query string) {
	t.Helper()
	expression, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	selectors := 0
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			selectors++
			labels, exists := known[n.Name]
			if !exists {
				t.Errorf("%s: there is no metric %s", where, n.Name)
			}
			scoped := false
			for _, m := range n.LabelMatchers {
				scoped = scoped || m.Name == "namespace"
				if !slices.Contains(append(labels, "__name__", "namespace", "pod"), m.Name) {
					t.Errorf("%s: %s has no label %s", where, n.Name, m.Name)
				}
			}
			if !scoped {
				t.Errorf("%s: %s of every namespace", where, n.Name)
			}
		case *parser.AggregateExpr:
			for _, label := range n.Grouping {
				if !slices.ContainsFunc([]string{"pod"}, func(l string) bool { return l == label }) && !someHas(known, label) {
					t.Errorf("%s: no metric has a label %s", where, label)
				}
			}
		}
		return nil
	})
	if selectors == 0 {
		t.Errorf("%s asks for no metric: %s", where, query)
	}
}

func someHas(known map[string][]string, label string) bool {
	for _, labels := range known {
		if slices.Contains(labels, label) {
			return true
		}
	}
	return false
}

// TestAlerts: Prometheus understands them, they ask for what exists, and each says what it means and where it is explained.
func TestAlerts(t *testing.T) {
	known := metrics(t)
	alerts, err := os.ReadFile("../../docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := get[*monitoringv1.PrometheusRule](install(t, sets()["monitored"]), "hallmark")
	names := map[string]bool{}
	for _, rule := range rules.Spec.Groups[0].Rules {
		names[rule.Alert] = true
		checkQuery(t, known, rule.Alert, rule.Expr.StrVal)
		if !slices.Contains([]string{"critical", "warning", "info"}, rule.Labels["severity"]) {
			t.Errorf("%s: severity %q", rule.Alert, rule.Labels["severity"])
		}
		if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" || len(rule.Annotations) != 3 {
			t.Errorf("%s: annotations %v", rule.Alert, rule.Annotations)
		}
		want := "https://github.com/hallmark-admission/hallmark/blob/main/docs/alerts.md#" + strings.ToLower(rule.Alert)
		if got := rule.Annotations["runbook_url"]; got != want {
			t.Errorf("%s: runbook_url %s, want %s", rule.Alert, got, want)
		}
		if !regexp.MustCompile(`(?m)^#+ ` + rule.Alert + `$`).Match(alerts) {
			t.Errorf("docs/alerts.md has no heading %s", rule.Alert)
		}
	}
	if len(names) != len(rules.Spec.Groups[0].Rules) || !names["HallmarkDown"] {
		t.Errorf("the alerts are %v", names)
	}
}

// TestDashboard: Grafana gets JSON, and Prometheus understands every query in it.
func TestDashboard(t *testing.T) {
	known := metrics(t)
	text := get[*corev1.ConfigMap](install(t, sets()["monitored"]), "hallmark-dashboard").Data["hallmark.json"]
	var dashboard struct {
		UID, Title string
		Panels     []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
		t.Fatal(err)
	}
	ids := map[int]string{}
	for _, p := range dashboard.Panels {
		if other, taken := ids[p.ID]; taken {
			t.Errorf("%s and %s are both %d", p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		if p.GridPos.X+p.GridPos.W > 24 || len(p.Targets) == 0 {
			t.Errorf("panel %s: %+v", p.Title, p)
		}
		for _, target := range p.Targets {
			checkQuery(t, known, p.Title, strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"))
		}
	}
	if dashboard.UID != "hallmark" || len(ids) < 10 {
		t.Errorf("the dashboard %s has %d panels", dashboard.UID, len(ids))
	}
}
