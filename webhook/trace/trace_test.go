package trace

import (
	"log/slog"
	"strings"
	"testing"
)

// TestWanted: the variables of the specification switch traces on and off.
func TestWanted(t *testing.T) {
	all := []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"}
	for _, tc := range []struct {
		set  []string
		want bool
	}{
		{nil, false},
		{[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318"}, true},
		{[]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:4318/v1/traces"}, true},
		{[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "OTEL_SDK_DISABLED=true"}, false},
		{[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "OTEL_TRACES_EXPORTER=none"}, false},
		{[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318", "OTEL_TRACES_EXPORTER=otlp"}, true},
	} {
		t.Run(strings.Join(tc.set, " "), func(t *testing.T) {
			for _, name := range all {
				t.Setenv(name, "")
			}
			for _, assignment := range tc.set {
				name, value, _ := strings.Cut(assignment, "=")
				t.Setenv(name, value)
			}
			if got := Wanted(); got != tc.want {
				t.Errorf("got %t, want %t", got, tc.want)
			}
		})
	}
}

// TestUnsupported: what would silently send nothing is an error that names the variable.
func TestUnsupported(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	for assignment, want := range map[string]string{
		"OTEL_TRACES_EXPORTER=zipkin":             `OTEL_TRACES_EXPORTER is "zipkin"; want otlp or none`,
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc":        `OTEL_EXPORTER_OTLP_PROTOCOL is "grpc"; want http/protobuf`,
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc": `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is "grpc"; want http/protobuf`,
	} {
		t.Run(assignment, func(t *testing.T) {
			name, value, _ := strings.Cut(assignment, "=")
			t.Setenv(name, value)
			if _, err := New(t.Context(), "v1", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}
