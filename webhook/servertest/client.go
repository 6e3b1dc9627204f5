package servertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// A Client asks one webhook. It may be used concurrently.
type Client struct {
	url    string
	client *http.Client
	number atomic.Uint32
}

// NewClient connects to a base URL such as https://127.0.0.1:9443, whose certificate must be one of the authorities.
func NewClient(url string, authorities []byte) (*Client, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authorities) {
		return nil, errors.New("servertest: no certificate among the authorities")
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 512,
	}
	return &Client{url: url, client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.client.CloseIdleConnections() }

// An Object is what somebody asks the API server to store.
type Object struct {
	Operation   string // CREATE when empty
	SubResource string
	JSON        []byte
	Old         []byte
	User        authenticationv1.UserInfo
	DryRun      bool
}

// An Admission is what came of an object.
type Admission struct {
	Allowed  bool
	Code     int32
	Reason   metav1.StatusReason
	Message  string
	Warnings []string
	Audit    map[string]string // annotations of the last half that answered
	Object   []byte            // with the patch applied
	Patch    []byte
	Replaced []Replacement // what the patch replaced
}

// A Replacement is one replace operation of a patch.
type Replacement struct{ Pointer, Value string }

// Admit sends an object through both halves.
func (c *Client) Admit(ctx context.Context, o Object) (Admission, error) {
	a := Admission{Object: o.JSON}
	response, err := c.Review(ctx, "/mutate", o)
	if err != nil {
		return a, err
	}
	if response.Allowed && response.Patch != nil {
		if err := a.apply(response.Patch); err != nil {
			return a, err
		}
		o.JSON = a.Object
	}
	if response.Allowed {
		warnings := response.Warnings
		if response, err = c.Review(ctx, "/validate", o); err != nil {
			return a, err
		}
		response.Warnings = append(warnings, response.Warnings...)
	}
	a.Allowed, a.Warnings, a.Audit = response.Allowed, response.Warnings, response.AuditAnnotations
	if response.Result != nil {
		a.Code, a.Reason, a.Message = response.Result.Code, response.Result.Reason, response.Result.Message
	}
	return a, nil
}

func (a *Admission) apply(text []byte) error {
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		return fmt.Errorf("decode patch: %w", err)
	}
	if a.Object, err = patch.Apply(a.Object); err != nil {
		return fmt.Errorf("apply patch %s: %w", text, err)
	}
	a.Patch = text
	for _, operation := range patch {
		if operation.Kind() != "replace" {
			continue
		}
		pointer, err := operation.Path()
		if err != nil {
			return err
		}
		value, err := operation.ValueInterface()
		if err != nil {
			return err
		}
		a.Replaced = append(a.Replaced, Replacement{pointer, fmt.Sprint(value)})
	}
	return nil
}

// Review sends an object to one half.
func (c *Client) Review(ctx context.Context, path string, o Object) (*admissionv1.AdmissionResponse, error) {
	uid := fmt.Sprintf("%08x-0000-4000-8000-000000000000", c.number.Add(1))
	review, err := NewReview(uid, o)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(review)
	if err != nil {
		return nil, err
	}
	status, text, err := c.Post(ctx, path+"?timeout=10s", body)
	if err != nil {
		return nil, err
	}
	var answer admissionv1.AdmissionReview
	if status != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d: %s", path, status, text)
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Response == nil {
		return nil, fmt.Errorf("%s answered no AdmissionReview: %s", path, text)
	}
	if string(answer.Response.UID) != uid || answer.APIVersion != "admission.k8s.io/v1" || answer.Kind != "AdmissionReview" {
		return nil, fmt.Errorf("%s answered another review: %s", path, text)
	}
	return answer.Response, nil
}

// Post sends anything and gives what came back.
func (c *Client) Post(ctx context.Context, path string, body []byte) (status int, text []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	return c.Do(request)
}

// Do sends a request and reads the answer.
func (c *Client) Do(request *http.Request) (status int, text []byte, err error) {
	response, err := c.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	return response.StatusCode, text, err
}

// NewReview wraps an object as the API server does. Kind, name and namespace are those of the object.
func NewReview(uid string, o Object) (*admissionv1.AdmissionReview, error) {
	var meta struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        struct{ Name, Namespace string }
	}
	about := o.JSON
	if len(about) == 0 {
		about = o.Old
	}
	if err := json.Unmarshal(about, &meta); err != nil {
		return nil, fmt.Errorf("decode object: %w", err)
	}
	group, version, found := strings.Cut(meta.APIVersion, "/")
	if !found {
		group, version = "", group
	}
	operation := admissionv1.Create
	if o.Operation != "" {
		operation = admissionv1.Operation(o.Operation)
	}
	return &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: types.UID(uid), Operation: operation, SubResource: o.SubResource, UserInfo: o.User, DryRun: &o.DryRun,
			Kind: metav1.GroupVersionKind{Group: group, Version: version, Kind: meta.Kind},
			Name: meta.Metadata.Name, Namespace: meta.Metadata.Namespace,
			Object: runtime.RawExtension{Raw: o.JSON}, OldObject: runtime.RawExtension{Raw: o.Old},
		},
	}, nil
}
