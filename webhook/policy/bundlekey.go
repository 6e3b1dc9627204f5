package policy

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/bundle"
)

// minRSA is the shortest RSA key that counts, in bits.
const minRSA = 2048

// verificationKey reads a public key, and fixes the algorithm by it: OPA would take a text that is no key for a shared
// secret.
func verificationKey(encoded []byte) (*bundle.KeyConfig, error) {
	block, _ := pem.Decode(encoded)
	if block == nil {
		return nil, errors.New("the key is not PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("the key is a PEM block %q; want PUBLIC KEY", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("the key cannot be read: %w", err)
	}
	algorithm, err := algorithmOf(key)
	return &bundle.KeyConfig{Key: string(encoded), Algorithm: algorithm}, err
}

// algorithmOf is what opa sign is told for such a key.
func algorithmOf(key any) (string, error) {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		switch bits := key.Curve.Params().BitSize; bits {
		case 256, 384:
			return fmt.Sprintf("ES%d", bits), nil
		case 521:
			return "ES512", nil
		}
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSA {
			return "", fmt.Errorf("the RSA key has %d bits; want at least %d", key.N.BitLen(), minRSA)
		}
		return "RS256", nil
	}
	return "", errors.New("the key is neither RSA nor ECDSA on P-256, P-384 or P-521, with which OPA signs bundles")
}
