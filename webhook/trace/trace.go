package trace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// A Tracer makes spans and sends them behind requests. What a collector does not take in time is dropped.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   oteltrace.Tracer
}

// Wanted says whether the environment says where to send traces: OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, unless OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER switches them off.
func Wanted() bool {
	_, place := firstSet("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	return place != "" && !strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") && os.Getenv("OTEL_TRACES_EXPORTER") != "none"
}

// New makes a Tracer by the variables of the OpenTelemetry specification. It contacts nobody. Trouble with sending goes
// to the log, at most once a minute.
func New(ctx context.Context, version string, log *slog.Logger) (*Tracer, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	otel.SetLogger(logr.FromSlogHandler(log.Handler()))
	otel.SetErrorHandler(&reporter{log: log})
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "hallmark"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("traces: OTEL_RESOURCE_ATTRIBUTES: %w", err), exporter.Shutdown(ctx))
	}
	return newTracer(sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))), nil
}

func newTracer(provider *sdktrace.TracerProvider) *Tracer {
	return &Tracer{provider: provider, tracer: provider.Tracer("github.com/hallmark-admission/hallmark")}
}

// supported refuses what would silently send nothing.
func supported() error {
	if exporter := os.Getenv("OTEL_TRACES_EXPORTER"); exporter != "" && exporter != "otlp" {
		return fmt.Errorf("traces: OTEL_TRACES_EXPORTER is %q; want otlp or none", exporter)
	}
	name, protocol := firstSet("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	if protocol != "" && protocol != "http/protobuf" {
		return fmt.Errorf("traces: %s is %q; want http/protobuf, and the collector's port for it, which is 4318 by default", name, protocol)
	}
	return nil
}

func firstSet(names ...string) (name, value string) {
	for _, name = range names {
		if value = os.Getenv(name); value != "" {
			break
		}
	}
	return name, value
}

// Close sends what is left.
func (t *Tracer) Close(ctx context.Context) error {
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}

// start begins a span below that of ctx. A span that would have nothing above it is left out: what is read behind
// requests belongs to none.
func (t *Tracer) start(ctx context.Context, name string, options ...oteltrace.SpanStartOption) (context.Context, oteltrace.Span) {
	if above := oteltrace.SpanFromContext(ctx); !above.SpanContext().IsValid() {
		return ctx, above
	}
	return t.tracer.Start(ctx, name, options...)
}

// reporter is told of trouble with sending. It implements otel.ErrorHandler.
type reporter struct {
	log   *slog.Logger
	mutex sync.Mutex
	last  time.Time
}

const reportEvery = time.Minute

// Handle implements otel.ErrorHandler.
func (r *reporter) Handle(err error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if now := time.Now(); now.Sub(r.last) >= reportEvery {
		r.last = now
		r.log.Warn("traces could not be sent", "error", cmp.Or(err, errors.New("unknown")))
	}
}
