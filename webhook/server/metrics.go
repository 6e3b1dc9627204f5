package server

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Metrics are the measurements of the webhook. No label holds an image, a pod or a user.
type Metrics struct {
	Registry *prometheus.Registry

	requests          *prometheus.CounterVec
	duration          *prometheus.HistogramVec
	findings          *prometheus.CounterVec
	exempted          *prometheus.CounterVec
	exemptionExpiry   *prometheus.GaugeVec
	registryRequests  *prometheus.CounterVec
	registryDuration  *prometheus.HistogramVec
	policy            *prometheus.GaugeVec
	reloads           *prometheus.CounterVec
	cacheRequests     *prometheus.CounterVec
	certificateExpiry prometheus.Gauge
	inFlight          prometheus.Gauge
	queued            prometheus.Gauge
	overload          *prometheus.CounterVec
	decisionLog       *prometheus.CounterVec
	panics            prometheus.Counter
}

// NewMetrics makes and registers all metrics, and those of process and Go runtime.
func NewMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hallmark_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hallmark_" + name, Help: help,
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "hallmark_" + name, Help: help})
	}
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		requests: counter("admission_requests_total", "Admission reviews by path and decision.", "path", "decision"),
		duration: histogram("admission_duration_seconds", "Time to decide a review, without the TLS handshake.", "path"),
		findings: counter("findings_total", "Findings of rules by mode.", "rule", "mode"),
		exempted: counter("exemptions_total", "Reviews in which an exemption took a rule away.", "exemption"),
		exemptionExpiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hallmark_exemption_expiry_timestamp_seconds", Help: "When an exemption ends, in seconds since 1970.",
		}, []string{"exemption"}),
		registryRequests: counter("registry_requests_total", "Requests to registries; code 0 is no answer.", "registry", "operation", "code"),
		registryDuration: histogram("registry_request_duration_seconds", "Time to the end of a registry's answer.", "registry", "operation"),
		policy: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hallmark_policy_info", Help: "1 for the revision of policies and configuration in force.",
		}, []string{"revision"}),
		reloads:           counter("reloads_total", "Reloads of configuration, policies and certificates.", "what", "result"),
		cacheRequests:     counter("cache_requests_total", "Look-ups in the caches.", "cache", "result"),
		certificateExpiry: gauge("certificate_expiry_timestamp_seconds", "When the serving certificate ends, in seconds since 1970."),
		inFlight:          gauge("in_flight_requests", "Reviews that are being decided."),
		queued:            gauge("queued_requests", "Reviews that wait for their turn to be decided."),
		overload: counter("overload_total", "What was turned away or ended since there was too much: queue and waiting are reviews, "+
			"bodies large reviews that were not read, connections those that were closed.", "what"),
		decisionLog: counter("decision_log_events_total", "Decisions for the decision log, by what became of them: sent or dropped.", "result"),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hallmark_panics_total", Help: "Panics that were contained in one review.",
		}),
	}
	m.Registry.MustRegister(
		m.requests, m.duration, m.findings, m.exempted, m.exemptionExpiry, m.registryRequests, m.registryDuration, m.policy, m.reloads, m.cacheRequests,
		m.certificateExpiry, m.inFlight, m.queued, m.overload, m.decisionLog, m.panics,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.begin()
	return m
}

// begin has the counters that alerts watch begin at 0, so that their first increase is seen.
func (m *Metrics) begin() {
	for _, flow := range flows() {
		for _, outcome := range []webhook.Outcome{webhook.Allowed, webhook.Patched, webhook.Denied, webhook.Undecided, webhook.Failed} {
			if outcome != webhook.Patched || flow.path == "/mutate" {
				m.requests.WithLabelValues(flow.path, string(outcome))
			}
		}
	}
	for _, what := range []string{"queue", "waiting", "bodies", "connections"} {
		m.overload.WithLabelValues(what)
	}
	for _, result := range []string{"sent", "dropped"} {
		m.decisionLog.WithLabelValues(result)
	}
	for _, what := range []string{"config", "certificate"} {
		for _, result := range []string{"success", "failure"} {
			m.reloads.WithLabelValues(what, result)
		}
	}
}

func (m *Metrics) overloaded(what string) { m.overload.WithLabelValues(what).Inc() }

func (m *Metrics) reviewed(path string, d webhook.Decision, elapsed time.Duration) {
	m.requests.WithLabelValues(path, string(d.Outcome)).Inc()
	m.duration.WithLabelValues(path).Observe(elapsed.Seconds())
	for _, name := range d.Exempted {
		m.exempted.WithLabelValues(name).Inc()
	}
	for _, f := range d.Findings {
		m.findings.WithLabelValues(f.Rule, string(f.Mode)).Inc()
	}
}

// RegistryRequest counts one request to a registry.
func (m *Metrics) RegistryRequest(_ context.Context, registry, operation string, code int, elapsed time.Duration) {
	m.registryRequests.WithLabelValues(registry, operation, strconv.Itoa(code)).Inc()
	m.registryDuration.WithLabelValues(registry, operation).Observe(elapsed.Seconds())
}

// DecisionLogged counts decisions for the decision log: result is sent or dropped.
func (m *Metrics) DecisionLogged(result string, events int) {
	m.decisionLog.WithLabelValues(result).Add(float64(events))
}

// Reloaded counts a reload: what is config, policies or certificate; result is success or failure.
func (m *Metrics) Reloaded(what string, err error) {
	result := "success"
	if err != nil {
		result = "failure"
	}
	m.reloads.WithLabelValues(what, result).Inc()
}

// Cached counts a look-up: result is hit, miss or stale.
func (m *Metrics) Cached(cache, result string) { m.cacheRequests.WithLabelValues(cache, result).Inc() }

// CacheBytes has the sizes of the caches read whenever metrics are.
func (m *Metrics) CacheBytes(sizes func() map[string]int64) {
	for cache := range sizes() {
		m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "hallmark_cache_bytes", Help: "Bytes that a cache holds.", ConstLabels: prometheus.Labels{"cache": cache},
		}, func() float64 { return float64(sizes()[cache]) }))
	}
}

// Policy names the revision in force.
func (m *Metrics) Policy(revision string) {
	m.policy.Reset()
	m.policy.WithLabelValues(revision).Set(1)
}

// Exemptions tells when the exemptions of the configuration in force end, so that an alert can come before.
func (m *Metrics) Exemptions(ends map[string]time.Time) {
	m.exemptionExpiry.Reset()
	for name, end := range ends {
		m.exemptionExpiry.WithLabelValues(name).Set(float64(end.Unix()))
	}
}
