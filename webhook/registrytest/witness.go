package registrytest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// The annotations of a layer beside SignatureAnnotation.
const (
	CertificateAnnotation = "dev.sigstore.cosign/certificate"      // the certificate as PEM
	ChainAnnotation       = "dev.sigstore.cosign/chain"            // those above it as PEM, the root last
	BundleAnnotation      = "dev.sigstore.cosign/bundle"           // Rekor's promise and its entry as JSON
	TimestampAnnotation   = "dev.sigstore.cosign/rfc3161timestamp" // a timestamp as JSON
)

// A Witness says who else saw a signature. The zero value is nobody for a key, and for a certificate the log of the
// authority that issued it.
type Witness struct {
	// At is when it was signed, certified, logged and stamped; zero is the present of the first of the authority that
	// certifies, Log and Timestamp.
	At time.Time

	Log               *Sigstore // who logs it; nil is the authority that issued the certificate
	NoLog             bool      // nobody does
	LogIntegratedTime time.Time // when the log says that it saw it, instead of At
	LogByUnknownKey   bool      // another key says that it is the log
	UnknownLog        bool      // another log saw it, with a key and a name of its own
	NoPromise         bool      // a bundle's entry lacks the signed entry timestamp
	NoProof           bool      // a bundle's entry lacks the inclusion proof

	Timestamp   *Sigstore // who stamps it; nil is nobody
	TimestampAt time.Time // when it says that it did, instead of At
}

// A Signer is who signs: a key, or who was given a certificate for a key that is thrown away.
type Signer struct {
	Key crypto.Signer
	// SHA256 has the key sign as cosign did up to v2.4: SHA-256 with every curve, and Ed25519 not pre-hashed. Of P-384,
	// P-521 and Ed25519, Rekor's first version takes envelopes only so.
	SHA256 bool

	Keyless     *Sigstore // issues the certificate; nil: Key signs
	Certificate Certificate
}

// A signer is a Signer that is ready.
type signer struct {
	key    crypto.Signer
	sha256 bool
	chain  *chain // nil: a key alone
}

// prepare fills in the defaults of the witness, and makes a key with its certificate if need be.
func (s Signer) prepare(w *Witness) (*signer, error) {
	if (s.Key == nil) == (s.Keyless == nil) {
		return nil, errors.New("registrytest: sign either with a key or keyless")
	}
	if w.Log == nil {
		w.Log = s.Keyless
	}
	if w.NoLog {
		w.Log = nil
	}
	for _, clock := range []*Sigstore{s.Keyless, w.Log, w.Timestamp} {
		if w.At.IsZero() && clock != nil {
			w.At = clock.now()
		}
	}
	if s.Key != nil {
		return &signer{key: s.Key, sha256: s.SHA256}, nil
	}
	key, err := newP256()
	if err != nil {
		return nil, err
	}
	chain, err := s.Keyless.issue(key.Public(), s.Certificate, w.At)
	if err != nil {
		return nil, err
	}
	return &signer{key: key, chain: chain}, nil
}

func (s *signer) sign(message []byte) ([]byte, error) {
	load := func() (signature.Signer, error) { return signature.LoadDefaultSigner(s.key, options.WithED25519ph()) }
	if s.sha256 {
		load = func() (signature.Signer, error) { return signature.LoadSigner(s.key, crypto.SHA256) }
	}
	loaded, err := load()
	if err != nil {
		return nil, fmt.Errorf("registrytest: load the key: %w", err)
	}
	raw, err := loaded.SignMessage(bytes.NewReader(message))
	if err != nil {
		return nil, fmt.Errorf("registrytest: sign: %w", err)
	}
	return raw, nil
}

// digest hashes as sign does.
func (s *signer) digest(message []byte) (crypto.Hash, []byte) {
	hash := crypto.SHA256
	details, err := signature.GetDefaultAlgorithmDetails(s.key.Public(), options.WithED25519ph())
	if err == nil && !s.sha256 && details.GetHashType() != 0 {
		hash = details.GetHashType()
	}
	hasher := hash.New()
	_, _ = hasher.Write(message)
	return hash, hasher.Sum(nil)
}

// publicPEM is the certificate, or else the public key.
func (s *signer) publicPEM() ([]byte, error) {
	if s.chain != nil {
		return cryptoutils.MarshalCertificateToPEM(s.chain.leaf)
	}
	return cryptoutils.MarshalPublicKeyToPEM(s.key.Public())
}

func (w Witness) logTime() time.Time {
	if w.LogIntegratedTime.IsZero() {
		return w.At
	}
	return w.LogIntegratedTime
}

// A testimony is what the witnesses say; what they do not say is nil.
type testimony struct {
	by        *signer
	entry     *protorekor.TransparencyLogEntry
	timestamp []byte
}

// testify has a signature logged, and some bytes of it stamped.
func (w Witness) testify(ctx context.Context, r record, stamped []byte) (*testimony, error) {
	t := &testimony{by: r.by}
	var err error
	if w.Log != nil {
		if t.entry, err = w.Log.log(ctx, r, w); err != nil {
			return nil, err
		}
	}
	if w.Timestamp != nil {
		at := w.TimestampAt
		if at.IsZero() {
			at = w.At
		}
		if t.timestamp, err = w.Timestamp.stamp(stamped, at); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// annotate says it in the annotations of a layer, as cosign v2 does.
func (t *testimony) annotate(annotations map[string]string) error {
	if t.by.chain != nil {
		leaf, err := t.by.publicPEM()
		if err != nil {
			return fmt.Errorf("registrytest: encode a certificate: %w", err)
		}
		above, err := cryptoutils.MarshalCertificatesToPEM(t.by.chain.above)
		if err != nil {
			return fmt.Errorf("registrytest: encode a chain: %w", err)
		}
		annotations[CertificateAnnotation], annotations[ChainAnnotation] = string(leaf), string(above)
	}
	if t.entry != nil {
		if t.entry.InclusionPromise == nil {
			return errors.New("registrytest: the entry of a log of the second version fits into bundles only")
		}
		encoded, err := json.Marshal(struct {
			SignedEntryTimestamp []byte
			Payload              tlog.RekorPayload
		}{t.entry.InclusionPromise.SignedEntryTimestamp, rekorPayload(t.entry)})
		if err != nil {
			return fmt.Errorf("registrytest: encode an entry: %w", err)
		}
		annotations[BundleAnnotation] = string(encoded)
	}
	if t.timestamp != nil {
		encoded, err := json.Marshal(struct{ SignedRFC3161Timestamp []byte }{t.timestamp})
		if err != nil {
			return fmt.Errorf("registrytest: encode a timestamp: %w", err)
		}
		annotations[TimestampAnnotation] = string(encoded)
	}
	return nil
}

// material says it in a bundle, as cosign v2 and v3 do.
func (t *testimony) material(w Witness) (*protobundle.VerificationMaterial, error) {
	material := &protobundle.VerificationMaterial{}
	if t.by.chain != nil {
		material.Content = &protobundle.VerificationMaterial_Certificate{
			Certificate: &protocommon.X509Certificate{RawBytes: t.by.chain.leaf.Raw},
		}
	} else {
		hint, err := keyHint(t.by.key.Public())
		if err != nil {
			return nil, err
		}
		material.Content = &protobundle.VerificationMaterial_PublicKey{
			PublicKey: &protocommon.PublicKeyIdentifier{Hint: hint},
		}
	}
	if t.entry != nil {
		if w.NoPromise {
			t.entry.InclusionPromise = nil
		}
		if w.NoProof {
			t.entry.InclusionProof = nil
		}
		material.TlogEntries = []*protorekor.TransparencyLogEntry{t.entry}
	}
	if t.timestamp != nil {
		material.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: t.timestamp}},
		}
	}
	return material, nil
}

// keyHint names a key as cosign does: the hash of it in base64.
func keyHint(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("registrytest: encode a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}
