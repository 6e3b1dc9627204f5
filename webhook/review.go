package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Config is everything that a decision depends on. A Reviewer keeps it unchanged, so every decision is made under one
// snapshot; a reload makes a new Reviewer.
type Config struct {
	Revision    string // of policies and configuration, for message and audit record
	Rules       []Rule // that the judge knows, sorted by name
	Modes       Moder
	Judge       Judge
	Catalogue   Cataloguer
	Reader      ImageReader
	Verifier    Verifier
	Attester    Attester
	Suggest     Suggester // may be nil
	Rewrite     Rewriter  // may be nil
	Puller      Puller    // for objects that have credentials of their own; nil: Reader and Verifier for all
	BreakGlass  []string  // groups of users who may have everything admitted in an emergency
	Env         EnvImages
	Pin         PinMode
	SetUser     bool   // the mutating half sets the catalogue's uid where the pod sets no user
	HelpURL     string // for the last line of a message, "" for none
	Concurrency int    // images of one request that are read at the same time; 0 for 8
	Now         func() time.Time
}

// A Reviewer decides admission requests. It is safe for concurrent use.
type Reviewer struct{ Config }

// New checks that nothing is missing.
func New(config Config) (*Reviewer, error) {
	var errs []error
	for _, part := range []struct {
		name    string
		missing bool
	}{
		{"Modes", config.Modes == nil}, {"Judge", config.Judge == nil}, {"Catalogue", config.Catalogue == nil},
		{"Reader", config.Reader == nil}, {"Verifier", config.Verifier == nil}, {"Attester", config.Attester == nil},
		{"Now", config.Now == nil}, {"Rules", len(config.Rules) == 0},
	} {
		if part.missing {
			errs = append(errs, fmt.Errorf("reviewer: %s is missing", part.name))
		}
	}
	if config.Concurrency <= 0 {
		config.Concurrency = 8
	}
	return &Reviewer{config}, errors.Join(errs...)
}

// Mutate is the pinning half: it replaces the images of a Pod by the digests that their tags name now. It refuses
// nothing but what it cannot read; what it cannot pin, the validating half refuses with all the reasons.
func (r *Reviewer) Mutate(ctx context.Context, request *Request) Decision {
	review, done := r.begin(request, true)
	if done != nil {
		return *done
	}
	if !review.object.kind.isPod || r.Pin == PinOff {
		return review.allow()
	}
	if _, err := review.judgeEarly(ctx); err != nil {
		return review.allow() // the validating half meets the same error and refuses
	}
	review.each(func(image *Image) {
		switch {
		case image.Ref.Digest != "" || !image.mayContact():
		case image.keepsDigest():
			image.Content = &Content{Digest: image.before.Digest}
		default:
			review.readDigest(ctx, image)
			if image.Content == nil && image.Unknown[0].Retry && image.writtenAgain() {
				image.Content = &Content{Digest: image.before.Digest} // it runs already
			}
		}
	})
	return review.patched()
}

// Validate is the judging half. It trusts nothing that the pinning half or anybody else wrote into the object.
func (r *Reviewer) Validate(ctx context.Context, request *Request) Decision {
	review, done := r.begin(request, false)
	if done != nil {
		return *done
	}
	early, err := review.judgeEarly(ctx)
	switch {
	case err != nil:
		return review.failed(err)
	case review.glass:
		return review.decide(early, nil) // nothing that may not answer is waited for in an emergency
	}
	review.each(func(image *Image) {
		needs := review.needs(image)
		// What should have been pinned and is not gets read all the same, to tell the developer why.
		if needs != 0 || review.unpinned(image) && !image.denied {
			review.fetch(ctx, image, needs)
		}
	})
	late, err := review.judgeLate(ctx)
	if err != nil {
		return review.failed(err)
	}
	return review.decide(early, late)
}

// review is one request on its way to a decision.
type review struct {
	*Reviewer
	request   *Request
	object    *object
	images    []*Image // all of the object
	changed   []*Image // those that are judged
	workspace Workspace
	sources   sources
	glass     bool // somebody breaks the glass
}

// begin decodes, selects and catalogues. It returns a decision instead when there is nothing to judge, or nothing that
// can be.
func (r *Reviewer) begin(request *Request, mutating bool) (*review, *Decision) {
	v := &review{Reviewer: r, request: request, glass: r.breaksGlass(request)}
	settle := func(d Decision) (*review, *Decision) { return nil, &d }
	kind, known := podKindOf(request.Group, request.Kind)
	switch {
	case request.Operation == Delete || request.Operation == Connect:
		return settle(v.allow())
	case !known:
		d := v.allow()
		d.Warnings = []string{plain(cut("hallmark: "+request.Kind+" has no images that Hallmark knows; do not register it", 250))}
		return settle(d)
	case request.SubResource != "" && request.SubResource != "ephemeralcontainers":
		return settle(v.allow()) // status, scale, resize, binding, eviction: none can change an image
	}
	object, err := readObject(kind, request.Object, request.decoder)
	if err != nil {
		return settle(v.malformed(err))
	}
	v.object = object
	if kind.isPod && request.User.isNode() && object.meta.annotations[mirrorAnnotation] != "" {
		return settle(v.allow()) // the mirror of a static pod runs already; refusing it would only hide it
	}
	if v.images, err = selectImages(object, r.Env); err != nil {
		return settle(v.malformed(err))
	}
	if kind.isPod && len(object.spec.containers) == 0 {
		return settle(v.malformed(&MalformedError{Pointer: "/spec/containers", Reason: "a pod needs at least one container"}))
	}
	if err := v.selectChanged(); err != nil {
		return settle(v.malformed(err))
	}
	request.decoder = nil // whoever keeps the request does not keep all that came with it
	if len(v.changed) == 0 {
		return settle(v.allow())
	}
	v.workspace = workspaceOf(object)
	v.catalogue(mutating || !kind.isPod)
	return v, nil
}

// catalogue fills in what the configuration knows. Rewrites are the mutating half's, and the pods of a workload will pass
// it; a pod before the validating half has passed it already.
func (v *review) catalogue(rewrite bool) {
	for _, image := range v.changed {
		if image.Error == "" {
			if rewrite && v.Rewrite != nil && v.Pin == PinRewrite {
				image.Ref = v.Rewrite.Rewrite(image.Ref)
			}
			v.Catalogue.Catalogue(v.request, image)
		}
		image.User = userFromPod(image)
	}
}

// mirrorAnnotation marks the API server's copy of a static pod (k8s.io/api/core/v1, MirrorPodAnnotationKey).
const mirrorAnnotation = "kubernetes.io/config.mirror"

// selectChanged keeps the images that an UPDATE changes. An old object that is missing changes everything.
func (v *review) selectChanged() error {
	var old []*Image
	if v.request.Operation == Update && len(v.request.OldObject) > 0 {
		object, err := readObject(v.object.kind, v.request.OldObject, v.request.decoder)
		if err != nil {
			return err
		}
		if old, err = selectImages(object, v.Env); err != nil {
			return err
		}
	}
	markChanged(v.images, old)
	for _, image := range v.images {
		if image.Changed {
			v.changed = append(v.changed, image)
		}
	}
	return nil
}

// judgeEarly judges what needs nothing fetched, and marks the images that are denied already.
func (v *review) judgeEarly(ctx context.Context) ([]Finding, error) {
	findings, err := v.judge(ctx, EarlyPhase, v.changed)
	for i := range findings {
		if f := &findings[i]; f.Image != nil && f.Mode == Enforce && f.Rule != rulePinned {
			f.Image.denied = true
		}
	}
	return findings, err
}

// judgeLate judges what needed fetching, on the images for which it was fetched.
func (v *review) judgeLate(ctx context.Context) ([]Finding, error) {
	var images []*Image
	for _, image := range v.changed {
		if !image.denied && image.Error == "" {
			images = append(images, image)
		}
	}
	if len(images) == 0 {
		return nil, nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		// Reading took all the time. To say so, rules are judged on what there is, which takes a fraction of the margin
		// that is left for the answer.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), lateJudging)
		defer cancel()
		ctx = late
	}
	return v.judge(ctx, LatePhase, images)
}

// lateJudging is how long rules may take when the deadline has passed.
const lateJudging = 100 * time.Millisecond

// judge gives every finding its mode, and drops those that no rule's mode or an exemption lets stand.
func (v *review) judge(ctx context.Context, phase Phase, images []*Image) ([]Finding, error) {
	findings, err := v.Judge.Judge(ctx, phase, &Input{
		Request: v.request, Workspace: v.workspace, Images: images, Time: v.Now(),
	})
	if err != nil {
		return nil, err
	}
	kept := findings[:0]
	for _, f := range findings {
		if f.Mode = v.mode(f.Rule); f.Mode == Off {
			continue
		}
		if f.Warning && f.Mode == Enforce {
			f.Mode = Warn
		}
		if f.Exemption = exemption(f.Image, f.Rule); f.Exemption != "" {
			f.Mode = Audit
		} else if f.Mode != Audit {
			f.Message += lapsed(f.Image, f.Rule)
		}
		kept = append(kept, f)
	}
	return kept, nil
}

// mode is that of a rule for the request. Who breaks the glass has everything recorded, and nothing denied.
func (v *review) mode(rule string) Mode {
	mode := v.Modes.Mode(rule, v.request.Namespace)
	if v.glass && mode != Off {
		return Audit
	}
	return mode
}
