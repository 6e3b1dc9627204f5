package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// metrics of a controller.
type metrics struct {
	registry   *prometheus.Registry
	expiry     *prometheus.GaugeVec
	leader     prometheus.Gauge
	reconciles *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hallmark_certificate_expiry_timestamp_seconds",
			Help: "When the newest certificate of that kind ends, in seconds since 1970: serving, ca.",
		}, []string{"certificate"}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hallmark_controller_leader", Help: "1 while this replica of the controller may write.",
		}),
		reconciles: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hallmark_reconciles_total", Help: "Looks at the cluster by result: success or failure.",
		}, []string{"result"}),
	}
	for _, result := range []string{"success", "failure"} {
		m.reconciles.WithLabelValues(result)
	}
	m.registry.MustRegister(m.expiry, m.leader, m.reconciles,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observed(s state, leads bool) {
	m.leader.Set(map[bool]float64{true: 1}[leads])
	m.expiry.Reset()
	if s.serving != nil {
		m.expiry.WithLabelValues("serving").Set(float64(s.serving.leaf.NotAfter.Unix()))
	}
	if n := len(s.authorities); n > 0 {
		m.expiry.WithLabelValues("ca").Set(float64(s.authorities[n-1].cert.NotAfter.Unix()))
	}
}

// serve answers probes and /metrics until ctx ends.
func (c *Controller) serve(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := c.unready.Load(); reason != nil {
			http.Error(w, *reason, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(c.config.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(c.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics and probes: %w", err)
	}
	return nil
}

// Types of an Event.
const (
	normal  = "Normal"
	warning = "Warning"
)

// report tells of a write.
func (c *Controller) report(ctx context.Context, o observed, s step, err error) {
	if err != nil {
		return // which tell does
	}
	log := c.config.Log.With("reason", s.because)
	for _, spoilt := range o.spoilt {
		log = log.With("spoilt", spoilt)
	}
	switch s.task {
	case storeAuthorities:
		log.Info("authorities stored", "authorities", len(s.authorities)+map[bool]int{true: 1}[s.mint], "new", s.mint)
		if s.mint {
			c.event(ctx, normal, "CreatedAuthority", "a new authority will issue the serving certificate: "+s.because)
		}
	case publish:
		log.Info("caBundle written", "kind", string(o.configurations[s.target].kind))
	case issueServing:
		log.Info("serving certificate written", "issued", len(s.authorities) > 0)
		if len(s.authorities) > 0 {
			c.event(ctx, normal, "IssuedCertificate", "a new serving certificate is in Secret "+c.config.TLSSecret+": "+s.because)
		}
	case ownSecrets:
		log.Info("owner of the Secrets written")
	}
}

// A waiting is trouble that belongs to every installation: the webhook does not answer yet.
type waiting struct{ error }

func (w waiting) Unwrap() error { return w.error }

// trouble is what was told of it.
type trouble struct {
	since  time.Time
	logged string
	event  string
}

// patience is how long trouble lasts before an Event tells of it. A pod needs some of it to start.
const patience = time.Minute

// tell counts a look at the cluster and tells of trouble that is new: at once in the log, and on the Deployment when it lasts.
func (c *Controller) tell(ctx context.Context, err error) {
	if err == nil {
		c.metrics.reconciles.WithLabelValues("success").Inc()
		if c.trouble.logged != "" {
			c.config.Log.Info("all is well again")
		}
		c.trouble = trouble{}
		return
	}
	c.metrics.reconciles.WithLabelValues("failure").Inc()
	if c.trouble.logged == "" {
		c.trouble.since = time.Now()
	}
	text := err.Error()
	if apierrors.IsForbidden(err) {
		text += "; the chart's Role and ClusterRole of the controller give that right"
	}
	if text != c.trouble.logged {
		c.trouble.logged = text
		if w := (waiting{}); errors.As(err, &w) {
			c.config.Log.Info("waiting", "for", text)
		} else {
			c.config.Log.Warn("the cluster is not as it should be; trying again", "error", text)
		}
	}
	if text != c.trouble.event && time.Since(c.trouble.since) > patience && c.election.leads() {
		c.trouble.event = text
		c.event(ctx, warning, "NotAsItShouldBe", text)
	}
}

// maxNote is the longest text that an Event may have.
const maxNote = 1024

// event puts an Event on the Deployment. It is a courtesy: that it could not be written is no trouble of its own.
func (c *Controller) event(ctx context.Context, kind, reason, note string) {
	if c.deployment == "" {
		return
	}
	now := metav1.NewTime(c.api.now())
	body := corev1.Event{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: c.config.Namespace, Name: fmt.Sprintf("%s.%x", c.config.Deployment, now.UnixNano()),
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "apps/v1", Kind: "Deployment", Namespace: c.config.Namespace, Name: c.config.Deployment, UID: c.deployment,
		},
		Type: kind, Reason: reason, Message: note[:min(len(note), maxNote)],
		Source:         corev1.EventSource{Component: fieldManager},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		ReportingController: fieldManager, ReportingInstance: c.election.identity,
	}
	path := "/api/v1/namespaces/" + url.PathEscape(c.config.Namespace) + "/events"
	if err := c.api.do(ctx, call{method: http.MethodPost, path: path, query: manager(), body: body}, nil); err != nil {
		c.config.Log.Debug("an Event could not be written", "error", err)
	}
}
