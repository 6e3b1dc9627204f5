package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"google.golang.org/protobuf/encoding/protojson"
)

const passwordVariable = "COSIGN_PASSWORD"

// A key signs. Its signatures depend on nothing but key and content (RFC 6979), so that a release can be made twice and be
// the same, signatures included.
type key struct {
	private *ecdsa.PrivateKey
	public  []byte // PEM
	hint    []byte
}

// readKey reads a private key as `cosign generate-key-pair` writes it, or one in PKCS #8 or SEC 1 without a password.
func readKey(path string) (*key, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	read, err := cryptoutils.UnmarshalPEMToPrivateKey(text, func(bool) ([]byte, error) {
		password, ok := os.LookupEnv(passwordVariable)
		if !ok {
			return nil, errors.New("it has a password; put that into " + passwordVariable)
		}
		return []byte(password), nil
	})
	if err != nil {
		return nil, fmt.Errorf("open the key %s (%s has its password): %w", path, passwordVariable, err)
	}
	private, ok := read.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, fmt.Errorf("the key %s is a %T; releases are signed with ECDSA on P-256, as cosign generate-key-pair makes it", path, read)
	}
	der, err := cryptoutils.MarshalPublicKeyToDER(private.Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &key{
		private: private, public: cryptoutils.PEMEncode(cryptoutils.PublicKeyPEMType, der),
		hint: []byte(base64.StdEncoding.EncodeToString(sum[:])),
	}, nil
}

// sign gives the signature of content, ASN.1. Without a source of chance it is the one of RFC 6979.
func (k *key) sign(content []byte) ([]byte, error) {
	digest := sha256.Sum256(content)
	return k.private.Sign(nil, digest[:], crypto.SHA256)
}

// bundle signs in the form that cosign v3 writes by itself (sigstore bundle v0.3).
func (k *key) bundle(ctx context.Context, content sign.Content) ([]byte, error) {
	made, err := sign.Bundle(content, keypair{k}, sign.BundleOptions{Context: ctx})
	if err != nil {
		return nil, fmt.Errorf("sign a bundle: %w", err)
	}
	encoded, err := protojson.Marshal(made)
	if err != nil {
		return nil, err
	}
	return stable(encoded) // protojson puts spaces where it likes
}

// keypair is a key as sigstore-go wants it.
type keypair struct{ *key }

func (k keypair) GetHashAlgorithm() protocommon.HashAlgorithm {
	return protocommon.HashAlgorithm_SHA2_256
}
func (k keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256
}
func (k keypair) GetHint() []byte                  { return k.hint }
func (k keypair) GetKeyAlgorithm() string          { return "ECDSA" }
func (k keypair) GetPublicKey() crypto.PublicKey   { return k.private.Public() }
func (k keypair) GetPublicKeyPem() (string, error) { return string(k.public), nil }
func (k keypair) SignData(_ context.Context, data []byte) (signature, digest []byte, err error) {
	sum := sha256.Sum256(data)
	signature, err = k.sign(data)
	return signature, sum[:], err
}

// mustBe refuses to sign with another key than the one that users verify with.
func (k *key) mustBe(public string) error {
	text, err := os.ReadFile(public)
	if err != nil {
		return fmt.Errorf("read the public key: %w", err)
	}
	known, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	if err != nil {
		return fmt.Errorf("read the public key %s: %w", public, err)
	}
	if !k.private.PublicKey.Equal(known) {
		return fmt.Errorf("the key is not the one of %s, which users know; sign with that one, or publish the new one first", public)
	}
	return nil
}
