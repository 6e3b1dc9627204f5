package signature

import (
	"crypto/x509"
	"encoding/asn1"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// Whether a signature counts is decided before; here it is told why not, by going through the same checks one by one.
// What stands first is what a developer can do something about.

// explain says why an identity's signature does not count.
func (s *signer) explain(x *signed, trusted root.TrustedMaterial) (why reason) {
	why = invalidSignature
	if err := guarded(func() error { why = s.explained(x, trusted); return nil }); err != nil {
		return invalidSignature
	}
	return why
}

func (s *signer) explained(x *signed, trusted root.TrustedMaterial) reason {
	if why := s.explainIdentity(x, trusted); why != "" {
		return why
	}
	content, err := x.entity().VerificationContent()
	if err != nil || content.Certificate() == nil {
		return invalidSignature
	}
	leaf := withoutSAN(content.Certificate())
	times, why := s.explainTimes(x, trusted)
	if why != "" {
		return why
	}
	var chains [][]*x509.Certificate
	for _, t := range times {
		if t.Timestamp.Before(leaf.NotBefore) || t.Timestamp.After(leaf.NotAfter) {
			return expiredCertificate
		}
		if chains, err = verify.VerifyLeafCertificate(t.Timestamp, leaf, trusted); err != nil {
			return expiredChain
		}
	}
	if s.sct == Required && verify.VerifySignedCertificateTimestamp(chains, 1, trusted) != nil {
		return noSCT
	}
	if why := x.claim(); why != "" {
		return why.ofIdentity()
	}
	return invalidSignature
}

// explainIdentity says what is wrong with a certificate, whenever it signed.
func (s *signer) explainIdentity(x *signed, trusted root.TrustedMaterial) (why reason) {
	err := guarded(func() error {
		content, err := x.entity().VerificationContent()
		if err != nil || content.Certificate() == nil {
			return err
		}
		leaf := content.Certificate()
		summary, err := certificate.SummarizeCertificate(leaf)
		if err != nil {
			return err
		}
		if _, err := verify.VerifyLeafCertificate(leaf.NotBefore, withoutSAN(leaf), trusted); err != nil {
			why = s.unknownAuthority(leaf, trusted)
			return nil //nolint:nilerr // the reason tells it
		}
		why = s.identity.mismatch(summary)
		return nil
	})
	if err != nil {
		return invalidSignature
	}
	return why
}

// unknownAuthority tells a chain that was not valid when the certificate began from one that leads to nobody.
func (s *signer) unknownAuthority(leaf *x509.Certificate, trusted root.TrustedMaterial) reason {
	for _, authority := range trusted.FulcioCertificateAuthorities() {
		fulcio, ok := authority.(*root.FulcioCertificateAuthority)
		if !ok {
			continue
		}
		for _, ca := range append([]*x509.Certificate{fulcio.Root}, fulcio.Intermediates...) {
			if leaf.CheckSignatureFrom(ca) == nil {
				return expiredChain
			}
		}
	}
	return otherAuthority
}

// explainTimes goes through log and timestamps.
func (s *signer) explainTimes(x *signed, trusted root.TrustedMaterial) ([]verify.TimestampVerificationResult, reason) {
	var times []verify.TimestampVerificationResult
	if s.log == Required || s.log == Optional && x.log {
		// Without the certificate's own check of the time, which is told apart below.
		proven, err := verify.VerifyTlogEntry(x.entity(), trusted, 1, true)
		if err != nil {
			if entryOutOfTime(x.entity()) {
				return nil, expiredCertificate
			}
			return nil, invalidLog
		}
		for _, t := range proven {
			times = append(times, verify.TimestampVerificationResult{Timestamp: t.Time})
		}
	}
	if s.timestamp == Required || s.timestamp == Optional && x.timestamp {
		proven, _, err := verify.VerifySignedTimestamp(x.entity(), trusted)
		if err != nil || s.timestamp == Required && len(proven) == 0 || len(proven)+len(times) == 0 {
			return nil, invalidTimestamp
		}
		for _, t := range proven {
			times = append(times, verify.TimestampVerificationResult{Timestamp: t.Time})
		}
	}
	if len(times) == 0 {
		return nil, noTime
	}
	return times, ""
}

// entryOutOfTime says that the log's entry is from a time in which the certificate was not valid.
func entryOutOfTime(e verify.SignedEntity) bool {
	entries, err := e.TlogEntries()
	content, contentErr := e.VerificationContent()
	if err != nil || contentErr != nil || content.Certificate() == nil {
		return false
	}
	for _, entry := range entries {
		if t := entry.IntegratedTime(); !t.IsZero() && !content.ValidAtTime(t, nil) {
			return true
		}
	}
	return false
}

// explainKey says which proof of a key's signature fails.
func (s *signer) explainKey(x *signed, material *keyMaterial) (why reason) {
	err := guarded(func() error {
		unbounded := &keyMaterial{material.TrustedMaterial, root.NewExpiringKey(material.key.Verifier, time.Time{}, time.Time{})}
		keyed := *x
		keyed.entity = func() verify.SignedEntity { return forKey(x) }
		times, failed := s.explainTimes(&keyed, unbounded)
		switch {
		case failed != "":
			why = failed
		default:
			why = invalidSignature
			for _, t := range times {
				if !s.inTime(t.Timestamp) {
					why = outOfTime(s.config.NotAfter, t.Timestamp)
				}
			}
		}
		return nil
	})
	if err != nil {
		return invalidSignature
	}
	return why
}

// withoutSAN leaves out the extension that Go does not know in the form in which some authorities write a subject, as
// sigstore-go does.
func withoutSAN(leaf *x509.Certificate) *x509.Certificate {
	if len(leaf.UnhandledCriticalExtensions) == 0 {
		return leaf
	}
	copied := *leaf
	copied.UnhandledCriticalExtensions = nil
	for _, id := range leaf.UnhandledCriticalExtensions {
		if !id.Equal(asn1.ObjectIdentifier(cryptoutils.SANOID)) {
			copied.UnhandledCriticalExtensions = append(copied.UnhandledCriticalExtensions, id)
		}
	}
	return &copied
}
