package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/server"
	"github.com/hallmark-admission/hallmark/webhook/trace"
)

// lastWords is how long a process that ends may take to send what is left of traces and decisions.
const lastWords = 5 * time.Second

// traces wraps what a review goes through, or leaves it as it is when nobody wants traces.
type traces struct {
	tracer  *trace.Tracer // nil when off
	metrics *server.Metrics
	log     *slog.Logger
}

func newTraces(ctx context.Context, metrics *server.Metrics, log *slog.Logger) (*traces, error) {
	t := &traces{metrics: metrics, log: log}
	if !trace.Wanted() {
		return t, nil
	}
	var err error
	if t.tracer, err = trace.New(ctx, version, log); err != nil {
		return nil, hinted{err, "see the variables OTEL_… in docs/operations.md; without OTEL_EXPORTER_OTLP_ENDPOINT there are no traces"}
	}
	return t, nil
}

// request is told of requests to registries.
func (t *traces) request(ctx context.Context, registry, operation string, code int, elapsed time.Duration) {
	t.metrics.RegistryRequest(ctx, registry, operation, code, elapsed)
	if t.tracer != nil {
		t.tracer.RegistryRequest(ctx, registry, operation, code, elapsed)
	}
}

// reviewer is current with its reviews traced.
func (t *traces) reviewer(current func() server.Reviewer) func() server.Reviewer {
	if t.tracer == nil {
		return current
	}
	return func() server.Reviewer {
		if r := current(); r != nil {
			return t.tracer.Reviewer(r)
		}
		return nil
	}
}

// wrap is for server.Config.
func (t *traces) wrap() func(http.Handler) http.Handler {
	if t.tracer == nil {
		return nil
	}
	return t.tracer.Handler
}

// close sends what is left.
func (t *traces) close(ctx context.Context) {
	if t.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	if err := t.tracer.Close(ctx); err != nil {
		t.log.Warn("traces are lost", "error", err)
	}
}
