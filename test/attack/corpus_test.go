package attack

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/yaml"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// corpus is a directory of real workspace manifests, where one lies beside the repository.
const corpus = "../../../shared/corpus"

// TestCorpus judges real manifests: every one gets an answer that is a decision and no fault, in a message that keeps
// its limits, and no secret of theirs gets out. None of their images is allowed here, so nothing may be contacted.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(corpus, "*-*.*"))
	if err != nil || len(files) == 0 {
		t.Skip("no corpus of real manifests lies beside the repository")
	}
	w := newWorld(t, registrytest.Config{}, nil)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if text, err = yaml.YAMLToJSON(text); err != nil {
				t.Fatal(err)
			}
			var head struct{ Kind string }
			if err := json.Unmarshal(text, &head); err != nil {
				t.Fatal(err)
			}
			var a servertest.Admission
			if head.Kind == "AdmissionReview" {
				a = w.post(t, text)
			} else {
				a = w.admitObject(t, servertest.Object{JSON: text})
			}
			if a.Code == http.StatusInternalServerError || strings.Contains(a.Message, "malformed") {
				t.Errorf("code %d:\n%s", a.Code, a.Message)
			}
			checkMessage(t, a.Message)
			if strings.Contains(a.Message, "00000000-0000-4000-8000") {
				t.Errorf("a token is in the message:\n%s", a.Message)
			}
			switch head.Kind {
			case "Pod", "Deployment", "StatefulSet", "DaemonSet":
				if a.Allowed {
					t.Errorf("allowed, though none of its images is")
				}
			}
		})
	}
	w.noRequests(t)
	if strings.Contains(w.Log(), "00000000-0000-4000-8000") || strings.Contains(w.Log(), "panic") {
		t.Error("the log has a token or a panic")
	}
}

// post sends a recorded review to the validating half as it is.
func (w world) post(t *testing.T, review []byte) servertest.Admission {
	t.Helper()
	status, text, err := w.Client.Post(t.Context(), "/validate", review)
	if err != nil || status != http.StatusOK {
		t.Fatalf("%d %s %v", status, text, err)
	}
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	a := servertest.Admission{Allowed: answer.Response.Allowed}
	if answer.Response.Result != nil {
		a.Code, a.Message = answer.Response.Result.Code, answer.Response.Result.Message
	}
	return a
}
