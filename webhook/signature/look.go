package signature

import (
	"fmt"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// look looks through the signatures in one layout. An error leaves open what there is.
func (s *search) look(layout layout) error {
	if layout == bundles {
		return s.bundles()
	}
	return s.attached()
}

// attached looks through the signatures in cosign's own layout.
func (s *search) attached() error {
	v, ref := s.verifier, s.binding.ref
	all, err := v.attachments(s.ctx, ref, signatureLayers)
	if err != nil {
		return err
	}
	hash, err := v1.NewHash(ref.Digest)
	if err != nil {
		return fmt.Errorf("signature: digest of %s: %w", ref, err)
	}
	s.found += len(all)
	// Signatures over the same payload share its layer's content; it is read once.
	var payloads []string
	byPayload := map[string][]attachment{}
	for _, a := range all {
		switch {
		case a.broken != "":
			s.reject(a.broken, 1)
			continue
		case a.size > v.payloadBytes:
			s.reject(tooLarge, 1)
			continue
		case byPayload[a.payload] == nil:
			payloads = append(payloads, a.payload)
		}
		byPayload[a.payload] = append(byPayload[a.payload], a)
	}
	s.each(len(payloads), func(i int) {
		signatures := byPayload[payloads[i]]
		body, err := v.fetch.Blob(s.ctx, ref, payloads[i], v.payloadBytes)
		if err != nil {
			s.unread(err, len(signatures))
			return
		}
		for _, a := range signatures {
			if s.ctx.Err() != nil {
				return
			}
			s.judge(newPlain(a, body, hash, s.binding))
		}
	})
	return nil
}

// newPlain makes a signature in cosign's layout ready to be verified.
func newPlain(a attachment, body []byte, hash v1.Hash, b binding) *signed {
	parsed := sync.OnceValue(func() *entity {
		var e *entity
		err := guarded(func() (err error) {
			e, err = newEntity(a.proofs, messageContent(body, a.base64))
			return err
		})
		if err != nil {
			return nil
		}
		return e
	})
	return &signed{
		plain: &plain{entity: parsed, body: body, base64: a.base64, hash: hash},
		entity: func() verify.SignedEntity {
			if e := parsed(); e != nil {
				return e
			}
			return nil
		},
		artifact: artifactOf(body), claim: func() reason { return checkClaim(body, b) },
		certified: a.proofs.certificate != "", log: a.proofs.log != "", timestamp: a.proofs.timestamp != "",
	}
}

// bundles looks through the signatures in sigstore bundles.
func (s *search) bundles() error {
	v, ref := s.verifier, s.binding.ref
	wanted := want{predicates: []string{signPredicate}, message: true, most: v.maxSignatures, noun: "signature"}
	all, err := v.referrers(s.ctx, ref, wanted)
	if err != nil {
		return err
	}
	s.each(len(all), func(i int) {
		body, why, err := v.readBundle(s.ctx, ref, all[i], wanted)
		switch {
		case err != nil:
			s.count(1)
			s.unread(err, 1)
		case why != "":
			s.count(1)
			s.reject(why, 1)
		case body != nil:
			s.count(1)
			x, why := signatureBundle(body, s.binding)
			if why != "" {
				s.reject(why, 1)
				return
			}
			s.judge(x)
		}
	})
	return nil
}
