package registrytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/digitorus/timestamp"
)

// stamp is a timestamp authority's answer (RFC 3161) to a request that asks for its certificate, as cosign's does. The
// time has seconds only.
func (s *Sigstore) stamp(message []byte, at time.Time) ([]byte, error) {
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
	if err != nil {
		return nil, fmt.Errorf("registrytest: make a nonce: %w", err)
	}
	at = at.UTC().Truncate(time.Second)
	sum := sha256.Sum256(message)
	stamp := timestamp.Timestamp{
		HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Time: at, Nonce: nonce,
		Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}, AddTSACertificate: true,
	}
	answer, err := stamp.CreateResponseWithOpts(s.stampLeaf, s.stampKey, crypto.SHA256)
	if err == nil {
		answer, err = signAt(answer, at, s.stampKey)
	}
	if err != nil {
		return nil, fmt.Errorf("registrytest: make a timestamp: %w", err)
	}
	return answer, nil
}

// A stampAnswer is the answer of a timestamp authority (RFC 3161, 2.4.2) as far as it has to be taken apart.
type stampAnswer struct {
	Status asn1.RawValue
	Token  struct {
		Type asn1.ObjectIdentifier
		Data struct {
			Version                                 int
			DigestAlgorithms, Content, Certificates asn1.RawValue
			Signers                                 []stampSigner `asn1:"set"`
		} `asn1:"explicit,tag:0"`
	}
}

type stampSigner struct {
	Version                                      int
	Certificate, DigestAlgorithm, Signed, Method asn1.RawValue
	Signature                                    []byte
}

// signAt has an answer be signed at a time. The library signs at the present, and clients refuse an answer that was
// signed when the authority's certificate was not valid.
func signAt(answer []byte, at time.Time, key *ecdsa.PrivateKey) ([]byte, error) {
	var parts stampAnswer
	if _, err := asn1.Unmarshal(answer, &parts); err != nil || len(parts.Token.Data.Signers) != 1 {
		return nil, fmt.Errorf("take the answer apart: %w", err)
	}
	signer := &parts.Token.Data.Signers[0]
	name, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}) // signingTime
	if err != nil {
		return nil, err
	}
	signed, when := signer.Signed.Bytes, []byte(at.Format("060102150405Z"))
	// After the name come the heads of a set and of a UTCTime, of two bytes each.
	i := bytes.Index(signed, name) + len(name) + 4
	if i < len(name)+4 || i+len(when) > len(signed) {
		return nil, errors.New("the answer has no signing time")
	}
	copy(signed[i:], when)
	signer.Signed = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: signed}
	// What is signed are the attributes as a set (RFC 5652, 5.4).
	set, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: signed})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(set)
	if signer.Signature, err = ecdsa.SignASN1(rand.Reader, key, sum[:]); err != nil {
		return nil, err
	}
	return asn1.Marshal(parts)
}
