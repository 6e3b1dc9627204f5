package webhook

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
)

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
		if rule.Needs != 0 && !rule.Off && v.mode(rule.Name) != Off && exemption(image, rule.Name) == "" {
			needs |= rule.Needs
		}
	}
	if image.User.Known {
		needs &^= FactUser
	}
	if len(image.Entry.Signed) == 0 {
		needs &^= FactSignatures
	}
	if len(v.attestations(image)) == 0 {
		needs &^= FactAttestations
	}
	if len(image.Entry.Bases) == 0 {
		needs &^= FactDerivedFrom
	}
	decorated := image.Ref.Tag != "" && image.Ref.Digest != "" && (image.Entry.Tags == nil || !image.Entry.Tags.Digest)
	locked := image.Ref.Digest == "" && image.Entry.Golden != nil && image.Entry.Golden.Follow == "locked"
	if !decorated && !locked {
		needs &^= FactTagDigest
	}
	return needs
}

// attestations are what has to be attested of an image by the configuration, and the types that rules in force name
// besides.
func (v *review) attestations(image *Image) []AttestationRule {
	all := image.Entry.Attested
	for _, rule := range v.Rules {
		if len(rule.Attested) == 0 || rule.Off || v.mode(rule.Name) == Off || exemption(image, rule.Name) != "" {
			continue
		}
		for _, predicateType := range rule.Attested {
			if !slices.ContainsFunc(all, func(r AttestationRule) bool { return r.PredicateType == predicateType }) {
				all = append(all[:len(all):len(all)], AttestationRule{PredicateType: predicateType})
			}
		}
	}
	return all
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
	task(FactAttestations, func() error {
		attested, err := v.attest(ctx, pinned, v.attestations(image))
		if err == nil {
			image.Attested = &attested
		}
		return err
	})
	task(FactTagDigest, func() error {
		content, err := v.readImage(ctx, image.Ref.WithTag(image.Ref.Tag), DigestOnly)
		if err == nil {
			image.TagDigest, image.Stale = content.Digest, content.Stale
			if content.Before == image.Ref.Digest {
				image.TagDigest = content.Before // pinned by who has not heard yet that the tag has moved
			}
		}
		return err
	})
	if len(tasks) > 0 {
		parallel(len(tasks), tasks)
	}
	if needs&FactDerivedFrom != 0 && image.Content != nil && len(image.Content.Platforms) > 0 {
		derived, err := v.derive(ctx, image)
		if err != nil {
			image.Unknown = append(image.Unknown, unknownOf(FactDerivedFrom, image.Ref, err))
			return
		}
		image.Derived = derived
	}
}
