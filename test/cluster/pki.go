package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	// certificateLife outlasts any test and makes a key that leaks worthless.
	certificateLife = 24 * time.Hour
	// clockSkew lets a certificate start before now, as clocks of one machine may step back.
	clockSkew = time.Hour
)

// pki is the key material of one cluster, as paths of PEM files.
type pki struct {
	authority         string // certificate that signed the server's
	certificate, key  string // of the API server
	serviceAccountKey string // signs service account tokens
}

// writePKI creates an authority, which is forgotten at once, a server certificate for the addresses and a key for
// service account tokens. The API server could sign its own certificate, but then a client would have to wait for it
// before it knew whom to trust.
func writePKI(dir string, addresses []net.IP) (pki, error) {
	files := pki{
		authority:         filepath.Join(dir, "ca.crt"),
		certificate:       filepath.Join(dir, "apiserver.crt"),
		key:               filepath.Join(dir, "apiserver.key"),
		serviceAccountKey: filepath.Join(dir, "service-account.key"),
	}
	var keys [3]*ecdsa.PrivateKey
	for i := range keys {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return pki{}, fmt.Errorf("generate a key: %w", err)
		}
		keys[i] = key
	}
	authorityKey, serverKey, accountKey := keys[0], keys[1], keys[2]

	authority := template(1, "hallmark-test-ca")
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage = x509.KeyUsageCertSign
	server := template(2, "kube-apiserver")
	server.KeyUsage = x509.KeyUsageDigitalSignature
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	server.IPAddresses = addresses

	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		return pki{}, fmt.Errorf("sign the authority: %w", err)
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, authority, &serverKey.PublicKey, authorityKey)
	if err != nil {
		return pki{}, fmt.Errorf("sign the server certificate: %w", err)
	}
	for path, der := range map[string][]byte{files.authority: authorityDER, files.certificate: serverDER} {
		if err := writePEM(path, "CERTIFICATE", der); err != nil {
			return pki{}, err
		}
	}
	for path, key := range map[string]*ecdsa.PrivateKey{files.key: serverKey, files.serviceAccountKey: accountKey} {
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return pki{}, fmt.Errorf("encode a key: %w", err)
		}
		if err := writePEM(path, "EC PRIVATE KEY", der); err != nil {
			return pki{}, err
		}
	}
	return files, nil
}

// template is what both certificates share.
func template(serial int64, name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(certificateLife),
	}
}

func writePEM(path, kind string, der []byte) error {
	content := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("write a key or certificate: %w", err)
	}
	return nil
}
