package evidence_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/evidence"
)

// A prover answers what it is told, and counts.
type prover struct {
	signatures   webhook.Signatures
	attestations webhook.Attestations
	err          error
	asked        int
}

func (p *prover) Verify(context.Context, webhook.Reference, []webhook.SignatureRule) (webhook.Signatures, error) {
	p.asked++
	return p.signatures, p.err
}

func (p *prover) Attest(context.Context, webhook.Reference, []webhook.AttestationRule) (webhook.Attestations, error) {
	p.asked++
	return p.attestations, p.err
}

// TestProofs: what is remembered of signatures and attestations, for how long, and for which question.
func TestProofs(t *testing.T) {
	w := newWorld(t)
	trust := "a"
	w.config.Trust = func() string { return trust }
	p := &prover{
		signatures: webhook.Signatures{Valid: []webhook.Signature{{Signer: "ci", Key: "k"}}, Found: 1},
		attestations: webhook.Attestations{Found: 1, Valid: []webhook.Attestation{{
			PredicateType: "a/b", Signer: "ci", Predicate: &webhook.Predicate{JSON: []byte("{}")},
		}}},
	}
	v := evidence.NewVerifier(w.store, w.config, p, nil)
	ref := w.ref.WithDigest(w.digest)
	signed := []webhook.SignatureRule{{AnyOf: []string{"ci"}, Threshold: 1}}
	attested := []webhook.AttestationRule{{PredicateType: "a/b", AnyOf: []string{"ci"}}}
	ask := func(what string, want int, f func() error) {
		t.Helper()
		p.asked = 0
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if p.asked != want {
			t.Errorf("%s: asked %d times, want %d", what, p.asked, want)
		}
	}
	verify := func(rules []webhook.SignatureRule) func() error {
		return func() error { _, err := v.Verify(t.Context(), ref, rules); return err }
	}
	attest := func(rules []webhook.AttestationRule) func() error {
		return func() error {
			got, err := v.Attest(t.Context(), ref, rules)
			if err == nil && len(got.Valid) != 1 {
				return errors.New("the attestation is gone")
			}
			return err
		}
	}
	ask("signatures at first", 1, verify(signed))
	ask("signatures again", 0, verify(signed))
	ask("attestations at first", 1, attest(attested))
	ask("attestations again", 0, attest(attested))
	ask("attestations of another type", 1, attest([]webhook.AttestationRule{attested[0], {PredicateType: "c/d"}}))
	ask("attestations of another type, which are not there", 1, attest([]webhook.AttestationRule{attested[0], {PredicateType: "c/d"}}))
	for name, rule := range map[string]webhook.SignatureRule{
		"repository": {AnyOf: []string{"ci"}, Threshold: 1, Repository: webhook.RepositoryRequire},
		"platforms":  {AnyOf: []string{"ci"}, Threshold: 1, Platforms: webhook.PlatformsInherit},
		"names":      {AnyOf: []string{"ci"}, Threshold: 1, Names: []string{"r.example/a"}},
		"signers":    {AnyOf: []string{"ci", "release"}, Threshold: 1},
	} {
		ask("another rule: "+name, 1, verify([]webhook.SignatureRule{rule}))
		ask("that rule again: "+name, 0, verify([]webhook.SignatureRule{rule}))
	}
	trust = "b"
	ask("signatures under another trust", 1, verify(signed))
	ask("attestations under another trust", 1, attest(attested))
	trust = "a"

	w.clock.add(2 * w.config.VerifiedTTL)
	p.signatures.Until = w.clock.Now().Add(time.Minute)
	p.attestations.Until = w.clock.Now().Add(time.Minute)
	ask("signatures later", 1, verify(signed))
	ask("attestations later", 1, attest(attested))
	w.clock.add(59 * time.Second)
	ask("signatures until they end", 0, verify(signed))
	w.clock.add(2 * time.Second)
	ask("signatures that have ended", 1, verify(signed))
	ask("attestations that have ended", 1, attest(attested))

	p.err = errors.New("no")
	w.clock.add(2 * w.config.VerifiedTTL)
	for range 2 {
		p.asked = 0
		if _, err := v.Attest(t.Context(), ref, attested); err == nil || p.asked != 1 {
			t.Errorf("a failure was remembered: %v, asked %d times", err, p.asked)
		}
	}
}
