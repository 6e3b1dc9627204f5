package signature

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"golang.org/x/sync/errgroup"

	"github.com/hallmark-admission/hallmark/webhook"
)

// An attestation may have megabytes, and takes several times as much while it is read: so many are at a time, of one image
// and of all together.
const (
	parallelAttestations = 2
	allAttestations      = 4
)

// An inquiry gathers the attestations of one image.
type inquiry struct {
	verifier *Verifier
	binding  binding
	rules    []webhook.AttestationRule
	now      time.Time

	mu       sync.Mutex
	found    webhook.Attestations
	rejected map[reason]int
	unlooked error
}

// Attest implements webhook.Attester. It reads all attestations of the types that rules name, in both layouts: which of
// several is the one that counts, the newest scan for instance, is for a policy to say.
func (v *Verifier) Attest(ctx context.Context, ref webhook.Reference, rules []webhook.AttestationRule) (webhook.Attestations, error) {
	q := &inquiry{
		verifier: v, rules: rules, now: v.trust.now(), rejected: map[reason]int{},
		// Statements name their subject by digest; the name beside it is for people.
		binding: binding{ref: ref, repository: webhook.RepositoryAny},
	}
	var types []string
	for _, rule := range rules {
		if _, err := v.trust.named(rule.AnyOf); err != nil {
			return webhook.Attestations{}, err
		}
		types = append(types, rule.PredicateType)
	}
	wanted := want{predicates: types, most: v.maxAttestations, noun: "attestation"}
	var group errgroup.Group
	group.Go(func() error { return q.attached(ctx, wanted) })
	group.Go(func() error { return q.bundles(ctx, wanted) })
	err := group.Wait()
	satisfied := !slices.ContainsFunc(rules, func(rule webhook.AttestationRule) bool { return !rule.Satisfied(q.found.Valid) })
	switch {
	case satisfied:
		// As with signatures: what else there is could not take that away, and in an outage it cannot be asked for.
	case ctx.Err() != nil:
		return webhook.Attestations{}, ctx.Err()
	case err != nil || q.unlooked != nil:
		return webhook.Attestations{}, cmp.Or(err, q.unlooked)
	}
	slices.SortStableFunc(q.found.Valid, func(a, b webhook.Attestation) int {
		return cmp.Or(cmp.Compare(a.PredicateType, b.PredicateType), cmp.Compare(a.Signer, b.Signer), b.At.Compare(a.At),
			bytes.Compare(a.Predicate.JSON, b.Predicate.JSON))
	})
	q.found.Rejected = tell(q.rejected, attestationLayers.noun())
	return q.found, nil
}

// attached reads what cosign up to v2 attaches: an envelope a layer under the tag sha256-<hex>.att.
func (q *inquiry) attached(ctx context.Context, wanted want) error {
	v, ref := q.verifier, q.binding.ref
	all, err := v.attachments(ctx, ref, attestationLayers)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(a attachment) bool {
		return a.predicateType != "" && !slices.Contains(wanted.predicates, a.predicateType)
	})
	q.each(ctx, len(all), func(i int) {
		a := all[i]
		why := a.broken
		if why == "" && a.size > v.attestationBytes {
			why = tooLarge
		}
		if why != "" {
			q.reject(why)
			return
		}
		body, err := v.fetch.Blob(ctx, ref, a.payload, v.attestationBytes)
		if err != nil {
			q.unread(err)
			return
		}
		x, said := newEnvelope(a, body, ref.Digest)
		if x == nil {
			q.reject(malformed)
			return
		}
		q.judge(ctx, x, said)
	})
	return nil
}

// newEnvelope makes an envelope in cosign's layout ready to be verified; nil when it is none.
func newEnvelope(a attachment, body []byte, digest string) (*signed, *statement) {
	raw, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if err != nil {
		return nil, nil
	}
	// cosign's timestamps are over the envelope here and not over its signature; they are not used.
	a.proofs.timestamp = ""
	x := &signed{
		artifact: func() verify.ArtifactPolicyOption { return verify.WithArtifactDigest("sha256", raw) },
		loose:    verify.WithoutArtifactUnsafe, certified: a.proofs.certificate != "", log: a.proofs.log != "",
	}
	var said *statement
	err = guarded(func() error {
		e, err := newEntity(a.proofs, envelopeContent(body))
		if err != nil {
			return err
		}
		envelope := e.content.(*bundle.Envelope) //nolint:forcetypeassert // envelopeContent makes nothing else
		payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
		if err != nil {
			return err
		}
		said, _ = parseStatement(envelope.PayloadType, payload)
		x.entity = func() verify.SignedEntity { return e }
		return nil
	})
	if err != nil || said == nil {
		return nil, nil
	}
	return x, said
}

// bundles reads what refers to the image.
func (q *inquiry) bundles(ctx context.Context, wanted want) error {
	v, ref := q.verifier, q.binding.ref
	all, err := v.referrers(ctx, ref, wanted)
	if err != nil {
		return err
	}
	q.each(ctx, len(all), func(i int) {
		body, why, err := v.readBundle(ctx, ref, all[i], wanted)
		switch {
		case err != nil:
			q.unread(err)
		case why != "":
			q.reject(why)
		case body != nil:
			x, said, why := newBundle(body, q.binding)
			if why != "" {
				q.reject(why)
			} else if said != nil {
				q.judge(ctx, x, said)
			}
		}
	})
	return nil
}

// each runs f for some at a time, of this image and of all others together.
func (q *inquiry) each(ctx context.Context, n int, f func(i int)) {
	var group errgroup.Group
	group.SetLimit(parallelAttestations)
	for i := range n {
		group.Go(func() error {
			select {
			case q.verifier.trust.reading <- struct{}{}:
				defer func() { <-q.verifier.trust.reading }()
				f(i)
			case <-ctx.Done():
				q.leaveOpen(ctx.Err())
			}
			return nil
		})
	}
	_ = group.Wait() // f reports nothing that way
}

// judge holds one attestation against the signers whose it may be. The type that counts is the one that was signed.
func (q *inquiry) judge(ctx context.Context, x *signed, said *statement) {
	signers, wanted := q.signers(said.PredicateType)
	if !wanted {
		return // another type than its annotation said, or than anybody asked for
	}
	x.claim = func() reason { return said.check(q.binding) }
	closest, mine := unknownKey, false
	for _, signer := range signers {
		got, why, err := signer.hold(ctx, x, q.now)
		switch {
		case err != nil:
			q.leaveOpen(err)
		case why == "":
			mine = true
			q.accept(signer, got, said)
		case why.weight() < closest.weight():
			closest = why
		}
	}
	if mine {
		q.mu.Lock()
		q.found.Found++
		q.mu.Unlock()
		return
	}
	q.reject(closest)
}

// signers are those who may attest a type, by name; all when a rule says nothing of who.
func (q *inquiry) signers(predicateType string) (signers []*signer, wanted bool) {
	var names []string
	for _, rule := range q.rules {
		switch {
		case rule.PredicateType != predicateType:
			continue
		case len(rule.AnyOf) == 0:
			for name := range q.verifier.trust.signers {
				names = append(names, name)
			}
		}
		wanted = true
		names = append(names, rule.AnyOf...)
	}
	signers, err := q.verifier.trust.named(names)
	return signers, wanted && err == nil
}

func (q *inquiry) accept(signer *signer, got held, said *statement) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.found.Valid = append(q.found.Valid, webhook.Attestation{
		PredicateType: said.PredicateType, Predicate: &webhook.Predicate{JSON: said.Predicate}, Signer: signer.name,
		Digest: q.binding.ref.Digest, Identity: got.identity, Issuer: got.issuer, At: got.at,
	})
	q.found.Until = sooner(q.found.Until, got.until)
}

func (q *inquiry) reject(why reason) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.found.Found++
	q.rejected[why]++
}

func (q *inquiry) unread(err error) {
	why, looked := unreadReason(err)
	q.reject(why)
	if !looked {
		q.leaveOpen(err)
	}
}

func (q *inquiry) leaveOpen(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.unlooked == nil {
		q.unlooked = err
	}
}
