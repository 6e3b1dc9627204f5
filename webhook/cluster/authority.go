package cluster

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// An authority is a CA certificate, with its key while it may still issue.
type authority struct {
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey // nil once a newer one issues
	published time.Time         // since when every caBundle holds it; zero for not yet
	retired   time.Time         // since when the serving certificate is another's; zero for not yet
}

// A serving is the certificate that replicas serve, as it stands in the Secret.
type serving struct {
	leaf            *x509.Certificate
	cert, key, root []byte // PEM; root is ca.crt
}

// backdate is how long before now a certificate begins, for clocks that are behind: an hour, or a tenth of a short life.
func backdate(life time.Duration) time.Duration { return min(time.Hour, life/10) }

// mint makes an authority. P-256, as a verification is in the path of each new connection of an API server.
func mint(now time.Time, life time.Duration) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, fmt.Errorf("make a key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return authority{}, err
	}
	// The name has the serial number in it: verifiers look for an issuer by name, and two must not be confused.
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprintf("hallmark webhook CA %x", serial.Bytes()[:4])},
		NotBefore: now.Add(-backdate(life)).Truncate(time.Second), NotAfter: now.Add(life).Truncate(time.Second),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, fmt.Errorf("make an authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert: cert, key: key}, err
}

// issue makes a serving certificate for names, which ends no later than its authority.
func (a authority) issue(now time.Time, life time.Duration, names []string) (serving, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return serving{}, fmt.Errorf("make a key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return serving{}, err
	}
	end := now.Add(life).Truncate(time.Second)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: now.Add(-backdate(life)).Truncate(time.Second), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return serving{}, fmt.Errorf("issue a serving certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return serving{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return serving{leaf: leaf, cert: encodeCert(der), key: encodePEM("PRIVATE KEY", keyDER)}, err
}

// newSerial is a positive number of 127 bits, the first of which is set so that its bytes are always as many.
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return serial.SetBit(serial, 126, 1), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func encodeCert(der []byte) []byte { return encodePEM("CERTIFICATE", der) }

// readServing reads a Secret of type kubernetes.io/tls. A key that does not fit the certificate is an error.
func readServing(cert, key, root []byte) (*serving, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	return &serving{leaf: leaf, cert: cert, key: key, root: root}, nil
}

// signed says whether the authority issued a certificate.
func (a authority) signed(leaf *x509.Certificate) bool {
	return bytes.Equal(leaf.RawIssuer, a.cert.RawSubject) && leaf.CheckSignatureFrom(a.cert) == nil
}

// The Secret of authorities holds one JSON document, so that a reader sees all of it or an error.
type (
	storedAuthorities struct {
		Authorities []storedAuthority `json:"authorities"` // the newest last
	}
	storedAuthority struct {
		Certificate string     `json:"certificate"`
		Key         string     `json:"key,omitempty"`
		Published   *time.Time `json:"published,omitempty"`
		Retired     *time.Time `json:"retired,omitempty"`
	}
)

func encodeAuthorities(list []authority) ([]byte, error) {
	var stored storedAuthorities
	when := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	for _, a := range list {
		s := storedAuthority{Certificate: string(encodeCert(a.cert.Raw)), Published: when(a.published), Retired: when(a.retired)}
		if a.key != nil {
			der, err := x509.MarshalPKCS8PrivateKey(a.key)
			if err != nil {
				return nil, err
			}
			s.Key = string(encodePEM("PRIVATE KEY", der))
		}
		stored.Authorities = append(stored.Authorities, s)
	}
	return json.MarshalIndent(stored, "", "  ")
}

func decodeAuthorities(text []byte) ([]authority, error) {
	var stored storedAuthorities
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&stored); err != nil {
		return nil, err
	}
	var list []authority
	for i, s := range stored.Authorities {
		a, err := s.decode()
		if err != nil {
			return nil, fmt.Errorf("authority %d: %w", i+1, err)
		}
		list = append(list, a)
	}
	if len(list) == 0 {
		return nil, errors.New("it holds no authority")
	}
	return list, nil
}

func (s storedAuthority) decode() (authority, error) {
	certs := parseBundle([]byte(s.Certificate))
	if len(certs) != 1 || !certs[0].IsCA {
		return authority{}, errors.New("its certificate is not that of one CA in PEM")
	}
	a := authority{cert: certs[0]}
	if s.Published != nil {
		a.published = *s.Published
	}
	if s.Retired != nil {
		a.retired = *s.Retired
	}
	if s.Key == "" {
		return a, nil
	}
	block, _ := pem.Decode([]byte(s.Key))
	if block == nil {
		return a, errors.New("its key is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return a, errors.New("its key cannot be read") // never what it says of the bytes
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(a.cert.PublicKey) {
		return a, errors.New("its key does not fit its certificate")
	}
	a.key = key
	return a, nil
}

// parseBundle gives the certificates of a caBundle and passes over what is none.
func parseBundle(bundle []byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			certs = append(certs, cert)
		}
	}
	return certs
}

// holds says whether a bundle has the authority.
func holds(bundle []*x509.Certificate, cert *x509.Certificate) bool {
	for _, c := range bundle {
		if c.Equal(cert) {
			return true
		}
	}
	return false
}
