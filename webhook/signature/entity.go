package signature

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	cosignbundle "github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// Annotations of a layer besides the signature (cosign's SIGNATURE_SPEC.md). The chain is not read: whom a certificate is
// from is decided by the trusted root alone.
const (
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	logAnnotation         = "dev.sigstore.cosign/bundle"
	timestampAnnotation   = "dev.sigstore.cosign/rfc3161timestamp"
	predicateAnnotation   = "predicateType"

	dsseEnvelope types.MediaType = "application/vnd.dsse.envelope.v1+json"
)

// maxProofLength bounds each annotation that proves something. Rekor's entry of a signature has about 2 KiB, with an RSA
// key and its certificate less than 16.
const maxProofLength = 64 << 10

// proofs are the annotations of a layer, as they stand there.
type proofs struct{ certificate, log, timestamp string }

// An entity is a signed thing in the layout of cosign up to v2, in the shape in which sigstore-go verifies it.
type entity struct {
	verify.BaseSignedEntity
	certificate *x509.Certificate
	entry       *tlog.Entry
	timestamps  [][]byte
	content     verify.SignatureContent

	// What cosign's own verification takes.
	certificatePEM []byte
	log            *cosignbundle.RekorBundle
}

// newEntity parses the proofs that come with a signature or an envelope. Whatever is broken in them is an error; nothing
// of it is trusted yet.
func newEntity(p proofs, content func(*tlog.Entry) (verify.SignatureContent, error)) (*entity, error) {
	if len(p.certificate) > maxProofLength || len(p.log) > maxProofLength || len(p.timestamp) > maxProofLength {
		return nil, errors.New("an annotation is too long")
	}
	e := &entity{}
	var err error
	if p.certificate != "" {
		block, rest := pem.Decode([]byte(p.certificate))
		if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
			return nil, errors.New("the certificate is not in PEM")
		}
		if e.certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
			return nil, err
		}
		e.certificatePEM = []byte(p.certificate)
	}
	if p.log != "" {
		if err := e.parseLog(p.log); err != nil {
			return nil, err
		}
	}
	if p.timestamp != "" {
		var t struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(p.timestamp), &t); err != nil || len(t.SignedRFC3161Timestamp) == 0 {
			return nil, errors.New("the timestamp cannot be read")
		}
		e.timestamps = [][]byte{t.SignedRFC3161Timestamp}
	}
	e.content, err = content(e.entry)
	return e, err
}

// parseLog reads Rekor's promise. cosign's own type leaves the body to be anything, and what is no string has made it
// panic on a goroutine of its own.
func (e *entity) parseLog(text string) error {
	var log struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           string `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := json.Unmarshal([]byte(text), &log); err != nil {
		return errors.New("the log entry cannot be read")
	}
	body, err := base64.StdEncoding.DecodeString(log.Payload.Body)
	id, idErr := hex.DecodeString(log.Payload.LogID)
	if err != nil || idErr != nil || len(body) == 0 || len(log.SignedEntryTimestamp) == 0 || log.Payload.LogIndex < 0 {
		return errors.New("the log entry is incomplete")
	}
	e.entry, err = tlog.NewEntry( //nolint:staticcheck // the only way to an entry of a log's first version
		body, log.Payload.IntegratedTime, log.Payload.LogIndex, id, log.SignedEntryTimestamp, nil)
	e.log = &cosignbundle.RekorBundle{
		SignedEntryTimestamp: log.SignedEntryTimestamp,
		Payload: cosignbundle.RekorPayload{
			Body: log.Payload.Body, IntegratedTime: log.Payload.IntegratedTime,
			LogIndex: log.Payload.LogIndex, LogID: log.Payload.LogID,
		},
	}
	return err
}

// messageContent is a signature over a payload. The hash is the one that the log's entry speaks of.
func messageContent(payload []byte, base64Signature string) func(*tlog.Entry) (verify.SignatureContent, error) {
	return func(entry *tlog.Entry) (verify.SignatureContent, error) {
		raw, err := base64.StdEncoding.DecodeString(base64Signature)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(payload)
		if _, algorithm, ok := entry.GetHashedRekordDigest(); ok {
			switch strings.ToLower(algorithm) {
			case "sha384":
				longer := sha512.Sum384(payload)
				return bundle.NewMessageSignature(longer[:], "SHA2_384", raw), nil
			case "sha512":
				longer := sha512.Sum512(payload)
				return bundle.NewMessageSignature(longer[:], "SHA2_512", raw), nil
			}
		}
		return bundle.NewMessageSignature(sum[:], "SHA2_256", raw), nil
	}
}

// envelopeContent is a DSSE envelope.
func envelopeContent(body []byte) func(*tlog.Entry) (verify.SignatureContent, error) {
	return func(*tlog.Entry) (verify.SignatureContent, error) {
		var envelope struct {
			PayloadType string `json:"payloadType"`
			Payload     string `json:"payload"`
			Signatures  []struct {
				KeyID string `json:"keyid"`
				Sig   string `json:"sig"`
			} `json:"signatures"`
		}
		if err := json.Unmarshal(body, &envelope); err != nil {
			return nil, errors.New("the envelope cannot be read")
		}
		if len(envelope.Signatures) != 1 {
			return nil, errors.New("the envelope has not exactly one signature")
		}
		return &bundle.Envelope{Envelope: &dsse.Envelope{
			PayloadType: envelope.PayloadType, Payload: envelope.Payload,
			Signatures: []dsse.Signature{{KeyID: envelope.Signatures[0].KeyID, Sig: envelope.Signatures[0].Sig}},
		}}, nil
	}
}

// HasInclusionPromise says whether the log has promised to hold the entry.
func (e *entity) HasInclusionPromise() bool { return e.entry != nil }

// SignatureContent gives what was signed, and the signature.
func (e *entity) SignatureContent() (verify.SignatureContent, error) { return e.content, nil }

// Timestamps gives the signed timestamps.
func (e *entity) Timestamps() ([][]byte, error) { return e.timestamps, nil }

// TlogEntries gives the entry of the transparency log, if there is one.
func (e *entity) TlogEntries() ([]*tlog.Entry, error) {
	if e.entry == nil {
		return nil, nil
	}
	return []*tlog.Entry{e.entry}, nil
}

// VerificationContent gives the certificate, or a key without a name.
func (e *entity) VerificationContent() (verify.VerificationContent, error) {
	if e.certificate != nil {
		return bundle.NewCertificate(e.certificate), nil
	}
	return &bundle.PublicKey{}, nil
}

// Version is that of the format which allows keys to sign as they did before bundles.
func (e *entity) Version() (string, error) { return "v0.1", nil }

// carriesOtherKey says that a certificate comes along whose key is not the given one.
func (e *entity) carriesOtherKey(k *key) bool {
	if e.certificate == nil {
		return false
	}
	encoded, err := x509.MarshalPKIXPublicKey(e.certificate.PublicKey)
	own, ownErr := x509.MarshalPKIXPublicKey(k.public)
	return err != nil || ownErr != nil || !bytes.Equal(encoded, own)
}
