package registrytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// NewKey makes a signing key as cosign does, ECDSA on P-256, and the public half as PEM.
func NewKey() (private crypto.Signer, publicPEM string, err error) {
	return NewECDSAKey(elliptic.P256())
}

// NewECDSAKey makes a signing key on a curve of choice.
func NewECDSAKey(curve elliptic.Curve) (private crypto.Signer, publicPEM string, err error) {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("registrytest: make an ECDSA key: %w", err)
	}
	return withPublicPEM(key)
}

// NewRSAKey makes an RSA signing key of 2048, 3072 or 4096 bits.
func NewRSAKey(bits int) (private crypto.Signer, publicPEM string, err error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, "", fmt.Errorf("registrytest: make an RSA key: %w", err)
	}
	return withPublicPEM(key)
}

// NewEd25519Key makes an Ed25519 signing key.
func NewEd25519Key() (private crypto.Signer, publicPEM string, err error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("registrytest: make an Ed25519 key: %w", err)
	}
	return withPublicPEM(key)
}

func withPublicPEM(key crypto.Signer) (crypto.Signer, string, error) {
	encoded, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		return nil, "", fmt.Errorf("registrytest: encode a public key: %w", err)
	}
	return key, string(encoded), nil
}
