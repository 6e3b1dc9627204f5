package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hallmark-admission/hallmark/webhook"
)

// encode writes the answer to a review.
func encode(request *webhook.Request, d webhook.Decision) ([]byte, error) {
	response := &admissionv1.AdmissionResponse{
		UID: types.UID(request.UID), Allowed: d.Allow(), Warnings: d.Warnings,
	}
	if len(d.Patch) > 0 {
		patchType := admissionv1.PatchTypeJSONPatch
		response.Patch, response.PatchType = d.Patch, &patchType
	}
	if annotations := auditAnnotations(d); len(annotations) > 0 || !response.Allowed {
		response.AuditAnnotations = annotations
		annotations["decision"], annotations["id"] = string(d.Outcome), d.ID
	}
	if !response.Allowed {
		response.Result = &metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
			Status:   metav1.StatusFailure, Code: int32(d.Code), Reason: reason(d.Code), Message: d.Message,
		}
	}
	return json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Response: response,
	})
}

// auditAnnotations are what the audit log of the API server is told of a decision that is worth a look.
func auditAnnotations(d webhook.Decision) map[string]string {
	annotations := map[string]string{}
	if len(d.Findings) > 0 {
		annotations["findings"] = recordsJSON(d.Findings)
	}
	if len(d.Exempted) > 0 {
		annotations["exemptions"] = strings.Join(d.Exempted, ", ")
	}
	if stale := staleImages(d.Images); stale != "" {
		annotations["stale"] = stale
	}
	return annotations
}

// staleImages names the images whose tags could not be looked up, and the time of the answer that was used instead.
func staleImages(images []*webhook.Image) string {
	var list []string
	for _, image := range images {
		if !image.Stale.IsZero() {
			list = append(list, image.Describe()+" as of "+image.Stale.UTC().Format(time.RFC3339))
		}
	}
	return strings.Join(list, ", ")
}

// reason is what kubectl prints in parentheses.
func reason(code int) metav1.StatusReason {
	switch code {
	case http.StatusForbidden:
		return metav1.StatusReasonForbidden
	case http.StatusServiceUnavailable:
		return metav1.StatusReasonServiceUnavailable
	}
	return metav1.StatusReasonInternalError
}
