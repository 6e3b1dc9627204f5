package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/source"
)

// doctorPods sums up the pods of the namespaces in scope.
type doctorPods struct {
	Judged    int `json:"judged"`
	Distinct  int `json:"distinct"` // how many of them had to be judged
	Allowed   int `json:"allowed"`
	Refused   int `json:"refused"`
	Undecided int `json:"undecided"`
}

// A doctorRefusal is what one rule has against one image, in all pods together.
type doctorRefusal struct {
	Rule       string   `json:"rule"`
	Image      string   `json:"image"` // "" for what is no image's fault
	Message    string   `json:"message"`
	Fix        string   `json:"fix"`
	Pods       int      `json:"pods"`
	Namespaces []string `json:"namespaces"`
	Example    string   `json:"example"` // "NAMESPACE/POD WHERE"
	Undecided  bool     `json:"undecided"`
}

// A podGroup is the pods that differ in nothing that a rule could look at.
type podGroup struct {
	object source.Object
	pods   int
	result checkResult
}

// judgePods judges the pods in scope as if they were created now, under mode enforce.
func (d *doctor) judgePods(ctx context.Context, inScope func(namespace string) bool) {
	const check = "pods"
	if d.checker == nil {
		d.report.add(check, doctorUnknown, "pods cannot be judged without a configuration", "")
		return
	}
	groups, err := d.groupPods(ctx, inScope)
	if err != nil {
		d.report.failed(check, "the pods", err)
		return
	}
	progress := newProgress(d.io.err, len(groups))
	var together errgroup.Group
	together.SetLimit(atOnce)
	for _, g := range groups {
		together.Go(func() error {
			g.result = d.checker.judge(ctx, "cluster", &g.object)
			progress.step()
			return ctx.Err()
		})
	}
	err = together.Wait()
	progress.end()
	if err != nil {
		return // the user has ended it
	}
	d.report.Pods = sumPods(groups)
	d.report.Refusals = refusalsOf(groups)
	d.reportPods(check)
}

// groupPods reads all pods and puts those together that are alike.
func (d *doctor) groupPods(ctx context.Context, inScope func(namespace string) bool) ([]*podGroup, error) {
	var groups []*podGroup
	known := map[[sha256.Size]byte]*podGroup{}
	err := d.inspector.Pods(ctx, func(text json.RawMessage) error {
		var pod struct {
			Metadata struct {
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(text, &pod); err != nil {
			return err
		}
		if !inScope(pod.Metadata.Namespace) {
			return nil
		}
		namespace, name := pod.Metadata.Namespace, pod.Metadata.Name
		created, err := asCreated(text)
		if err != nil {
			return err
		}
		key := sha256.Sum256(created)
		if g := known[key]; g != nil {
			g.pods++
			return nil
		}
		g := &podGroup{pods: 1, object: source.Object{
			Kind: "Pod", Namespace: namespace, Name: name,
			Request: &webhook.Request{
				UID: "doctor " + namespace + "/" + name, Operation: webhook.Create, Version: "v1", Kind: "Pod",
				Namespace: namespace, Name: name, Object: created,
			},
		}}
		known[key], groups = g, append(groups, g)
		return nil
	})
	return groups, err
}

// asCreated is the pod as its template makes it: without its name, its status, and all else that only it has. Everything
// else may be of interest to a rule.
func asCreated(text []byte) ([]byte, error) {
	var pod map[string]any
	if err := json.Unmarshal(text, &pod); err != nil {
		return nil, err
	}
	delete(pod, "status")
	metadata, _ := pod["metadata"].(map[string]any)
	for _, member := range []string{"name", "uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"} {
		delete(metadata, member)
	}
	labels, _ := metadata["labels"].(map[string]any)
	for _, label := range []string{
		"pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name",
		"apps.kubernetes.io/pod-index", "batch.kubernetes.io/controller-uid", "controller-uid", "batch.kubernetes.io/job-completion-index",
	} {
		delete(labels, label)
	}
	spec, _ := pod["spec"].(map[string]any)
	for _, member := range []string{"nodeName", "hostname"} {
		delete(spec, member)
	}
	// The volume of the token has a random name, and so have its mounts.
	withoutTokens(spec, "volumes")
	for _, list := range []string{"initContainers", "containers", "ephemeralContainers"} {
		containers, _ := spec[list].([]any)
		for _, c := range containers {
			if container, ok := c.(map[string]any); ok {
				withoutTokens(container, "volumeMounts")
			}
		}
	}
	return json.Marshal(pod)
}

func withoutTokens(of map[string]any, member string) {
	items, ok := of[member].([]any)
	if !ok {
		return
	}
	of[member] = slices.DeleteFunc(items, func(item any) bool {
		named, _ := item.(map[string]any)
		name, _ := named["name"].(string)
		return strings.HasPrefix(name, "kube-api-access-")
	})
}

func sumPods(groups []*podGroup) doctorPods {
	sum := doctorPods{Distinct: len(groups)}
	for _, g := range groups {
		sum.Judged += g.pods
		switch g.result.Decision {
		case checkAllowed:
			sum.Allowed += g.pods
		case checkDenied:
			sum.Refused += g.pods
		default:
			sum.Undecided += g.pods
		}
	}
	return sum
}

// refusalsOf gathers by rule and image what keeps pods from being allowed, the most frequent first.
func refusalsOf(groups []*podGroup) []doctorRefusal {
	known := map[[2]string]*doctorRefusal{}
	for _, g := range groups {
		if g.result.Decision == checkAllowed {
			continue
		}
		if !slices.ContainsFunc(g.result.Findings, func(f checkFinding) bool { return f.Mode == string(webhook.Enforce) }) {
			known[[2]string{"", g.result.Message}] = gather(known[[2]string{"", g.result.Message}], g, checkFinding{Message: g.result.Message})
		}
		seen := map[[2]string]bool{} // one pod counts once, however many of its containers have the image
		for _, f := range g.result.Findings {
			key := [2]string{f.Rule, f.Image}
			if f.Mode != string(webhook.Enforce) || seen[key] {
				continue
			}
			seen[key] = true
			known[key] = gather(known[key], g, f)
		}
	}
	refusals := []doctorRefusal{}
	for _, r := range known {
		slices.Sort(r.Namespaces)
		refusals = append(refusals, *r)
	}
	total := map[string]int{}
	for _, r := range refusals {
		total[r.Rule] += r.Pods
	}
	slices.SortFunc(refusals, func(a, b doctorRefusal) int {
		return cmp.Or(total[b.Rule]-total[a.Rule], cmp.Compare(a.Rule, b.Rule), b.Pods-a.Pods, cmp.Compare(a.Image, b.Image), cmp.Compare(a.Message, b.Message))
	})
	return refusals
}

// gather adds the pods of a group to a refusal, nil for none yet.
func gather(r *doctorRefusal, g *podGroup, f checkFinding) *doctorRefusal {
	if r == nil {
		r = &doctorRefusal{
			Rule: f.Rule, Image: f.Image, Message: f.Message, Fix: f.Fix, Undecided: g.result.Decision == checkUndecided,
			Example: strings.TrimSpace(g.object.Namespace + "/" + g.object.Name + " " + f.Where), Namespaces: []string{},
		}
	}
	r.Pods += g.pods
	if !slices.Contains(r.Namespaces, g.object.Namespace) {
		r.Namespaces = append(r.Namespaces, g.object.Namespace)
	}
	return r
}

// reportPods words the preview.
func (d *doctor) reportPods(check string) {
	p := d.report.Pods
	offline := ""
	if !d.online {
		offline = ", as far as that can be told offline"
	}
	if p.Refused > 0 {
		fix := "change their images or configure exemptions before the mode is enforce"
		if d.mode == webhook.Enforce {
			fix = "they run on; when they are made again, they are refused"
		}
		d.report.add(check, doctorProblem, fmt.Sprintf("%d of %s in scope would be refused under mode enforce%s", p.Refused, plural(p.Judged, "running pod"), offline), fix)
	}
	if p.Undecided > 0 {
		d.report.add(check, doctorUnknown, fmt.Sprintf("%d of %s in scope could not be judged", p.Undecided, plural(p.Judged, "running pod")), "see below why")
	}
	switch {
	case p.Judged == 0:
		d.report.add(check, doctorOK, "no pod runs in scope", "")
	case p.Refused+p.Undecided == 0:
		d.report.add(check, doctorOK, fmt.Sprintf("all of %s in scope would be allowed under mode enforce%s", plural(p.Judged, "running pod"), offline), "")
	}
}
