package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// minRSABits: below it a key is within reach of factoring (NIST SP 800-131A).
const minRSABits = 2048

// A key is a public key that was loaded. Its verifiers are the ways in which cosign has signed with such a key; a
// signature by any of them counts.
type key struct {
	public      crypto.PublicKey
	fingerprint string // SHA-256 of the key in PKIX, in hexadecimal
	verifiers   []sigstore.Verifier
}

func newKey(public crypto.PublicKey) (*key, error) {
	verifiers, err := verifiersFor(public)
	if err != nil {
		return nil, err
	}
	encoded, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("the key cannot be used: %w", err)
	}
	return &key{public: public, fingerprint: fmt.Sprintf("%x", sha256.Sum256(encoded)), verifiers: verifiers}, nil
}

// parsePublicKey wants one PEM block that holds a public key. Its errors never quote the text: a private key may have
// been pasted.
func parsePublicKey(encoded []byte) (crypto.PublicKey, error) {
	block, rest := pem.Decode(encoded)
	if block == nil {
		return nil, errors.New("the key is not in PEM (-----BEGIN PUBLIC KEY-----)")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("there is more than one key, or something after it; make each key a signer of its own")
	}
	switch {
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return nil, errors.New("this is a private key; give the public one (cosign public-key), " +
			"and replace the pair, since it has been disclosed")
	case block.Type == "CERTIFICATE":
		return nil, errors.New("this is a certificate; give the public key in it (openssl x509 -pubkey -noout)")
	case block.Type == "PUBLIC KEY":
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("the public key cannot be read, or is of a kind that is not supported " +
				"(ECDSA, RSA and Ed25519 are)")
		}
		return public, nil
	case block.Type == "RSA PUBLIC KEY":
		public, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("the RSA public key cannot be read")
		}
		return public, nil
	}
	return nil, errors.New("this is no public key (-----BEGIN PUBLIC KEY-----)")
}

// verifiersFor refuses weak keys. Up to v2.4 cosign signed with SHA-256 whatever the curve, and with Ed25519 as it is;
// since v2.5 it takes the hash that goes with the curve (SHA-384 for P-384), and Ed25519ph.
func verifiersFor(public crypto.PublicKey) ([]sigstore.Verifier, error) {
	loaders := []func() (sigstore.Verifier, error){
		func() (sigstore.Verifier, error) { return sigstore.LoadVerifier(public, crypto.SHA256) },
	}
	present := func() (sigstore.Verifier, error) {
		return sigstore.LoadDefaultVerifier(public, options.WithED25519ph())
	}
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits is too weak; use %d or more", k.N.BitLen(), minRSABits)
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
		case elliptic.P384(), elliptic.P521():
			loaders = append(loaders, present)
		default:
			return nil, errors.New("this ECDSA curve is not supported; use P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
		loaders = append(loaders, present)
	default:
		return nil, errors.New("this kind of key is not supported; use ECDSA, RSA or Ed25519")
	}
	verifiers := make([]sigstore.Verifier, len(loaders))
	for i, load := range loaders {
		var err error
		if verifiers[i], err = load(); err != nil {
			return nil, fmt.Errorf("the key cannot be used: %w", err)
		}
	}
	return verifiers, nil
}
