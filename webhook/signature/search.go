package signature

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-admission/hallmark/webhook"
)

const (
	// parallelPayloads bounds how many payloads of one image are read at a time.
	parallelPayloads = 8
	// maxNamed bounds how many signatures by keys that were not asked for are held against the other keys, which only
	// serves the message.
	maxNamed = 8
)

// A search looks for the signers asked for among what is attached to one digest. Its goroutines end before it does.
type search struct {
	verifier *Verifier
	binding  binding
	rules    []webhook.SignatureRule
	asked    []*signer
	now      time.Time
	ctx      context.Context //nolint:containedctx // it ends when the search does
	cancel   context.CancelFunc

	mu       sync.Mutex
	valid    []webhook.Signature
	until    time.Time
	found    int
	rejected map[reason]int
	named    int
	unlooked error // the first failure that leaves open what a signature is
}

// verifyDigest looks for signatures of one digest, in one layout after the other: first in that which had them last in
// this registry.
func (v *Verifier) verifyDigest(ctx context.Context, r request) (webhook.Signatures, error) {
	searchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &search{
		verifier: v, binding: r.binding, rules: r.rules, asked: r.asked, now: v.trust.now(), ctx: searchCtx, cancel: cancel,
		rejected: map[reason]int{},
	}
	for _, layout := range v.trust.layouts(r.binding.ref.Registry) {
		if err := s.look(layout); err != nil && s.unlooked == nil {
			s.unlooked = err
		}
		if s.complete() {
			v.trust.seen(r.binding.ref.Registry, layout)
			break
		}
		if ctx.Err() != nil {
			break
		}
	}
	return s.result(ctx)
}

// each runs f for some at a time, until the search is over.
func (s *search) each(n int, f func(i int)) {
	var group errgroup.Group
	group.SetLimit(parallelPayloads)
	for i := range n {
		if s.ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			f(i)
			return nil
		})
	}
	_ = group.Wait() // f reports nothing that way
}

// result says what was found. Nobody is told that an image is unsigned when a signature could not be looked at.
func (s *search) result(ctx context.Context) (webhook.Signatures, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.valid, bySigner)
	result := webhook.Signatures{Found: s.found, Valid: s.valid, Until: s.until}
	switch {
	case complete(s.rules, s.valid):
		// What else there is was not all looked at, and does not matter.
		return result, nil
	case ctx.Err() != nil:
		return webhook.Signatures{}, ctx.Err()
	case s.unlooked != nil:
		return webhook.Signatures{}, s.unlooked
	}
	result.Rejected = tell(s.rejected, signatureLayers.noun())
	return result, nil
}

func (s *search) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked) > 0 && complete(s.rules, s.valid)
}

// complete says whether every rule is satisfied.
func complete(rules []webhook.SignatureRule, valid []webhook.Signature) bool {
	return !slices.ContainsFunc(rules, func(rule webhook.SignatureRule) bool { return !rule.Satisfied(valid) })
}

// unread records that something could not be read.
func (s *search) unread(err error, n int) {
	why, looked := unreadReason(err)
	s.reject(why, n)
	if !looked {
		s.leaveOpen(err)
	}
}

func (s *search) leaveOpen(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unlooked == nil && s.ctx.Err() == nil {
		s.unlooked = err
	}
}

// unreadReason says why a payload is not there, and whether that is an answer: what is missing or broken will not
// become a signature, what could not be reached might be one.
func unreadReason(err error) (why reason, looked bool) {
	var read *webhook.ReadError
	if errors.As(err, &read) {
		switch read.Failure {
		case webhook.NotFound:
			return missing, true
		case webhook.Invalid:
			return tampered, true
		}
	}
	return unread, false
}

// judge holds one signature against the signers that were asked for. It counts for all whose it is: which of them a rule
// counts is the rule's affair (SignatureRule.SignedBy).
func (s *search) judge(x *signed) {
	closest, mine := unknownKey, false
	for _, signer := range s.asked {
		got, why, err := signer.hold(s.ctx, x, s.now)
		switch {
		case err != nil:
			s.leaveOpen(err)
		case why == "":
			mine = true
			s.accept(signer, got)
		case why.weight() < closest.weight():
			closest = why
		}
	}
	switch {
	case mine:
	case closest == unknownKey:
		s.reject(s.nameOf(x), 1)
	default:
		s.reject(closest, 1)
	}
}

// nameOf says whose signature it is that was not asked for.
func (s *search) nameOf(x *signed) reason {
	s.mu.Lock()
	s.named++
	enough := s.named > maxNamed
	s.mu.Unlock()
	if enough {
		return unknownKey
	}
	signers := s.verifier.trust.signers
	for _, name := range slices.Sorted(maps.Keys(signers)) {
		if slices.Contains(s.asked, signers[name]) {
			continue
		}
		if _, why, err := signers[name].hold(s.ctx, x, s.now); err == nil && (why == "" || why.weight() == 0) {
			return by(name)
		}
	}
	return unknownKey
}

func (s *search) accept(signer *signer, got held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := webhook.Signature{
		Signer: signer.name, Digest: s.binding.ref.Digest, Identity: got.identity, Issuer: got.issuer, Key: got.key, At: got.at,
	}
	same := func(other webhook.Signature) bool {
		found.At, other.At = time.Time{}, time.Time{}
		return found == other
	}
	if slices.ContainsFunc(s.valid, same) {
		return
	}
	found.At = got.at
	s.valid = append(s.valid, found)
	s.until = sooner(s.until, got.until)
	if complete(s.rules, s.valid) {
		s.cancel()
	}
}

func (s *search) reject(why reason, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejected[why] += n
}

func (s *search) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found += n
}

// sooner is the first of two moments, of which a zero one never comes.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
