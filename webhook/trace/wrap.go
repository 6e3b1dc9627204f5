package trace

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Handler takes over the trace of who sends a request (W3C traceparent).
func (t *Tracer) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// A Reviewer decides. *webhook.Reviewer is one.
type Reviewer interface {
	Mutate(ctx context.Context, request *webhook.Request) webhook.Decision
	Validate(ctx context.Context, request *webhook.Request) webhook.Decision
}

// Reviewer makes a span of each review.
func (t *Tracer) Reviewer(next Reviewer) Reviewer { return &reviewer{next, t} }

type reviewer struct {
	next   Reviewer
	tracer *Tracer
}

// Mutate implements Reviewer.
func (r *reviewer) Mutate(ctx context.Context, request *webhook.Request) webhook.Decision {
	return r.review(ctx, "mutate", request, r.next.Mutate)
}

// Validate implements Reviewer.
func (r *reviewer) Validate(ctx context.Context, request *webhook.Request) webhook.Decision {
	return r.review(ctx, "validate", request, r.next.Validate)
}

func (r *reviewer) review(
	ctx context.Context, name string, request *webhook.Request, decide func(context.Context, *webhook.Request) webhook.Decision,
) webhook.Decision {
	ctx, span := r.tracer.tracer.Start(ctx, name, oteltrace.WithSpanKind(oteltrace.SpanKindServer), oteltrace.WithAttributes(
		attribute.String("hallmark.uid", request.UID), attribute.String("hallmark.operation", string(request.Operation)),
		attribute.String("k8s.namespace.name", request.Namespace), attribute.String("hallmark.kind", request.Kind),
	))
	defer span.End() // also when it panics
	d := decide(ctx, request)
	span.SetAttributes(
		attribute.String("hallmark.decision", string(d.Outcome)), attribute.String("hallmark.id", d.ID),
		attribute.Int("hallmark.images", len(d.Images)), attribute.Int("hallmark.findings", len(d.Findings)),
	)
	if d.Outcome == webhook.Failed {
		span.SetStatus(codes.Error, "the policy could not be evaluated")
	}
	return d
}

// Judge makes a span of each phase. What came before the first one is the span select.
func (t *Tracer) Judge(next webhook.Judge) webhook.Judge {
	return webhook.JudgeFunc(func(ctx context.Context, phase webhook.Phase, input *webhook.Input) ([]webhook.Finding, error) {
		name := "late"
		if phase == webhook.EarlyPhase {
			name = "early"
			if review, ok := oteltrace.SpanFromContext(ctx).(sdktrace.ReadOnlySpan); ok {
				_, selected := t.start(ctx, "select", oteltrace.WithTimestamp(review.StartTime()),
					oteltrace.WithAttributes(attribute.Int("hallmark.images", len(input.Images))))
				selected.End()
			}
		}
		ctx, span := t.start(ctx, "judge", oteltrace.WithAttributes(attribute.String("hallmark.phase", name)))
		findings, err := next.Judge(ctx, phase, input)
		span.SetAttributes(attribute.Int("hallmark.findings", len(findings)))
		end(span, err)
		return findings, err
	})
}

// Sources makes spans of what is read and verified.
func (t *Tracer) Sources(next webhook.Sources) webhook.Sources {
	of := func(ref webhook.Reference) oteltrace.SpanStartOption {
		return oteltrace.WithAttributes(attribute.String("hallmark.image", ref.String()))
	}
	return webhook.Sources{
		Reader: webhook.ImageReaderFunc(func(ctx context.Context, ref webhook.Reference, depth webhook.Depth) (*webhook.Content, error) {
			ctx, span := t.start(ctx, "read", of(ref))
			content, err := next.Reader.ReadImage(ctx, ref, depth)
			if content != nil {
				span.SetAttributes(attribute.String("hallmark.digest", content.Digest), attribute.Bool("hallmark.stale", !content.Stale.IsZero()))
			}
			end(span, err)
			return content, err
		}),
		Verifier: webhook.VerifierFunc(func(ctx context.Context, ref webhook.Reference, rules []webhook.SignatureRule) (webhook.Signatures, error) {
			ctx, span := t.start(ctx, "verify", of(ref))
			signatures, err := next.Verifier.Verify(ctx, ref, rules)
			span.SetAttributes(attribute.Int("hallmark.signatures", signatures.Found), attribute.Int("hallmark.valid", len(signatures.Valid)))
			end(span, err)
			return signatures, err
		}),
		Attester: webhook.AttesterFunc(func(ctx context.Context, ref webhook.Reference, rules []webhook.AttestationRule) (webhook.Attestations, error) {
			ctx, span := t.start(ctx, "attest", of(ref))
			attested, err := next.Attester.Attest(ctx, ref, rules)
			span.SetAttributes(attribute.Int("hallmark.attestations", attested.Found), attribute.Int("hallmark.valid", len(attested.Valid)))
			end(span, err)
			return attested, err
		}),
	}
}

// Puller makes spans of what is read with a pod's own credentials.
func (t *Tracer) Puller(next webhook.Puller) webhook.Puller {
	return webhook.PullerFunc(func(ctx context.Context, pull webhook.Pull) (webhook.Sources, error) {
		within, span := t.start(ctx, "pull secrets")
		sources, err := next.Sources(within, pull)
		end(span, err)
		if err != nil {
			return sources, err
		}
		return t.Sources(sources), nil
	})
}

// RegistryRequest makes a span of a request to a registry that has just ended.
func (t *Tracer) RegistryRequest(ctx context.Context, registry, operation string, code int, elapsed time.Duration) {
	_, span := t.start(ctx, "registry", oteltrace.WithTimestamp(time.Now().Add(-elapsed)), oteltrace.WithSpanKind(oteltrace.SpanKindClient),
		oteltrace.WithAttributes(attribute.String("server.address", registry), attribute.String("hallmark.operation", operation)))
	if code == 0 {
		span.SetStatus(codes.Error, "no answer")
	} else {
		span.SetAttributes(attribute.Int("http.response.status_code", code))
	}
	span.End()
}

// end ends a span. What went wrong is told as the log is told it.
func end(span oteltrace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
