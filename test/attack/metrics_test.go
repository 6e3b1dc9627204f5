package attack

import (
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestMetrics: every metric that dashboards and alerts rely on is there under its name, with its labels, after a few
// reviews; and none breaks the conventions.
func TestMetrics(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	w.configure(t, func(text string) string {
		return text + "exemptions:\n  - {name: legacy, namespaces: [research], images: [\"" + w.Ref("golden/root") + "\"], rules: [user], reason: x, owner: y, expires: 2099-12-31}\n"
	})
	eventually(t, "the exemption", func() bool { return strings.Contains(w.metrics(t), "hallmark_exemption_expiry_timestamp_seconds{") })
	allowed().check(t, w.admit(t, w.pod()))
	denied().check(t, w.admit(t, w.pod(image("docker.io/library/ubuntu:latest"))))
	research := w.pod(image(w.Ref("golden/root:v1.0.0")))
	research["metadata"].(object)["namespace"] = "research"
	allowed().check(t, w.admit(t, research))
	metrics := w.metrics(t)
	host := regexp.QuoteMeta(w.Registry.Host())
	for _, want := range []string{
		`admission_requests_total\{decision="patched",path="/mutate"\} 2`,
		`admission_requests_total\{decision="allowed",path="/validate"\} 2`,
		`admission_requests_total\{decision="denied",path="/validate"\} 1`,
		`admission_requests_total\{decision="undecided",path="/validate"\} 0`,
		`admission_requests_total\{decision="error",path="/validate"\} 0`,
		`admission_duration_seconds_count\{path="/mutate"\} 3`,
		`admission_duration_seconds_count\{path="/validate"\} 3`,
		`findings_total\{mode="enforce",rule="registry"\} 1`,
		`exemptions_total\{exemption="legacy"\} 1`,
		`exemption_expiry_timestamp_seconds\{exemption="legacy"\} 4\.1\S+`,
		`registry_requests_total\{code="200",operation="manifest",registry="` + host + `"\} \d+`,
		`registry_request_duration_seconds_count\{operation="manifest",registry="` + host + `"\} \d+`,
		`cache_requests_total\{cache="tag",result="miss"\} \d+`,
		`cache_bytes\{cache="\w+"\} [0-9.e+]+`,
		`policy_info\{revision="\w+"\} 1`,
		`reloads_total\{result="success",what="config"\} 1`,
		`reloads_total\{result="failure",what="certificate"\} 0`,
		`certificate_expiry_timestamp_seconds \S+`,
		`in_flight_requests 0`, `queued_requests 0`, `panics_total 0`,
		`overload_total\{what="queue"\} 0`, `overload_total\{what="waiting"\} 0`, `overload_total\{what="bodies"\} 0`, `overload_total\{what="connections"\} 0`,
		`decision_log_events_total\{result="sent"\} 0`,
	} {
		if !regexp.MustCompile(`(?m)^hallmark_` + want + `$`).MatchString(metrics) {
			t.Errorf("there is no %s", want)
		}
	}
	var own strings.Builder
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, "hallmark_") {
			own.WriteString(line)
		}
	}
	problems, err := promlint.New(strings.NewReader(own.String())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if strings.Contains(own.String(), "golden/") || strings.Contains(own.String(), "ubuntu") {
		t.Error("an image is a label")
	}
}
