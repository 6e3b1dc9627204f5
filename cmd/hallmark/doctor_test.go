package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hallmark-admission/hallmark/webhook/cluster"
)

// TestDoctorSchema holds the golden file, which test/cluster/e2e compares with what doctor says of a real cluster, against the
// schema that users are given.
func TestDoctorSchema(t *testing.T) {
	text, err := os.ReadFile("testdata/doctor.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, mistake := range mistakesUnder(t, "doctor.schema.json", text) {
		t.Error(mistake)
	}
	wrong := bytes.Replace(text, []byte(`"status": "ok"`), []byte(`"status": "fine"`), 1)
	if len(mistakesUnder(t, "doctor.schema.json", wrong)) == 0 {
		t.Error("a status that does not exist passes the schema")
	}
}

// TestAsCreated: what only one pod has does not make it another; what a rule could look at does.
func TestAsCreated(t *testing.T) {
	const pod = `{
		"metadata": {"name": "a-1", "uid": "1", "namespace": "ns", "labels": {"app": "a", "pod-template-hash": "1"}, "managedFields": [{}]},
		"spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x:v1", "volumeMounts": [{"name": "kube-api-access-1"}, {"name": "home"}]}],
			"volumes": [{"name": "kube-api-access-1"}, {"name": "home"}]},
		"status": {"phase": "Running"}}`
	of := func(changes ...string) string {
		t.Helper()
		created, err := asCreated([]byte(strings.NewReplacer(changes...).Replace(pod)))
		if err != nil {
			t.Fatal(err)
		}
		return string(created)
	}
	want := of()
	for name, other := range map[string]string{
		"name": of(`"a-1"`, `"a-2"`), "uid": of(`"uid": "1"`, `"uid": "2"`), "node": of(`"n1"`, `"n2"`), "status": of(`"Running"`, `"Pending"`),
		"hash": of(`"pod-template-hash": "1"`, `"pod-template-hash": "2"`), "token": of("kube-api-access-1", "kube-api-access-2"),
	} {
		if diff := cmp.Diff(want, other); diff != "" {
			t.Errorf("another %s makes another pod:\n%s", name, diff)
		}
	}
	for name, other := range map[string]string{
		"image": of("x:v1", "x:v2"), "namespace": of(`"ns"`, `"other"`), "label": of(`"app": "a"`, `"app": "b"`), "volume": of("home", "work"),
	} {
		if other == want {
			t.Errorf("another %s makes no other pod", name)
		}
	}
	if _, err := asCreated([]byte(`{"metadata": 1}`)); err != nil {
		t.Errorf("a pod without parts: %v", err)
	}
}

// TestDoctorVerdict: what is wrong counts before what is unknown, and warnings do not.
func TestDoctorVerdict(t *testing.T) {
	missing := &cluster.MissingRightError{Verb: "list", Resource: "pods", Err: errors.New("forbidden")}
	for _, tc := range []struct {
		name string
		say  func(r *doctorReport)
		want string
	}{
		{"well", func(r *doctorReport) { r.add("scope", doctorOK, "fine", "") }, ""},
		{"warned", func(r *doctorReport) { r.add("scope", doctorWarning, "hm", "") }, ""},
		{"unknown", func(r *doctorReport) { r.failed("pods", "the pods", missing) }, "1 thing could not be checked"},
		{"wrong and unknown", func(r *doctorReport) {
			r.failed("pods", "the pods", missing)
			r.add("scope", doctorProblem, "bad", "")
		}, "no"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &doctorReport{}
			tc.say(r)
			got := ""
			if err := r.verdict(); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestManyRefusals: the text shows some images of a rule and counts the others.
func TestManyRefusals(t *testing.T) {
	report := &doctorReport{}
	for i := range moreThan + 2 {
		report.Refusals = append(report.Refusals, doctorRefusal{Rule: "golden", Image: strings.Repeat("x", i+1), Pods: 1, Namespaces: []string{"a"}})
	}
	report.Refusals = append(report.Refusals, doctorRefusal{Message: "evil \x1b[2J", Pods: 1, Namespaces: []string{"a"}})
	var out bytes.Buffer
	if err := printDoctorText(&out, report); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"    and 2 further images\n", "\nrule (none)\n", `evil \x1b[2J`} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q is not in\n%s", part, &out)
		}
	}
	if n := strings.Count(out.String(), "1 pod in 1 namespace"); n != moreThan+1 {
		t.Errorf("%d images are shown, want %d", n, moreThan+1)
	}
}
