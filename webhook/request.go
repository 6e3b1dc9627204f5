package webhook

import (
	"fmt"
	"strings"
)

// Operation is what is done to an object: CREATE, UPDATE, DELETE or CONNECT.
type Operation string

// The operations of admission.k8s.io/v1.
const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// A Request is one admission request: what admission.k8s.io/v1 says of it, as far as a decision depends on it.
type Request struct {
	UID         string
	Operation   Operation
	Group, Kind string // of the object: "" and "Pod", "apps" and "Deployment"
	Version     string
	SubResource string // "" or "ephemeralcontainers", "status", "resize"
	Namespace   string
	Name        string // may be empty: see DisplayName
	User        RequestUser
	DryRun      bool
	Object      []byte // JSON of the object as it would be stored; nil on DELETE
	OldObject   []byte // JSON of the object before; nil on CREATE

	decoder *decoder // that read the review, for the objects in it; nil for none
}

// RequestUser is who sends the request to the API server, as the API server authenticated it.
type RequestUser struct {
	Name   string
	Groups []string
}

// ID is a short name of the decision on this request, eight hexadecimal digits, for message, log and audit record.
func (r *Request) ID() string {
	if len(r.UID) >= 8 && isHex(r.UID[:8]) {
		return r.UID[:8]
	}
	// FNV-1a, 32 bit: enough to find a line in a log.
	h := uint32(2166136261)
	for i := range len(r.UID) {
		h = (h ^ uint32(r.UID[i])) * 16777619
	}
	return fmt.Sprintf("%08x", h)
}

// A MalformedError says that a review or an object is not what it should be, and where.
type MalformedError struct {
	Pointer string // JSON pointer (RFC 6901) of the place; "" for the whole document
	Reason  string
}

// Error gives place and reason.
func (e *MalformedError) Error() string {
	if e.Pointer == "" {
		return e.Reason
	}
	return e.Pointer + ": " + e.Reason
}

// ReadReview decodes an AdmissionReview of admission.k8s.io/v1. Object and OldObject of the Request are parts of body.
// The error is a *MalformedError.
func ReadReview(body []byte) (*Request, error) {
	d := newDecoder(body)
	request := &Request{decoder: d}
	var apiVersion, kind string
	found := false
	err := d.object(reviewMembers, func(member string) (err error) {
		switch member {
		case "apiVersion":
			apiVersion, err = d.string()
		case "kind":
			kind, err = d.string()
		case "request":
			found = d.PeekKind() == '{'
			err = request.read(d)
		default:
			err = d.SkipValue()
		}
		return err
	})
	if err == nil {
		err = d.end()
	}
	switch {
	case err != nil:
		return nil, d.malformed(err)
	case kind != "AdmissionReview" || apiVersion != "admission.k8s.io/v1":
		return nil, &MalformedError{Reason: fmt.Sprintf("want kind AdmissionReview of admission.k8s.io/v1, not kind %s of %s",
			Quote(cut(kind, 64)), Quote(cut(apiVersion, 64)))}
	case !found:
		return nil, &MalformedError{Pointer: "/request", Reason: "is missing"}
	case request.UID == "":
		return nil, &MalformedError{Pointer: "/request/uid", Reason: "is missing"}
	}
	switch request.Operation {
	case Create, Update, Delete, Connect:
		return request, nil
	}
	return nil, &MalformedError{Pointer: "/request/operation", Reason: "want CREATE, UPDATE, DELETE or CONNECT"}
}

var (
	reviewMembers   = members("apiVersion", "kind", "request")
	requestMembers  = members("uid", "kind", "subResource", "name", "namespace", "operation", "userInfo", "object", "oldObject", "dryRun")
	kindMembers     = members("group", "version", "kind")
	userInfoMembers = members("username", "groups")
)

func (r *Request) read(d *decoder) error {
	return d.object(requestMembers, func(member string) (err error) {
		switch member {
		case "uid":
			r.UID, err = d.string()
		case "kind":
			err = r.readKind(d)
		case "subResource":
			r.SubResource, err = d.string()
		case "name":
			r.Name, err = d.string()
		case "namespace":
			r.Namespace, err = d.string()
		case "operation":
			var s string
			s, err = d.string()
			r.Operation = Operation(s)
		case "userInfo":
			err = r.User.read(d)
		case "object":
			r.Object, err = d.raw()
		case "oldObject":
			r.OldObject, err = d.raw()
		case "dryRun":
			r.DryRun, err = d.bool()
		default:
			err = d.SkipValue()
		}
		return err
	})
}

func (r *Request) readKind(d *decoder) error {
	return d.object(kindMembers, func(member string) (err error) {
		switch member {
		case "group":
			r.Group, err = d.string()
		case "version":
			r.Version, err = d.string()
		case "kind":
			r.Kind, err = d.string()
		default:
			err = d.SkipValue()
		}
		return err
	})
}

func (u *RequestUser) read(d *decoder) error {
	return d.object(userInfoMembers, func(member string) (err error) {
		switch member {
		case "username":
			u.Name, err = d.string()
		case "groups":
			u.Groups, err = d.strings()
		default:
			err = d.SkipValue()
		}
		return err
	})
}

// isNode says that the API server authenticated a kubelet.
func (u *RequestUser) isNode() bool {
	if !strings.HasPrefix(u.Name, "system:node:") {
		return false
	}
	for _, group := range u.Groups {
		if group == "system:nodes" {
			return true
		}
	}
	return false
}
