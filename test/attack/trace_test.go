package attack

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	trace "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// attributesOf are those of a span.
func attributesOf(s *trace.Span) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		all[a.Key] = a.Value.GetStringValue()
	}
	return all
}

func namesOf(spans []*trace.Span) (names []string) {
	for _, s := range spans {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return names
}

// TestTraces: a review is a span below the API server's, with what it waited for below it, and without any value of an
// env variable.
func TestTraces(t *testing.T) {
	collector := harness.NewCollector()
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=prod")
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Registry.Close()
	hook, err := harness.Serve(t.Context(), binary, f)
	if err != nil {
		t.Fatal(err)
	}
	w := world{f, hook}
	const traceID, apiServer = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	pod := w.pod(image(w.Pinned("golden/ws:v1.0.0")))
	pod["spec"].(object)["containers"].([]any)[0].(object)["env"] = []any{object{"name": "CODER_AGENT_TOKEN", "value": "s3cr3t-t0ken"}}
	review, err := servertest.NewReview("705ab4f5-6393-11e8-b7cc-42010a800002", servertest.Object{JSON: encode(t, pod)})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+"/validate", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("traceparent", "00-"+traceID+"-"+apiServer+"-01")
	if status, text, err := w.Client.Do(request); err != nil || status != http.StatusOK || !strings.Contains(string(text), `"allowed":true`) {
		t.Fatalf("%d %s %v", status, text, err)
	}
	allowed().check(t, w.admit(t, w.pod())) // with traces of its own
	if err := hook.Stop(); err != nil {     // which sends the rest
		t.Fatalf("stop: %v\n%s", err, hook.Log())
	}
	above, _ := hex.DecodeString(apiServer)
	reviews := collector.Spans(above)
	if len(reviews) != 1 || reviews[0].Name != "validate" || hex.EncodeToString(reviews[0].TraceId) != traceID {
		t.Fatalf("below the API server's span: %v", reviews)
	}
	if a := attributesOf(reviews[0]); a["hallmark.decision"] != "allowed" || a["hallmark.uid"] != "705ab4f5-6393-11e8-b7cc-42010a800002" || a["k8s.namespace.name"] != "team" {
		t.Errorf("the review has %v", a)
	}
	parts := collector.Spans(reviews[0].SpanId)
	// The second thing that is read is what the tag names now.
	if got, want := namesOf(parts), []string{"judge", "judge", "read", "read", "select", "verify"}; !slices.Equal(got, want) {
		t.Errorf("below the review: %v, want %v", got, want)
	}
	for _, part := range parts {
		requests := namesOf(collector.Spans(part.SpanId))
		switch part.Name {
		case "read", "verify":
			if !slices.Contains(requests, "registry") || !strings.HasPrefix(attributesOf(part)["hallmark.image"], w.Ref("golden/ws:v1.0.0")) {
				t.Errorf("%s has %v below it, and is %v", part.Name, requests, attributesOf(part))
			}
		default:
			if len(requests) > 0 {
				t.Errorf("%s has %v below it", part.Name, requests)
			}
		}
		if part.StartTimeUnixNano < reviews[0].StartTimeUnixNano || part.EndTimeUnixNano > reviews[0].EndTimeUnixNano {
			t.Errorf("%s is not within the review", part.Name)
		}
	}
	raw, about := collector.Raw()
	if bytes.Contains(raw, []byte("s3cr3t")) || bytes.Contains(raw, []byte("CODER_AGENT_TOKEN")) {
		t.Error("an env variable is in the traces")
	}
	if !slices.Contains(about, "service.name=hallmark") || !slices.Contains(about, "k8s.cluster.name=prod") {
		t.Errorf("they come from %v", about)
	}
}

// TestTracesThatCannotBeSent: a collector that is not there costs an admission nothing and says so in the log, and what
// cannot be done at all is said at the start.
func TestTracesThatCannotBeSent(t *testing.T) {
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Registry.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "200")
	hook, err := harness.Serve(t.Context(), binary, f)
	if err != nil {
		t.Fatal(err)
	}
	w := world{f, hook}
	allowed().check(t, w.admit(t, w.pod()))
	eventually(t, "the complaint", func() bool { return strings.Contains(w.Log(), "traces could not be sent") })
	w.sound(t)
	w.wantCleanLog(t)
	if err := hook.Stop(); err != nil {
		t.Error(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	if _, err := harness.Serve(t.Context(), binary, f); err == nil || !strings.Contains(err.Error(), `OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\"; want http/protobuf`) &&
		!strings.Contains(err.Error(), `OTEL_EXPORTER_OTLP_PROTOCOL is "grpc"; want http/protobuf`) {
		t.Errorf("with grpc: %v", err)
	}
}
