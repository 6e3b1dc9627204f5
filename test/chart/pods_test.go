package chart

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// pod is that of a Deployment: webhook or controller.
func (i *installed) pod(component string) *corev1.PodSpec {
	i.Helper()
	return &get[*appsv1.Deployment](i, "hallmark-"+component).Spec.Template.Spec
}

func (i *installed) container(component string) *corev1.Container {
	i.Helper()
	return &i.pod(component).Containers[0]
}

// TestPodSecurity: the namespace may be restricted, at the newest version. What hostNetwork costs is known.
func TestPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	everySet(t, func(i *installed) {
		if pod := i.doctor(); pod != nil {
			result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec))
			if !result.Allowed {
				i.Errorf("%s: forbidden: %s", pod.Name, result.ForbiddenDetail())
			}
		}
		for _, d := range all[*appsv1.Deployment](i) {
			result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &d.Spec.Template.ObjectMeta, &d.Spec.Template.Spec))
			want := ""
			if d.Spec.Template.Spec.HostNetwork {
				want = "host namespaces"
			}
			if got := result.ForbiddenReason(); got != want {
				i.Errorf("%s: forbidden: %q, want %q: %s", d.Name, got, want, result.ForbiddenDetail())
			}
			for _, c := range d.Spec.Template.Spec.Containers {
				if s := c.SecurityContext; s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
					i.Errorf("%s: somebody can write to the root filesystem", d.Name)
				}
				if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
					i.Errorf("%s: resources %v", d.Name, c.Resources)
				}
				if c.Resources.Limits.Cpu().Sign() != 0 {
					i.Errorf("%s has a CPU limit, which holds up admissions", d.Name)
				}
			}
		}
	})
}

// TestSelectors: a Service, a budget and a spread reach the pods they are for, and no others.
func TestSelectors(t *testing.T) {
	everySet(t, func(i *installed) {
		for _, d := range all[*appsv1.Deployment](i) {
			for _, other := range all[*appsv1.Deployment](i) {
				selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
				if err != nil {
					i.Fatal(err)
				}
				if got := selector.Matches(labels(other.Spec.Template.Labels)); got != (d.Name == other.Name) {
					i.Errorf("%s selects pods of %s: %t", d.Name, other.Name, got)
				}
			}
			for _, s := range all[*corev1.Service](i) {
				if !strings.HasPrefix(s.Name, d.Name) {
					continue
				}
				if !matches(s.Spec.Selector, d.Spec.Template.Labels) {
					i.Errorf("Service %s does not select pods of %s", s.Name, d.Name)
				}
				for _, port := range s.Spec.Ports {
					if !slices.ContainsFunc(d.Spec.Template.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port.TargetPort.StrVal }) {
						i.Errorf("Service %s has port %s, which no container has", s.Name, port.TargetPort.StrVal)
					}
				}
			}
		}
	})
}

func matches(selector, labels map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return len(selector) > 0
}

// TestAvailability: replicas are spread, and a rollout and a drain leave one that answers and come to an end.
func TestAvailability(t *testing.T) {
	i := install(t, ``)
	d := get[*appsv1.Deployment](i, "hallmark-webhook")
	if *d.Spec.Replicas != 3 {
		t.Errorf("%d replicas", *d.Spec.Replicas)
	}
	if r := d.Spec.Strategy.RollingUpdate; r.MaxUnavailable.IntValue() != 0 || r.MaxSurge.IntValue() != 1 {
		t.Errorf("rollout: %v", r)
	}
	spec := d.Spec.Template.Spec
	if spec.PriorityClassName != "system-cluster-critical" {
		t.Errorf("priority class %q", spec.PriorityClassName)
	}
	var spread []string
	for _, c := range spec.TopologySpreadConstraints {
		spread = append(spread, c.TopologyKey)
		if !matches(c.LabelSelector.MatchLabels, d.Spec.Template.Labels) || c.WhenUnsatisfiable != corev1.ScheduleAnyway {
			t.Errorf("spread: %+v", c)
		}
	}
	if !slices.Equal(spread, []string{"topology.kubernetes.io/zone", "kubernetes.io/hostname"}) {
		t.Errorf("spread over %q", spread)
	}
	budget := get[*policyv1.PodDisruptionBudget](i, "hallmark-webhook")
	if budget.Spec.MaxUnavailable.IntValue() != 1 || budget.Spec.MinAvailable != nil || !matches(budget.Spec.Selector.MatchLabels, d.Spec.Template.Labels) {
		t.Errorf("budget: %+v", budget.Spec)
	}
	quota := get[*corev1.ResourceQuota](i, "hallmark-critical-pods").Spec.ScopeSelector.MatchExpressions[0]
	if !slices.Equal(quota.Values, []string{"system-cluster-critical"}) {
		t.Errorf("the quota is for %q", quota.Values)
	}
	if names := install(t, sets()["single"]).names(); names["ResourceQuota/hallmark-critical-pods"] || names["PodDisruptionBudget/hallmark-webhook"] {
		t.Errorf("what was switched off is there: %v", names)
	}
	if d := get[*appsv1.Deployment](install(t, `{webhook: {autoscaling: {enabled: true}}}`), "hallmark-webhook"); d.Spec.Replicas != nil {
		t.Error("each helm upgrade would undo what the autoscaler did")
	}
}

// TestImage: a digest takes the place of the tag, and the tag is the version of the chart's application.
func TestImage(t *testing.T) {
	const digest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	for values, want := range map[string]string{
		``:                       "ghcr.io/hallmark-admission/hallmark:0.1.0",
		`{image: {tag: v9.9.9}}`: "ghcr.io/hallmark-admission/hallmark:v9.9.9",
		`{image: {tag: v9.9.9, repository: "r.example:5000/x", digest: "` + digest + `"}}`: "r.example:5000/x@" + digest,
	} {
		i := install(t, values)
		for _, component := range []string{"webhook", "controller"} {
			if got := i.container(component).Image; got != want {
				t.Errorf("%s: %s runs %s, want %s", values, component, got, want)
			}
		}
	}
}

// TestProbes: the API server's port is asked, over TLS, and being alive is asked for more patiently than being ready.
func TestProbes(t *testing.T) {
	c := install(t, ``).container("webhook")
	for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		path := map[bool]string{true: "/readyz", false: "/livez"}[name == "readiness"]
		if g := probe.HTTPGet; g.Path != path || g.Port.StrVal != "webhook" || g.Scheme != corev1.URISchemeHTTPS {
			t.Errorf("%s: %+v", name, g)
		}
	}
	if c.LivenessProbe.FailureThreshold*c.LivenessProbe.PeriodSeconds < 10*c.ReadinessProbe.FailureThreshold*c.ReadinessProbe.PeriodSeconds {
		t.Error("a busy webhook is killed before it has had a rest")
	}
}

// labels are those of the pods of a Deployment.
func (i *installed) labels(component string) map[string]string {
	i.Helper()
	return get[*appsv1.Deployment](i, "hallmark-"+component).Spec.Template.Labels
}
