package source

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"

	"github.com/hallmark-admission/hallmark/webhook"
)

// A File is what one file holds.
type File struct {
	Name     string
	Objects  []Object // in the order of the file
	Problems []Problem
	Skipped  int // objects of kinds without images, and documents that are no Kubernetes objects
}

// An Object is something that can be judged.
type Object struct {
	Line      int // on which it begins, from 1
	Kind      string
	Namespace string
	Name      string           // "" when the API server makes one; the beginning of it when that is given
	Request   *webhook.Request // what an API server would ask about it, or has asked

	node   *yaml.Node
	before int
}

// A Problem is a part of a file that cannot be read.
type Problem struct {
	Line    int // from 1; 0 when it is about the file
	Message string
	Hint    string // what to do, "" when not known
}

// Read takes a file apart. What has no namespace of its own is taken to be meant for the given one, as kubectl does.
func Read(name string, text []byte, namespace string) File {
	r := &reader{file: File{Name: name}, namespace: namespace}
	documents(name, text, func(d document) {
		r.value(place{d.node, d.before}, d.json, typed{})
	}, r.broken)
	return r.file
}

type reader struct {
	file      File
	namespace string
	helm      bool // said already
}

// broken records a problem. A template is one for all of its documents.
func (r *reader) broken(p Problem) {
	if p.Message == helmMessage {
		if r.helm {
			return
		}
		r.helm = true
	}
	r.file.Problems = append(r.file.Problems, p)
}

// A place is where a value stands.
type place struct {
	node   *yaml.Node
	before int // lines, as in document
}

func (p place) line() int {
	if p.node == nil {
		return 0
	}
	return p.before + p.node.Line
}

// typed is apiVersion and kind.
type typed struct{ apiVersion, kind string }

// head is what tells objects apart. Values are looked at one by one, since any may be of any type.
type head struct {
	APIVersion jsontext.Value `json:"apiVersion"`
	Kind       jsontext.Value `json:"kind"`
	Metadata   jsontext.Value `json:"metadata"`
	Items      jsontext.Value `json:"items"`
}

// value reads one value of a file, or one item of a list, whose items need not say what they are.
func (r *reader) value(at place, text jsontext.Value, inherited typed) {
	var h head
	if text.Kind() != '{' || json.Unmarshal(text, &h) != nil {
		r.file.Skipped++
		return
	}
	is := typed{cmp.Or(stringOf(h.APIVersion), inherited.apiVersion), cmp.Or(stringOf(h.Kind), inherited.kind)}
	group, version := is.group()
	switch {
	case is.kind == "AdmissionReview" && group == "admission.k8s.io":
		r.review(at, text)
	case strings.HasSuffix(is.kind, "List") && h.Items.Kind() == '[':
		r.list(at, h.Items, is)
	case webhook.HasImages(group, is.kind) && version != "":
		r.object(at, text, h, is)
	default:
		r.other(at, is)
	}
}

// group and version of an apiVersion: apps/v1, or v1 of the core group.
func (t typed) group() (group, version string) {
	group, version, found := strings.Cut(t.apiVersion, "/")
	if !found {
		return "", group
	}
	return group, version
}

// stringOf gives a JSON string, "" for anything else.
func stringOf(value jsontext.Value) string {
	var s string
	if value.Kind() != '"' || json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

func (r *reader) list(at place, items jsontext.Value, is typed) {
	var list []jsontext.Value
	if err := json.Unmarshal(items, &list); err != nil {
		r.broken(Problem{Line: at.line(), Message: "items cannot be read: " + err.Error()})
		return
	}
	item := typed{}
	if kind := strings.TrimSuffix(is.kind, "List"); kind != "" {
		item = typed{is.apiVersion, kind}
	}
	nodes := childOf(at.node, "items")
	for i, text := range list {
		r.value(place{elementOf(nodes, i), at.before}, text, item)
	}
}

func (r *reader) object(at place, text jsontext.Value, h head, is typed) {
	name, namespace := nameOf(h.Metadata)
	group, version := is.group()
	o := Object{
		Line: at.line(), Kind: is.kind, Namespace: cmp.Or(namespace, r.namespace), Name: name,
		node: at.node, before: at.before,
	}
	if image := templated(at.node); image != nil {
		r.broken(Problem{Line: at.before + image.Line, Message: helmMessage, Hint: helmHint})
		return
	}
	o.Request = &webhook.Request{
		UID: fmt.Sprintf("check %s:%d %d", r.file.Name, o.Line, len(r.file.Objects)), Operation: webhook.Create,
		Group: group, Version: version, Kind: is.kind, Namespace: o.Namespace, Name: name, Object: text,
	}
	r.file.Objects = append(r.file.Objects, o)
}

// nameOf reads metadata as far as it is what it should be; the reviewer says what is not.
func nameOf(metadata jsontext.Value) (name, namespace string) {
	var meta struct {
		Name         jsontext.Value `json:"name"`
		GenerateName jsontext.Value `json:"generateName"`
		Namespace    jsontext.Value `json:"namespace"`
	}
	if metadata.Kind() != '{' || json.Unmarshal(metadata, &meta) != nil {
		return "", ""
	}
	return cmp.Or(stringOf(meta.Name), stringOf(meta.GenerateName)), stringOf(meta.Namespace)
}

// review reads what an API server has asked. It is judged as it is: its namespace is the one that it names.
func (r *reader) review(at place, text jsontext.Value) {
	request, err := webhook.ReadReview(text)
	if err == nil && request.Kind == "" {
		err = &webhook.MalformedError{Pointer: "/request/kind", Reason: "is missing"}
	}
	if err != nil {
		r.broken(Problem{Line: at.line(), Message: "is no AdmissionReview that can be judged: " + err.Error()})
		return
	}
	o := Object{
		Line: at.line(), Kind: request.Kind, Namespace: request.Namespace, Name: request.Name, Request: request,
		before: at.before,
	}
	o.node = childOf(childOf(at.node, "request"), "object")
	if o.Name == "" {
		var h head
		if json.Unmarshal(request.Object, &h) == nil {
			o.Name, _ = nameOf(h.Metadata)
		}
	}
	r.file.Objects = append(r.file.Objects, o)
}

// other passes over what has no images, but not over what once was a workload, nor over one that does not say its
// version: that it is not judged would be a surprise.
func (r *reader) other(at place, is typed) {
	group, version := is.group()
	for _, known := range []string{"", "apps", "batch"} {
		if !webhook.HasImages(known, is.kind) {
			continue
		}
		want := strings.TrimPrefix(known+"/v1", "/")
		switch {
		case is.apiVersion == "" || version == "":
			r.broken(Problem{Line: at.line(), Message: is.kind + ": apiVersion is missing", Hint: "write apiVersion: " + want})
			return
		case group == "" || group == "extensions" || group == "apps" || group == "batch":
			message := fmt.Sprintf("Kubernetes has no %s in %s", is.kind, webhook.Quote(is.apiVersion))
			r.broken(Problem{Line: at.line(), Message: message, Hint: "write apiVersion: " + want})
			return
		}
	}
	r.file.Skipped++
}
