package evidence

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Proofs is what finds signatures and attestations.
type Proofs interface {
	webhook.Verifier
	webhook.Attester
}

// A Verifier remembers what was proved of a digest: which signers signed it, and what they attest of it. It implements
// Proofs.
type Verifier struct {
	store   *Store
	config  Config
	known   Proofs
	proofs  Proofs
	flights flights
}

// NewVerifier wraps what believes the signers of config.Trust. known is the same over Content.Known: what is proved by what
// is there needs no registry, after a restart or with other keys as little as otherwise. nil is none.
func NewVerifier(store *Store, config Config, proofs, known Proofs) *Verifier {
	config = config.withDefaults()
	return &Verifier{store: store, config: config, proofs: proofs, known: known, flights: flights{timeout: config.Timeout}}
}

// Verify implements webhook.Verifier. Only what satisfies all rules is remembered: what is missing now may be there the
// next time.
func (v *Verifier) Verify(ctx context.Context, ref webhook.Reference, rules []webhook.SignatureRule) (webhook.Signatures, error) {
	key := v.key(ref)
	for _, rule := range rules {
		key.add(strconv.Itoa(rule.Threshold), string(rule.Repository), string(rule.Platforms))
		key.add(rule.AnyOf...)
		key.add(rule.Names...)
		if rule.Platforms == webhook.PlatformsInherit {
			key.add(ref.Tag) // it names the index that speaks for the image
		}
	}
	return prove(ctx, v, key.String(), look[webhook.Signatures]{
		in: v.store.proofs, as: "proof",
		at: func(ctx context.Context, p Proofs) (webhook.Signatures, error) { return p.Verify(ctx, ref, rules) },
		holds: func(found webhook.Signatures) bool {
			return !slices.ContainsFunc(rules, func(rule webhook.SignatureRule) bool { return !rule.Satisfied(found.Valid) })
		},
		until: func(found webhook.Signatures) time.Time { return found.Until },
		bytes: func(found webhook.Signatures) int64 { return int64(256 * (1 + len(found.Valid))) },
	})
}

// Attest implements webhook.Attester. Only what satisfies all rules is remembered.
func (v *Verifier) Attest(ctx context.Context, ref webhook.Reference, rules []webhook.AttestationRule) (webhook.Attestations, error) {
	key := v.key(ref)
	for _, rule := range rules {
		key.add(rule.PredicateType)
		key.add(rule.AnyOf...)
	}
	return prove(ctx, v, key.String(), look[webhook.Attestations]{
		in: v.store.attested, as: "attestation",
		at: func(ctx context.Context, p Proofs) (webhook.Attestations, error) { return p.Attest(ctx, ref, rules) },
		holds: func(found webhook.Attestations) bool {
			return !slices.ContainsFunc(rules, func(rule webhook.AttestationRule) bool { return !rule.Satisfied(found.Valid) })
		},
		until: func(found webhook.Attestations) time.Time { return found.Until },
		bytes: func(found webhook.Attestations) int64 {
			size := int64(256)
			for _, a := range found.Valid {
				size += 256 + predicateGrowth*int64(len(a.Predicate.JSON))
			}
			return size
		},
	})
}

// predicateGrowth is how many times its JSON a predicate takes once a policy has read it: about six for a bill of materials
// in SPDX, more for lists of numbers.
const predicateGrowth = 7

// A look is one way of looking for proofs.
type look[T any] struct {
	in    *memory[proof] // where what was found is remembered
	as    string         // how it is counted
	at    func(ctx context.Context, p Proofs) (T, error)
	holds func(T) bool      // it satisfies the rules
	until func(T) time.Time // when it may cease to; zero for never
	bytes func(T) int64     // that it takes in memory, about
}

func prove[T any](ctx context.Context, v *Verifier, key string, l look[T]) (T, error) {
	last, hit := lookup(&v.config, l.in, l.as, key)
	if hit && v.config.Now().Before(last.until) {
		if found, ok := last.found.(T); ok {
			return found, nil
		}
	}
	return do(ctx, &v.flights, l.as+" "+key, func(ctx context.Context) (T, error) {
		if landed, ok := l.in.get(key); ok && landed.until.After(last.until) {
			if found, ok := landed.found.(T); ok {
				return found, nil
			}
		}
		keep := func(found T) T {
			until := v.config.Now().Add(v.config.VerifiedTTL)
			if end := l.until(found); !end.IsZero() && end.Before(until) {
				until = end
			}
			l.in.add(key, proof{found, until}, l.bytes(found))
			return found
		}
		// A proof that is too old is not renewed from what is there: somebody may have taken the signature away.
		if v.known != nil && !hit {
			if found, err := l.at(ctx, v.known); err == nil && l.holds(found) {
				return keep(found), nil
			}
		}
		found, err := l.at(ctx, v.proofs)
		if err == nil && l.holds(found) {
			return keep(found), nil
		}
		return found, err
	})
}

// A proofKey is a digest, what has to be proved of it, and whom one trusts.
type proofKey struct{ strings.Builder }

func (v *Verifier) key(ref webhook.Reference) *proofKey {
	ref.Tag = ""
	k := &proofKey{}
	k.WriteString(v.config.Trust() + " " + v.config.key(ref) + " ")
	return k
}

func (k *proofKey) add(parts ...string) {
	for _, part := range parts {
		k.WriteString(strconv.Itoa(len(part)) + ":" + part)
	}
	k.WriteByte(';')
}
