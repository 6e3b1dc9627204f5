package signature

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v2/pkg/oci"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
)

// agreed has cosign verify a certificate's signature in its own layout.
func (s *signer) agreed(ctx context.Context, x *signed, trusted *trustedRoot) error {
	who := cosign.Identity{Issuer: s.identity.config.Issuer, Subject: s.identity.config.Subject}
	if s.identity.pattern != nil {
		who.SubjectRegExp = s.identity.pattern.String()
	}
	log := s.log == Required || s.log == Optional && x.log
	e := x.plain.entity()
	options := []static.Option{static.WithCertChain(e.certificatePEM, nil)}
	if log {
		options = append(options, static.WithBundle(e.log))
	}
	timestamp := !log || s.timestamp == Required
	if timestamp && len(e.timestamps) > 0 {
		options = append(options, static.WithRFC3161Timestamp(&bundle.RFC3161Timestamp{SignedRFC3161Timestamp: e.timestamps[0]}))
	}
	return x.plain.verify(ctx, options, &cosign.CheckOpts{
		TrustedMaterial: trusted, Identities: []cosign.Identity{who}, ClaimVerifier: cosign.SimpleClaimVerifier,
		IgnoreSCT: s.sct == Ignored, IgnoreTlog: !log, UseSignedTimestamps: timestamp, Offline: true,
	})
}

// verify leaves a signature to cosign, without any annotation that is not needed: its parsers have panicked on them. A
// panic is a signature that does not verify.
func (p *plain) verify(ctx context.Context, options []static.Option, check *cosign.CheckOpts) error {
	return guarded(func() error {
		signature, err := static.NewSignature(p.body, p.base64, options...)
		if err != nil {
			return err
		}
		_, err = cosign.VerifyImageSignature(ctx, signature, p.hash, check)
		return err
	})
}

// byKey says whether a key has signed, and if so why that does not count. cosign calls what checks the claim once the
// signature itself is found good; without it any signature by the right key would do for any image.
func (p *plain) byKey(ctx context.Context, with sigstore.Verifier, claim func() reason) (why reason, mine bool) {
	err := p.verify(ctx, nil, &cosign.CheckOpts{
		SigVerifier: with, IgnoreTlog: true, Offline: true,
		ClaimVerifier: func(signature oci.Signature, digest v1.Hash, annotations map[string]any) error {
			if mine, why = true, claim(); why != "" {
				return errClaim
			}
			return cosign.SimpleClaimVerifier(signature, digest, annotations) // the last word is cosign's
		},
	})
	if mine && err != nil && why == "" {
		why = unreadable
	}
	return why, mine
}

var errClaim = errors.New("it speaks of something else")

// forKey is the entity as a key has signed it: a certificate that comes along says nothing about a key.
func forKey(x *signed) verify.SignedEntity {
	if e, ok := x.entity().(*entity); ok && e.certificate != nil {
		keyed := *e
		keyed.certificate = nil
		return &keyed
	}
	return x.entity()
}

// keyMaterial is a trusted root with the one key that is asked for.
type keyMaterial struct {
	root.TrustedMaterial
	key *root.ExpiringKey
}

// PublicKeyVerifier gives the key whatever it is called in a bundle: names are not signed.
func (m *keyMaterial) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) {
	return m.key, nil
}

func verifyEntity(
	e verify.SignedEntity, material root.TrustedMaterial, options []verify.VerifierOption, policy verify.PolicyBuilder,
) (result *verify.VerificationResult, err error) {
	err = guarded(func() error {
		verifier, err := verify.NewVerifier(material, options...)
		if err != nil {
			return err
		}
		result, err = verifier.Verify(e, policy)
		return err
	})
	return result, err
}

// errPanicked is what a panic of a library becomes.
var errPanicked = errors.New("a library panicked")

func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("signature: %w: %T", errPanicked, p)
		}
	}()
	return f()
}

// earliest is when something was signed at the latest.
func earliest(times []verify.TimestampVerificationResult) time.Time {
	var first time.Time
	for _, t := range times {
		if first.IsZero() || t.Timestamp.Before(first) {
			first = t.Timestamp
		}
	}
	return first.UTC()
}
