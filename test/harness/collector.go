package harness

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A Collector takes traces by OTLP over HTTP, as the OpenTelemetry collector does.
type Collector struct {
	URL    string
	server *httptest.Server

	mutex sync.Mutex
	spans []*trace.Span
	raw   []byte // of all requests
	about []string
}

// NewCollector begins to serve.
func NewCollector() *Collector {
	c := &Collector{}
	c.server = httptest.NewServer(http.HandlerFunc(c.take))
	c.URL = c.server.URL
	return c
}

func (c *Collector) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	request := &collector.ExportTraceServiceRequest{}
	if err == nil {
		err = proto.Unmarshal(body, request)
	}
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "want an ExportTraceServiceRequest", http.StatusBadRequest)
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.raw = append(c.raw, body...)
	for _, resource := range request.ResourceSpans {
		for _, a := range resource.Resource.GetAttributes() {
			c.about = append(c.about, a.Key+"="+a.Value.GetStringValue())
		}
		for _, scope := range resource.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// Spans are those that came so far, by their beginning; below the one with an id, or all for nil.
func (c *Collector) Spans(parent []byte) []*trace.Span {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	var spans []*trace.Span
	for _, s := range c.spans {
		if parent == nil || slices.Equal(s.ParentSpanId, parent) {
			spans = append(spans, s)
		}
	}
	slices.SortFunc(spans, func(a, b *trace.Span) int { return int(a.StartTimeUnixNano) - int(b.StartTimeUnixNano) })
	return spans
}

// Raw is everything that came, as it came, and About what was said of who sent it.
func (c *Collector) Raw() (raw []byte, about []string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return slices.Clone(c.raw), slices.Clone(c.about)
}

// Close ends it.
func (c *Collector) Close() { c.server.Close() }
