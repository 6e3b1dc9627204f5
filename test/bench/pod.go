package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// What stands in a template where the name and the uid of a pod go. Both keep their length.
const (
	namePlace = harness.PodName
	uidPlace  = "00000000-0000-4000-8000-0000000a110c"
)

// A template is an AdmissionReview in which name and uid can be exchanged without encoding it again, so that the load
// program takes as little as possible of a machine that the server runs on as well.
type template struct {
	object []byte
	body   []byte
	names  []int // where the name stands in body
	uids   []int
}

func newTemplate(object []byte) (*template, error) {
	review, err := servertest.NewReview(uidPlace, servertest.Object{JSON: object, User: authenticationv1.UserInfo{
		Username: "system:serviceaccount:coder:coder", UID: "0d1c9f26-61a6-4c77-ae0b-3e9d4a5f8f8e",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:coder", "system:authenticated"},
		Extra:  map[string]authenticationv1.ExtraValue{"authentication.kubernetes.io/credential-id": {"JTI=8f3b2ad6-5d4d-4bd8-9d0f-2a8d8ed5e8b7"}},
	}})
	if err != nil {
		return nil, err
	}
	// What kube-apiserver says besides (k8s.io/apiserver, webhook/request/admissionreview.go).
	r := review.Request
	r.RequestKind = &r.Kind
	r.Resource = metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
	r.RequestResource = &r.Resource
	r.Options = runtime.RawExtension{Raw: []byte(`{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1","fieldManager":"terraform-provider-kubernetes"}`)}
	t := &template{object: object}
	if t.body, err = json.Marshal(review); err != nil {
		return nil, err
	}
	t.names, t.uids = places(t.body, namePlace), places(t.body, uidPlace)
	return t, nil
}

func places(text []byte, part string) (at []int) {
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte(part))
		if i < 0 {
			return at
		}
		at = append(at, from+i)
		from += i + len(part)
	}
}

// fill is the review of pod n, with the uid of the half that it is sent to.
func (t *template) fill(n uint64, half int) (body []byte, uid string) {
	body = bytes.Clone(t.body)
	name := fmt.Sprintf("workspace-%010d", n%1e10)
	uid = fmt.Sprintf("%08x-0000-4000-800%d-%012x", uint32(n), half, n>>32)
	for _, at := range t.names {
		copy(body[at:], name)
	}
	for _, at := range t.uids {
		copy(body[at:], uid)
	}
	return body, uid
}
