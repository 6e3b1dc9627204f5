package signature

import (
	"cmp"
	"context"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
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
