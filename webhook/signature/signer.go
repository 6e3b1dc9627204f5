package signature

import (
	"cmp"
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

	"github.com/hallmark-admission/hallmark/webhook"
)

// A signer is a Signer that was loaded: one of key and identity is set, and root with an identity.
type signer struct {
	name                string
	config              Signer
	key                 source[*key]
	identity            *identity
	root                source[*trustedRoot]
	log, timestamp, sct Demand
}

// A signed is something signed that was read, in either layout, with what has to be known to verify it.
type signed struct {
	entity func() verify.SignedEntity // nil when the proofs that come along are broken; parsed only for who asks
	plain  *plain                     // nil for an envelope and for a bundle

	certified      bool // it comes with a certificate, and is not for a key then
	log, timestamp bool // it comes with an entry of a log, with a timestamp

	artifact func() verify.ArtifactPolicyOption // what was signed; a new one each time, since some are read
	loose    func() verify.ArtifactPolicyOption // enough to tell whose signature it is
	claim    func() reason                      // why what it says does not hold for the image; "" when it does
}

// A plain is a signature in the layout of cosign up to v2.
type plain struct {
	entity func() *entity // as of signed
	body   []byte
	base64 string
	hash   v1.Hash // of the image
}

// A held is a signature that counts.
type held struct {
	identity, issuer, key string
	at                    time.Time
	until                 time.Time
}

// hold says whether something was signed by the signer and counts. The reason is unknownKey when it was signed by somebody
// else; an error says that it cannot be told.
func (s *signer) hold(ctx context.Context, x *signed, now time.Time) (held, reason, error) {
	if s.identity != nil {
		return s.holdIdentity(ctx, x)
	}
	k, err := s.key.get()
	if err != nil {
		return held{}, "", s.notReady("key", err)
	}
	with, why := s.verifierOf(ctx, x, k)
	if why != "" {
		return held{}, why, nil
	}
	found := held{key: k.fingerprint}
	if x.plain != nil && x.certified {
		if e := x.plain.entity(); e != nil && e.carriesOtherKey(k) {
			return held{}, otherCertificate, nil
		}
	}
	use, why := s.wanted(x)
	switch {
	case why != "":
		return held{}, why, nil
	case use == nil:
		// Nothing proves when it was signed, only that it was by now.
		if !s.inTime(now) {
			return held{}, outOfTime(s.config.NotAfter, now), nil
		}
		found.until = s.config.NotAfter
		return found, "", nil
	}
	trusted, err := s.root.get()
	if err != nil {
		return held{}, "", s.notReady("trusted root", err)
	}
	material := &keyMaterial{trusted, root.NewExpiringKey(with, s.config.NotBefore, s.config.NotAfter)}
	result, err := verifyEntity(forKey(x), material, use, verify.NewPolicy(x.artifact(), verify.WithKey()))
	if err != nil {
		return held{}, s.explainKey(x, material), nil //nolint:nilerr // the reason tells it
	}
	found.at, found.until = earliest(result.VerifiedTimestamps), trusted.until
	if found.at.IsZero() {
		if !s.inTime(now) {
			return held{}, outOfTime(s.config.NotAfter, now), nil
		}
		found.until = sooner(found.until, s.config.NotAfter)
	}
	return found, "", nil
}

func (s *signer) inTime(t time.Time) bool {
	return !t.Before(s.config.NotBefore) && (s.config.NotAfter.IsZero() || !t.After(s.config.NotAfter))
}

// notReady is the error for a signer whose key or root has not been read from outside.
func (s *signer) notReady(what string, err error) error {
	return &webhook.ReadError{
		Failure: webhook.Unavailable, Registry: "signer " + s.name, Reason: "has no " + what + " at present", Err: err,
	}
}

// holdIdentity holds a certificate's signature. sigstore-go checks the whole chain at the time of signing, intermediates
// included, which cosign up to v2.6.5 does not (CVE-2026-24122); for its own layout cosign has to agree.
func (s *signer) holdIdentity(ctx context.Context, x *signed) (held, reason, error) {
	if !x.certified {
		return held{}, unknownKey, nil
	}
	trusted, err := s.root.get()
	if err != nil {
		return held{}, "", s.notReady("trusted root", err)
	}
	use, why := s.wanted(x)
	if why != "" {
		if why != brokenProof {
			why = cmp.Or(s.explainIdentity(x, trusted), why)
		}
		return held{}, why, nil
	}
	policy := verify.NewPolicy(x.artifact(), verify.WithCertificateIdentity(s.identity.matcher))
	result, err := verifyEntity(x.entity(), trusted, use, policy)
	if err != nil {
		return held{}, s.explain(x, trusted), nil //nolint:nilerr // the reason tells it
	}
	if why := x.claim(); why != "" {
		return held{}, why.ofIdentity(), nil
	}
	if x.plain != nil {
		if err := s.agreed(ctx, x, trusted); err != nil {
			return held{}, invalidSignature, nil //nolint:nilerr // the reason tells it
		}
	}
	return held{
		identity: result.Signature.Certificate.SubjectAlternativeName, issuer: result.Signature.Certificate.Issuer,
		at: earliest(result.VerifiedTimestamps), until: trusted.until,
	}, "", nil
}

// wanted gives the options under which sigstore-go checks what the signer demands of the proofs that come along; nil when
// nothing beside the signature is to be checked.
func (s *signer) wanted(x *signed) ([]verify.VerifierOption, reason) {
	if (s.log != Ignored || s.timestamp != Ignored || s.identity != nil) && x.entity() == nil {
		return nil, brokenProof
	}
	log := s.log == Required || s.log == Optional && x.log
	timestamp := s.timestamp == Required || s.timestamp == Optional && x.timestamp
	switch {
	case log && !x.log:
		return nil, noLog
	case timestamp && !x.timestamp:
		return nil, noTimestamp
	case s.identity != nil && !log && !timestamp:
		return nil, noTime
	case !log && !timestamp:
		return nil, ""
	}
	options := []verify.VerifierOption{verify.WithoutStatementPredicate()}
	if log {
		options = append(options, verify.WithTransparencyLog(1))
	}
	switch bounded := !s.config.NotBefore.IsZero() || !s.config.NotAfter.IsZero(); {
	case s.timestamp == Required:
		options = append(options, verify.WithSignedTimestamps(1))
	case s.identity != nil || timestamp || bounded:
		options = append(options, verify.WithObserverTimestamps(1))
	default:
		options = append(options, verify.WithNoObserverTimestamps())
	}
	if s.identity != nil && s.sct == Required {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	return options, ""
}

// verifierOf finds in which way the key has signed; unknownKey when it has not. Another reason is why what it signed does
// not hold for the image.
func (s *signer) verifierOf(ctx context.Context, x *signed, k *key) (sigstore.Verifier, reason) {
	if x.plain == nil && (x.certified || x.entity() == nil) {
		return nil, unknownKey
	}
	for _, with := range k.verifiers {
		if x.plain != nil {
			if why, mine := x.plain.byKey(ctx, with, x.claim); mine {
				return with, why
			}
			continue
		}
		_, err := verifyEntity(x.entity(), &keyMaterial{&root.BaseTrustedMaterial{}, root.NewExpiringKey(with, time.Time{}, time.Time{})},
			[]verify.VerifierOption{verify.WithNoObserverTimestamps(), verify.WithoutStatementPredicate()},
			verify.NewPolicy(x.loose(), verify.WithKey()))
		if err == nil {
			return with, x.claim()
		}
	}
	return nil, unknownKey
}

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
