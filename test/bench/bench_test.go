package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook"
)

// TestOptions: every mistake is reported, and all at once.
func TestOptions(t *testing.T) {
	_, _, err := parse([]string{"-images=9", "-o=yaml", "-bursts=0", "lukewarm"}, io.Discard, io.Discard)
	for _, want := range []string{`there is no scenario "lukewarm"`, "-images is 1 to 5", "-o is text or json", "-rate and -bursts"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error:\n got %v\nwant %q in it", err, want)
		}
	}
	if _, _, err := parse([]string{"-concurrency=1,none"}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), `"none" is no number of clients`) {
		t.Errorf("clients: got %v", err)
	}
	if o, names, err := parse([]string{"-concurrency=2,4"}, io.Discard, io.Discard); err != nil || len(o.concurrency) != 2 || strings.Join(names, " ") != "warm cold" {
		t.Errorf("defaults: got %v, %v, %v", o.concurrency, names, err)
	}
}

// TestTemplate: what is filled in is a review that both decoders read, of a pod that Kubernetes reads, of the size asked for.
func TestTemplate(t *testing.T) {
	for _, size := range []int{4 << 10, 20 << 10} {
		pod, err := harness.Pod([]string{"r.example/a:v1.0.0", "r.example/b:v1.0.0"}, size)
		if err != nil {
			t.Fatal(err)
		}
		if len(pod) < size*9/10 || len(pod) > size*11/10 {
			t.Errorf("a pod of %d bytes, want about %d", len(pod), size)
		}
		var typedPod corev1.Pod
		strict := json.NewDecoder(bytes.NewReader(pod))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&typedPod); err != nil {
			t.Errorf("the pod is none: %v", err)
		}
		template, err := newTemplate(pod)
		if err != nil {
			t.Fatal(err)
		}
		body, uid := template.fill(42, 1)
		if other, _ := template.fill(43, 1); len(other) != len(body) || bytes.Equal(other, body) {
			t.Error("pods 42 and 43 do not differ in name and uid alone")
		}
		var review admissionv1.AdmissionReview
		if err := json.Unmarshal(body, &review); err != nil {
			t.Fatal(err)
		}
		if r := review.Request; string(r.UID) != uid || r.Name != "workspace-0000000042" || r.Resource.Resource != "pods" {
			t.Errorf("got uid %s and name %s of %s", r.UID, r.Name, r.Resource.Resource)
		}
		request, err := webhook.ReadReview(body)
		if err != nil || request.UID != uid || request.Name != "workspace-0000000042" || !bytes.Contains(request.Object, []byte(request.Name)) {
			t.Errorf("read %+v, %v", request, err)
		}
		for name, decode := range map[string]decoder{"typed": typed, "lean": lean} {
			if got, err := decode(body); err != nil || got != uid {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
		}
	}
}

// TestUsed: a process that computes has used that time.
func TestUsed(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("it needs /proc")
	}
	self := &target{name: "self", command: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}}
	before, err := self.used()
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		now, err := self.used()
		if err != nil {
			t.Fatal(err)
		}
		if now.cpu-before.cpu >= 50*time.Millisecond {
			if now.rss < 1<<20 || now.peak < now.rss/2 {
				t.Errorf("%d bytes resident, %d at most", now.rss, now.peak)
			}
			return
		}
	}
	t.Error("ten seconds of computing are not in the account")
}

// TestReport: the ratio is to the cheaper floor, and survives a floor too short to measure.
func TestReport(t *testing.T) {
	of := func(cpu, took time.Duration) turn {
		one := turn{cpu: cpu, wall: time.Second}
		one.add(sample{took: took, outcome: allowed, reviews: 2})
		return one
	}
	var r report
	r.row("warm", 0, 1, "hallmark", of(800*time.Microsecond, 6*time.Millisecond))
	r.row("warm", 0, 1, "floor, typed", of(400*time.Microsecond, 2*time.Millisecond))
	r.row("warm", 0, 1, "floor, lean", of(200*time.Microsecond, 3*time.Millisecond))
	r.compare("warm", 0, 1)
	refused := of(0, time.Millisecond)
	refused.add(sample{outcome: denied, says: "Image x is not allowed.\nmore"})
	r.row("cold", 0, 1, "hallmark", refused)
	r.row("cold", 0, 1, "floor, lean", of(0, time.Millisecond))
	r.compare("cold", 0, 1)
	if len(r.Ratios) != 1 || r.Ratios[0].CPU != 4 || r.Ratios[0].P50 != 2 || r.Ratios[0].Floor != "floor, lean" {
		t.Errorf("ratios: %+v", r.Ratios)
	}
	r.note("herd: %d requests", 3)
	var text, encoded strings.Builder
	if err := r.text(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"× 4.00", "1 denied", "cold, hallmark: denied: Image x is not allowed.\n", "herd: 3 requests"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
	if err := r.json(&encoded); err != nil || !strings.Contains(encoded.String(), `"cpuMicrosecondsAReview": 400`) {
		t.Errorf("got %s, %v", encoded.String(), err)
	}
}

// TestQuantile is of the pods in order.
func TestQuantile(t *testing.T) {
	var all turn
	for i := range 100 {
		all.add(sample{took: time.Duration(100-i) * time.Millisecond, outcome: allowed})
	}
	for q, want := range map[float64]time.Duration{0.5: 51, 0.99: 100, 1: 100} {
		if got := all.quantile(q); got != want*time.Millisecond {
			t.Errorf("quantile %v: got %v, want %d ms", q, got, want)
		}
	}
}
