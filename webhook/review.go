package webhook

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
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
	Suggest     Suggester // may be nil
	Rewrite     Rewriter  // may be nil
	Puller      Puller    // for objects that have credentials of their own; nil: Reader and Verifier for all
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
		{"Reader", config.Reader == nil}, {"Verifier", config.Verifier == nil}, {"Now", config.Now == nil},
		{"Rules", len(config.Rules) == 0},
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
	if err != nil {
		return review.failed(err)
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
}

// begin decodes, selects and catalogues. It returns a decision instead when there is nothing to judge, or nothing that
// can be.
func (r *Reviewer) begin(request *Request, mutating bool) (*review, *Decision) {
	v := &review{Reviewer: r, request: request}
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
	object, err := readObject(kind, request.Object)
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
		object, err := readObject(v.object.kind, v.request.OldObject)
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
	return v.judge(ctx, LatePhase, images)
}

// judge gives every finding its mode, and drops those that no rule's mode or an exemption lets stand.
func (v *review) judge(ctx context.Context, phase Phase, images []*Image) ([]Finding, error) {
	findings, err := v.Judge.Judge(ctx, phase, &Input{Request: v.request, Workspace: v.workspace, Images: images})
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
		}
		kept = append(kept, f)
	}
	return kept, nil
}

func (v *review) mode(rule string) Mode { return v.Modes.Mode(rule, v.request.Namespace) }

// exemption is the name of the first exemption that takes the rule away from the image.
func exemption(image *Image, rule string) string {
	if image == nil {
		return ""
	}
	for _, e := range image.Entry.Exemptions {
		for _, r := range e.Rules {
			if r == rule {
				return e.Name
			}
		}
	}
	return ""
}

// mayContact says whether the registry of an image may be asked for it.
func (i *Image) mayContact() bool {
	return i.Error == "" && !i.denied && i.Entry.Registry.Host && i.Entry.Registry.Repository
}

// needs gives the facts about an image that some rule in force, and not exempted for it, needs to have fetched.
func (v *review) needs(image *Image) Fact {
	if image.Error != "" || image.denied {
		return 0
	}
	var needs Fact
	for _, rule := range v.Rules {
		if rule.Needs != 0 && v.mode(rule.Name) != Off && exemption(image, rule.Name) == "" {
			needs |= rule.Needs
		}
	}
	if image.User.Known {
		needs &^= FactUser
	}
	if len(image.Entry.Signed) == 0 {
		needs &^= FactSignatures
	}
	decorated := image.Ref.Tag != "" && image.Ref.Digest != "" && (image.Entry.Tags == nil || !image.Entry.Tags.Digest)
	locked := image.Ref.Digest == "" && image.Entry.Golden != nil && image.Entry.Golden.Follow == "locked"
	if !decorated && !locked {
		needs &^= FactTagDigest
	}
	return needs
}

// writtenAgain says that an UPDATE writes the tag of what runs there already under its digest, as kubectl apply does.
func (i *Image) writtenAgain() bool {
	return i.before.Digest != "" && i.before.WithTag(i.before.Tag) == i.Ref
}

// keepsDigest says that the catalogue has such an image keep its digest.
func (i *Image) keepsDigest() bool {
	golden := i.Entry.Golden
	return golden != nil && golden.Follow == "sticky" && i.writtenAgain()
}

// unpinned says that the pinning half should have given the image a digest.
func (v *review) unpinned(image *Image) bool {
	return v.object.kind.isPod && v.Pin == PinRewrite && image.Ref.Digest == "" && !image.Ref.IsZero()
}

// each runs f for every image that is judged, some at the same time.
func (v *review) each(f func(*Image)) {
	tasks := make([]func(), len(v.changed))
	for i, image := range v.changed {
		tasks[i] = func() { f(image) }
	}
	parallel(v.Concurrency, tasks)
}

// parallel runs tasks, at most limit at the same time, and waits for all. A panic in one is raised again here, on the
// goroutine of the request, where the server contains it.
func parallel(limit int, tasks []func()) {
	if len(tasks) == 1 {
		tasks[0]()
		return
	}
	var group sync.WaitGroup
	var panicked atomic.Value
	slots := make(chan struct{}, limit)
	for _, task := range tasks {
		slots <- struct{}{}
		group.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					panicked.CompareAndSwap(nil, fmt.Sprintf("%v\n%s", p, debug.Stack()))
				}
				<-slots
			}()
			task()
		})
	}
	group.Wait()
	if p := panicked.Load(); p != nil {
		panic(p)
	}
}

func (v *review) readDigest(ctx context.Context, image *Image) {
	content, err := v.readImage(ctx, image.Ref, DigestOnly)
	if err != nil {
		image.Unknown = append(image.Unknown, unknownOf(FactImage, image.Ref, err))
		return
	}
	image.Content, image.Stale = content, content.Stale
}

// fetch fills in the facts that are needed. The image comes first, since a tag must become a digest; what a digest
// needs is then fetched side by side.
func (v *review) fetch(ctx context.Context, image *Image, needs Fact) {
	if !image.mayContact() {
		reason := image.Ref.Registry + " is not a registry that Hallmark may contact"
		image.Unknown = append(image.Unknown, Unknown{Fact: needs | FactImage, Reason: reason, Refused: true})
		return
	}
	if image.Ref.Digest == "" {
		if v.readDigest(ctx, image); image.Content == nil {
			image.Unknown[len(image.Unknown)-1].Fact |= needs
			return
		}
	}
	if image.Ref.Digest == "" {
		image.TagDigest = image.Content.Digest
		needs &^= FactTagDigest
	}
	pinned := image.Ref.WithDigest(image.Digest())
	var tasks []func()
	var mutex sync.Mutex
	task := func(facts Fact, f func() error) {
		if facts &= needs; facts == 0 {
			return
		}
		tasks = append(tasks, func() {
			if err := f(); err != nil {
				mutex.Lock()
				defer mutex.Unlock()
				image.Unknown = append(image.Unknown, unknownOf(facts, image.Ref, err))
			}
		})
	}
	task(FactImage|FactUser|FactDerivedFrom, func() error {
		content, err := v.readImage(ctx, pinned, WithConfig)
		if err == nil {
			image.Content = content
			image.User = userFromImage(image)
		}
		return err
	})
	task(FactSignatures, func() error {
		signatures, err := v.verify(ctx, pinned, image.Entry.Signed)
		if err == nil {
			image.Signatures = &signatures
		}
		return err
	})
	task(FactTagDigest, func() error {
		content, err := v.readImage(ctx, image.Ref.WithTag(image.Ref.Tag), DigestOnly)
		if err == nil {
			image.TagDigest, image.Stale = content.Digest, content.Stale
		}
		return err
	})
	if len(tasks) > 0 {
		parallel(len(tasks), tasks)
	}
}
