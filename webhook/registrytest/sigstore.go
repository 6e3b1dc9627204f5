package registrytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
)

const defaultLife = 365 * 24 * time.Hour

// SigstoreConfig of an authority. The zero value is valid from a year ago until in a year.
type SigstoreConfig struct {
	// Domain ends the host names of its services, as in https://rekor.sigstore.test, and the names in its
	// certificates; "" is sigstore.test.
	Domain string
	// Now is when it signs if nothing else is said; nil is time.Now.
	Now func() time.Time

	Root         Validity // of Fulcio's root certificate, and of the authority in the trusted root
	Intermediate Validity // of the certificate that issues; zero as Root
	CTLog        Validity // of the key of the log of certificates; zero as Root
	Log          Validity // of Rekor's key; zero as Root
	TSA          Validity // of the certificates of the timestamp authority; zero as Root

	// RekorV2 has the log write entries of the second version, which have no time: what is logged there must be
	// stamped. They are for bundles alone.
	RekorV2 bool
}

// Validity is a period; a zero time leaves it to the default.
type Validity struct{ NotBefore, NotAfter time.Time }

func (v Validity) or(other Validity) Validity {
	if v.NotBefore.IsZero() {
		v.NotBefore = other.NotBefore
	}
	if v.NotAfter.IsZero() {
		v.NotAfter = other.NotAfter
	}
	return v
}

// A Sigstore is everything that vouches for keyless signatures, in memory and without a connection: an authority like
// Fulcio with a log of its certificates, a log like Rekor, and a timestamp authority. All its keys are thrown away with
// it. Two that were made of the same SigstoreConfig have the same names and other keys. Its methods may be called
// concurrently.
type Sigstore struct {
	config SigstoreConfig

	root, intermediate        *x509.Certificate
	intermediateKey           *ecdsa.PrivateKey
	stampRoot, stampLeaf      *x509.Certificate
	stampKey, ctKey, rekorKey *ecdsa.PrivateKey

	mu     sync.Mutex
	leaves [][]byte // the hashes of Rekor's entries
}

// NewSigstore makes the keys and certificates of an authority.
func NewSigstore(config SigstoreConfig) (*Sigstore, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Sigstore{config: config}
	for _, key := range []**ecdsa.PrivateKey{&s.ctKey, &s.rekorKey} {
		if *key, err = newP256(); err != nil {
			return nil, err
		}
	}
	if err := s.makeFulcio(); err != nil {
		return nil, err
	}
	return s, s.makeTSA()
}

func (c SigstoreConfig) withDefaults() (SigstoreConfig, error) {
	if c.Domain == "" {
		c.Domain = "sigstore.test"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	now := c.Now().UTC().Truncate(time.Second)
	c.Root = c.Root.or(Validity{now.Add(-defaultLife), now.Add(defaultLife)})
	periods := []struct {
		name   string
		period *Validity
	}{
		{"Root", &c.Root}, {"Intermediate", &c.Intermediate}, {"CTLog", &c.CTLog}, {"Log", &c.Log}, {"TSA", &c.TSA},
	}
	var problems []error
	for _, p := range periods {
		if *p.period = p.period.or(c.Root); !p.period.NotBefore.Before(p.period.NotAfter) {
			problems = append(problems, fmt.Errorf("registrytest: SigstoreConfig.%s ends before it begins", p.name))
		}
	}
	return c, errors.Join(problems...)
}

func (s *Sigstore) now() time.Time { return s.config.Now().UTC().Truncate(time.Second) }

func (s *Sigstore) url(service string) string { return "https://" + s.host(service) }

func (s *Sigstore) host(service string) string { return service + "." + s.config.Domain }

// TrustedRootJSON is the trusted_root.json that has a client trust this authority, and the others.
func (s *Sigstore) TrustedRootJSON(others ...*Sigstore) ([]byte, error) {
	var (
		authorities []root.CertificateAuthority
		stampers    []root.TimestampingAuthority
		ctLogs      = map[string]*root.TransparencyLog{}
		logs        = map[string]*root.TransparencyLog{}
	)
	for _, s := range append([]*Sigstore{s}, others...) {
		authorities = append(authorities, &root.FulcioCertificateAuthority{
			Root: s.root, Intermediates: []*x509.Certificate{s.intermediate}, URI: s.url("fulcio"),
			ValidityPeriodStart: s.config.Root.NotBefore, ValidityPeriodEnd: s.config.Root.NotAfter,
		})
		stampers = append(stampers, &root.SigstoreTimestampingAuthority{
			Root: s.stampRoot, Leaf: s.stampLeaf, URI: s.url("timestamp"),
			ValidityPeriodStart: s.config.TSA.NotBefore, ValidityPeriodEnd: s.config.TSA.NotAfter,
		})
		for _, log := range []struct {
			service string
			key     *ecdsa.PrivateKey
			valid   Validity
			into    map[string]*root.TransparencyLog
		}{{"ctfe", s.ctKey, s.config.CTLog, ctLogs}, {"rekor", s.rekorKey, s.config.Log, logs}} {
			id, err := logID(log.key.Public())
			if err != nil {
				return nil, err
			}
			log.into[hex.EncodeToString(id)] = &root.TransparencyLog{
				BaseURL: s.url(log.service), ID: id, PublicKey: log.key.Public(),
				HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256,
				ValidityPeriodStart: log.valid.NotBefore, ValidityPeriodEnd: log.valid.NotAfter,
			}
		}
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, authorities, ctLogs, stampers, logs)
	if err != nil {
		return nil, fmt.Errorf("registrytest: make the trusted root: %w", err)
	}
	encoded, err := trusted.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("registrytest: encode the trusted root: %w", err)
	}
	return encoded, nil
}

// logID names a log, of certificates (RFC 6962, 3.2) or of signatures: the hash of its public key.
func logID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("registrytest: encode a log's key: %w", err)
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}

func newP256() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("registrytest: make an authority's key: %w", err)
	}
	return key, nil
}
