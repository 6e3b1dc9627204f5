package registrytest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"

	ct "github.com/google/certificate-transparency-go"
	cttls "github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
)

// leafLife is what Fulcio gives.
const leafLife = 10 * time.Minute

// A Certificate says whom a keyless signature names, and how its certificate differs from one that Fulcio issues.
type Certificate struct {
	Identity string // the alternative name: a URI, an e-mail address, or else a DNS name; "" is none
	Issuer   string // who knows the identity, in the extensions .1 and .8; "" is none

	Valid Validity // zero is from the time of signing on, for ten minutes

	NoSCT           bool // the log of certificates did not see it
	SCTByUnknownLog bool // another log saw it, with a key and a name of its own
	SCTByUnknownKey bool // another key says that it is the log

	// Template changes anything else before the certificate is issued, and before the log sees it.
	Template func(*x509.Certificate)
}

// A chain is a certificate that was issued, and those above it with the root last.
type chain struct {
	leaf  *x509.Certificate
	above []*x509.Certificate
}

func (s *Sigstore) makeFulcio() error {
	rootKey, err := newP256()
	if err != nil {
		return err
	}
	if s.intermediateKey, err = newP256(); err != nil {
		return err
	}
	template := s.authority("fulcio", s.config.Root)
	if s.root, err = issue(template, template, rootKey.Public(), rootKey); err != nil {
		return err
	}
	template = s.authority("fulcio intermediate", s.config.Intermediate)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	template.MaxPathLenZero = true
	s.intermediate, err = issue(template, s.root, s.intermediateKey.Public(), rootKey)
	return err
}

func (s *Sigstore) makeTSA() error {
	rootKey, err := newP256()
	if err != nil {
		return err
	}
	if s.stampKey, err = newP256(); err != nil {
		return err
	}
	template := s.authority("timestamp root", s.config.TSA)
	if s.stampRoot, err = issue(template, template, rootKey.Public(), rootKey); err != nil {
		return err
	}
	// RFC 3161, 2.3: the usage is the only one, and critical, which Go's own field would not make it.
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		return fmt.Errorf("registrytest: encode the usage of the timestamp authority: %w", err)
	}
	s.stampLeaf, err = issue(&x509.Certificate{
		Subject:   pkix.Name{CommonName: "timestamp", Organization: []string{s.config.Domain}},
		NotBefore: s.config.TSA.NotBefore, NotAfter: s.config.TSA.NotAfter,
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}, s.stampRoot, s.stampKey.Public(), rootKey)
	return err
}

func (s *Sigstore) authority(name string, valid Validity) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: []string{s.config.Domain}},
		NotBefore: valid.NotBefore, NotAfter: valid.NotAfter,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true,
	}
}

// issue gives the template a serial number unless it has one.
func issue(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	if template.SerialNumber == nil {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
		if err != nil {
			return nil, fmt.Errorf("registrytest: make a serial number: %w", err)
		}
		template.SerialNumber = serial
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("registrytest: issue a certificate: %w", err)
	}
	issued, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("registrytest: read a certificate that was issued: %w", err)
	}
	return issued, nil
}

// issue certifies a key as Fulcio does: what the log saw is a precertificate, and the answer of the log stands in the
// certificate.
func (s *Sigstore) issue(public crypto.PublicKey, as Certificate, at time.Time) (*chain, error) {
	template, err := as.template(at)
	if err != nil {
		return nil, err
	}
	if !as.NoSCT {
		if err := s.embedSCT(template, public, as); err != nil {
			return nil, err
		}
	}
	leaf, err := issue(template, s.intermediate, public, s.intermediateKey)
	if err != nil {
		return nil, err
	}
	return &chain{leaf: leaf, above: []*x509.Certificate{s.intermediate, s.root}}, nil
}

func (c Certificate) template(at time.Time) (*x509.Certificate, error) {
	valid := c.Valid.or(Validity{at, at.Add(leafLife)})
	template := &x509.Certificate{
		NotBefore: valid.NotBefore, NotAfter: valid.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	switch {
	case c.Identity == "":
	case strings.Contains(c.Identity, "://"):
		uri, err := url.Parse(c.Identity)
		if err != nil {
			return nil, fmt.Errorf("registrytest: identity %s: %w", c.Identity, err)
		}
		template.URIs = []*url.URL{uri}
	case strings.Contains(c.Identity, "@"):
		template.EmailAddresses = []string{c.Identity}
	default:
		template.DNSNames = []string{c.Identity}
	}
	if c.Issuer != "" {
		second, err := asn1.MarshalWithParams(c.Issuer, "utf8")
		if err != nil {
			return nil, fmt.Errorf("registrytest: issuer %s: %w", c.Issuer, err)
		}
		template.ExtraExtensions = []pkix.Extension{
			// The first of the two has no ASN.1 in it; it is deprecated and written all the same.
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(c.Issuer)},
			{Id: certificate.OIDIssuerV2, Value: second},
		}
	}
	if c.Template != nil {
		c.Template(template)
	}
	return template, nil
}

// embedSCT has the log sign the certificate to be (RFC 6962, 3.2) and puts its answer into the template, in the place
// where the poison of the precertificate was.
func (s *Sigstore) embedSCT(template *x509.Certificate, public crypto.PublicKey, as Certificate) error {
	poisoned := *template
	poisoned.ExtraExtensions = append(slices.Clone(template.ExtraExtensions), pkix.Extension{
		Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}, Critical: true, Value: asn1.NullBytes,
	})
	pre, err := issue(&poisoned, s.intermediate, public, s.intermediateKey)
	if err != nil {
		return err
	}
	template.SerialNumber = poisoned.SerialNumber
	sct, err := s.seeCertificate(pre, as)
	if err != nil {
		return err
	}
	list, err := x509util.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{sct})
	if err != nil {
		return fmt.Errorf("registrytest: list a certificate's timestamps: %w", err)
	}
	raw, err := cttls.Marshal(*list)
	if err != nil {
		return fmt.Errorf("registrytest: encode a certificate's timestamps: %w", err)
	}
	value, err := asn1.Marshal(raw)
	if err != nil {
		return fmt.Errorf("registrytest: encode a certificate's timestamps: %w", err)
	}
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{
		Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value,
	})
	return nil
}

// seeCertificate is the log's promise to publish a precertificate.
func (s *Sigstore) seeCertificate(pre *x509.Certificate, as Certificate) (*ct.SignedCertificateTimestamp, error) {
	name, key, err := impostor{as.SCTByUnknownLog, as.SCTByUnknownKey}.as(s.ctKey)
	if err != nil {
		return nil, err
	}
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, Timestamp: uint64(pre.NotBefore.UnixMilli())}
	copy(sct.LogID.KeyID[:], name)
	asLogged, err := ct.MerkleTreeLeafFromRawChain([]ct.ASN1Cert{{Data: pre.Raw}, {Data: s.intermediate.Raw}},
		ct.PrecertLogEntryType, sct.Timestamp)
	if err != nil {
		return nil, fmt.Errorf("registrytest: log a certificate: %w", err)
	}
	input, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: *asLogged})
	if err != nil {
		return nil, fmt.Errorf("registrytest: encode a certificate for its log: %w", err)
	}
	signature, err := cttls.CreateSignature(*key, cttls.SHA256, input)
	if err != nil {
		return nil, fmt.Errorf("registrytest: sign a certificate's timestamp: %w", err)
	}
	sct.Signature = ct.DigitallySigned(signature)
	return &sct, nil
}
