package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// maxBody is two objects of the API server's limit of 3 MiB (k8s.io/apiserver, MaxRequestBodyBytes), and slack.
const maxBody = 7 << 20

// A Reviewer decides. *webhook.Reviewer is one.
type Reviewer interface {
	Mutate(ctx context.Context, request *webhook.Request) webhook.Decision
	Validate(ctx context.Context, request *webhook.Request) webhook.Decision
}

// flow is one of the two halves.
type flow struct {
	path   string
	review func(Reviewer, context.Context, *webhook.Request) webhook.Decision
}

func flows() []flow {
	return []flow{{"/mutate", Reviewer.Mutate}, {"/validate", Reviewer.Validate}}
}

// reviews answers POST with an AdmissionReview for one flow.
type reviews struct {
	flow     flow
	current  func() Reviewer
	deadline func() time.Duration
	log      *slog.Logger
	metrics  *Metrics
	turns    *turns
	room     *room
	decided  func(path string, request *webhook.Request, d webhook.Decision, elapsed time.Duration) // may be nil
}

// httpError is an answer to what is not a review.
type httpError struct {
	code int
	text string
}

func (h *reviews) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	taken, ok := h.room.enter(r)
	if !ok {
		h.noRoom(w)
		return
	}
	defer h.room.leave(taken)
	request, refused := h.read(w, r)
	if refused != nil {
		h.metrics.reviewed(h.flow.path, webhook.Decision{Outcome: webhook.Failed}, time.Since(start))
		if refused.code == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		http.Error(w, "hallmark: "+refused.text, refused.code)
		return
	}
	connection := connectionOf(r.Context())
	connection.begin()
	defer connection.end()
	ctx, cancel := context.WithDeadline(r.Context(), start.Add(h.timeout(r)))
	defer cancel()
	decision := h.decide(ctx, cancel, request)
	elapsed := time.Since(start)
	body, err := encode(request, decision)
	if err != nil {
		h.log.Error("response could not be encoded", "uid", request.UID, "error", err)
		http.Error(w, "hallmark: internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body))) // or net/http sends what is over 2 kB in chunks
	_, _ = w.Write(body)                                      // the API server that has gone away is the only one to whom it would matter
	h.metrics.reviewed(h.flow.path, decision, elapsed)
	h.logDecision(ctx, request, decision, elapsed)
	if h.decided != nil {
		h.decided(h.flow.path, request, decision, elapsed)
	}
}

// noRoom refuses a body that is not read. The API server tries again after that time, within its own time-out.
func (h *reviews) noRoom(w http.ResponseWriter) {
	h.metrics.overloaded("bodies")
	h.metrics.reviewed(h.flow.path, webhook.Decision{Outcome: webhook.Undecided}, h.room.patience)
	w.Header().Set("Retry-After", "1")
	http.Error(w, "hallmark: overloaded by large reviews; try again", http.StatusServiceUnavailable)
}

// read takes a review off the wire.
func (h *reviews) read(w http.ResponseWriter, r *http.Request) (*webhook.Request, *httpError) {
	if r.Method != http.MethodPost {
		return nil, &httpError{http.StatusMethodNotAllowed, "send an AdmissionReview by POST"}
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		return nil, &httpError{http.StatusUnsupportedMediaType, "want Content-Type: application/json"}
	}
	if r.ContentLength > maxBody {
		return nil, &httpError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the review is larger than %d bytes", maxBody)}
	}
	body, err := readBody(http.MaxBytesReader(w, r.Body, maxBody), r.ContentLength)
	if err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			return nil, &httpError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the review is larger than %d bytes", maxBody)}
		}
		return nil, &httpError{http.StatusBadRequest, "the body could not be read"}
	}
	if len(body) == 0 {
		return nil, &httpError{http.StatusBadRequest, "the body is empty; want an AdmissionReview of admission.k8s.io/v1"}
	}
	request, err := webhook.ReadReview(body)
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, "the AdmissionReview is malformed: " + err.Error()}
	}
	return request, nil
}

func isJSON(contentType string) bool {
	if contentType == "application/json" {
		return true // as the API server writes it
	}
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && media == "application/json"
}

// readBody reads everything into one buffer of the announced size.
func readBody(r io.Reader, announced int64) ([]byte, error) {
	if announced <= 0 {
		return io.ReadAll(r)
	}
	body := make([]byte, announced)
	_, err := io.ReadFull(r, body)
	return body, err
}

// timeout is the smaller of the configured deadline and the one that the API server sends as ?timeout=, less what the
// answer needs for the way back.
func (h *reviews) timeout(r *http.Request) time.Duration {
	timeout := h.deadline()
	if sent, err := time.ParseDuration(r.URL.Query().Get("timeout")); err == nil && sent > 0 {
		margin := min(sent/10, 500*time.Millisecond)
		timeout = min(timeout, sent-margin)
	}
	return timeout
}

// decide contains a panic in one review: it denies, is counted, and the process lives on.
func (h *reviews) decide(ctx context.Context, cancel context.CancelFunc, request *webhook.Request) (decision webhook.Decision) {
	defer func() {
		if p := recover(); p != nil {
			h.metrics.panics.Inc()
			h.log.Error("panic in a review", "uid", request.UID, "namespace", request.Namespace, "kind", request.Kind,
				"error", fmt.Sprint(p), "stack", string(debug.Stack()))
			decision = refusal(request, webhook.Failed, http.StatusInternalServerError,
				"Hallmark failed on this object, so it is not allowed; ask your cluster admin to look up the decision in its log.")
		}
	}()
	turn := h.turns.take(ctx, cancel)
	if turn == nil {
		return overloaded(request)
	}
	defer h.turns.end(turn)
	h.metrics.inFlight.Inc()
	defer h.metrics.inFlight.Dec()
	reviewer := h.current()
	if reviewer == nil {
		return refusal(request, webhook.Undecided, http.StatusServiceUnavailable,
			"Hallmark has no valid configuration yet; try again, or tell your cluster admin.")
	}
	decision = h.flow.review(reviewer, ctx, request)
	if turn.ended.Load() && decision.Outcome != webhook.Denied {
		return overloaded(request)
	}
	return decision
}

func overloaded(request *webhook.Request) webhook.Decision {
	return refusal(request, webhook.Undecided, http.StatusServiceUnavailable, "Hallmark is overloaded; try again.")
}

// refusal is a decision of the server itself.
func refusal(request *webhook.Request, outcome webhook.Outcome, code int, text string) webhook.Decision {
	return webhook.Decision{
		ID: request.ID(), Outcome: outcome, Code: code, Message: text + "\ndecision " + request.ID(),
	}
}

// logDecision writes the one line of a decision: what it was about and what came of it, never an env value.
func (h *reviews) logDecision(ctx context.Context, request *webhook.Request, d webhook.Decision, elapsed time.Duration) {
	if !h.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := []slog.Attr{
		slog.String("path", h.flow.path), slog.String("id", d.ID), slog.String("uid", request.UID),
		slog.String("operation", string(request.Operation)), slog.String("namespace", request.Namespace),
		slog.String("kind", request.Kind), slog.String("name", cmp.Or(d.Name, request.Name)), slog.String("user", request.User.Name),
		slog.String("decision", string(d.Outcome)), slog.Duration("duration", elapsed),
	}
	if len(d.Images) > 0 {
		images := make([]string, len(d.Images))
		for i, image := range d.Images {
			images[i] = image.Describe()
		}
		attrs = append(attrs, slog.Any("image", images))
	}
	if len(d.Findings) > 0 {
		attrs = append(attrs, slog.Any("rule", records(d.Findings)))
	}
	if len(d.Exempted) > 0 {
		attrs = append(attrs, slog.Any("exemption", d.Exempted))
	}
	if d.Err != nil {
		attrs = append(attrs, slog.String("error", d.Err.Error()))
	}
	h.log.LogAttrs(ctx, slog.LevelInfo, "decision", attrs...)
}

// record is a finding in log and audit annotation.
type record struct {
	Rule      string       `json:"rule"`
	Mode      webhook.Mode `json:"mode"`
	Where     string       `json:"where,omitempty"`
	Image     string       `json:"image,omitempty"`
	Message   string       `json:"message"`
	Exemption string       `json:"exemption,omitempty"`
}

func records(findings []webhook.Finding) []record {
	list := make([]record, len(findings))
	for i, f := range findings {
		list[i] = record{Rule: f.Rule, Mode: f.Mode, Message: f.Message, Exemption: f.Exemption}
		if f.Image != nil {
			list[i].Where, list[i].Image = f.Image.Where, f.Image.Describe()
		}
	}
	return list
}

// recordsJSON is the list for an audit annotation.
func recordsJSON(findings []webhook.Finding) string {
	const max = 32 << 10
	text, err := json.Marshal(records(findings))
	for err == nil && len(text) > max {
		findings = findings[:len(findings)/2]
		text, err = json.Marshal(records(findings))
	}
	return string(text)
}
