package signature

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/hallmark-admission/hallmark/webhook"
)

// TrustTUF as a Signer's TrustedRoot is the root that is read by TUF (TrustConfig.TUF).
const TrustTUF = "tuf"

// TrustConfig says whom to believe.
type TrustConfig struct {
	Signers map[string]Signer // by name, as rules and messages know them
	TUF     TUF               // where the root of signers with TrustTUF is read; the public-good instance when zero
	Now     func() time.Time
	Report  func(what string, err error) // told when something could not be read from outside; may be nil
	Before  *Trust                       // what it has from outside is used until it was read again; nil at first

	ReadFile func(name string) ([]byte, error) // reads the files of signers and of TUF, in NewTrust; nil is os.ReadFile
}

// A Signer is whose signatures count: one of a key (KeyPEM, KeyFile, KMS) and an identity (Keyless).
type Signer struct {
	KeyPEM  string // PEM of a public key
	KeyFile string // file with the same
	KMS     string // awskms://, azurekms://, gcpkms://, hashivault://; the public key is read behind requests
	Keyless *Identity

	TrustedRoot string // file in sigstore's trusted_root.json format, or TrustTUF; keys may do without

	// When a key's signatures count: those that a log or a timestamp proves to be from that time, and without a proof
	// those that are looked at in that time. Zero is no limit.
	NotBefore, NotAfter time.Time

	Log       Demand // entry in a transparency log. Default: required for an identity, else ignored without a root
	Timestamp Demand // RFC 3161. Default: optional with a root, else ignored
	SCT       Demand // of an identity's certificate: required (the default) or ignored
}

// An Identity is in a certificate of the authority of a trusted root.
type Identity struct {
	Issuer         string // exact
	Subject        string // exact, or
	SubjectPattern string // a regular expression for all of it
}

// A Demand says what is wanted of a proof that can come with a signature.
type Demand string

// The demands. "" is the default of the place.
const (
	Required Demand = "required" // no signature counts without it
	Optional Demand = "optional" // it may be missing; what it proves is used
	Ignored  Demand = "ignored"  // it is not looked at
)

// Trust is whom to believe, loaded. It may be shared by Verifiers, and is closed after them.
type Trust struct {
	signers map[string]*signer
	now     func() time.Time
	outside map[string]outside // by what it is
	reading chan struct{}      // held while an attestation is read
	habits  habits
	hash    atomic.Pointer[versioned]
	version atomic.Int64 // counts what changed outside
}

// NewTrust loads keys and roots and reports everything that is wrong with them. What is not in a file is read behind, and
// signers who depend on it cannot be told from unknown ones until it is there; ctx is for values, not for the time.
func NewTrust(ctx context.Context, config TrustConfig) (*Trust, error) {
	if config.Now == nil {
		return nil, errors.New("signature.TrustConfig.Now is missing")
	}
	if config.ReadFile == nil {
		config.ReadFile = os.ReadFile
	}
	t := &Trust{signers: make(map[string]*signer, len(config.Signers)), now: config.Now, outside: map[string]outside{},
		reading: make(chan struct{}, allAttestations)}
	l := loader{ctx: ctx, config: config, trust: t, files: map[string]source[*trustedRoot]{}}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(config.Signers)) {
		loaded, err := l.load(name, config.Signers[name])
		if err != nil {
			problems = append(problems, fmt.Errorf("signer %s: %w", webhook.Quote(name), err))
			continue
		}
		t.signers[name] = loaded
	}
	if err := errors.Join(problems...); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Close ends the reading of what comes from outside.
func (t *Trust) Close() {
	for _, o := range t.outside {
		o.close()
	}
}

// Hash names whom one trusts now: it is another one when a key, a root or a demand is.
func (t *Trust) Hash() string {
	version := t.version.Load()
	if known := t.hash.Load(); known != nil && known.version == version {
		return known.text
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(t.signers)) {
		fmt.Fprintf(h, "%s\x00%s\x00", name, t.signers[name].describe())
	}
	hash := fmt.Sprintf("%x", h.Sum(nil))[:16]
	t.hash.Store(&versioned{hash, version})
	return hash
}

// A versioned hash was made when so much had changed.
type versioned struct {
	text    string
	version int64
}

// A source has something that may not be there yet. Its get never waits.
type source[T any] interface{ get() (T, error) }

// A loaded value is its own source.
type loaded[T any] struct{ value T }

func (l loaded[T]) get() (T, error) { return l.value, nil }

// A trustedRoot is the authorities and logs that certificates and timestamps are held against.
type trustedRoot struct {
	root.TrustedMaterial
	hash  string    // of the file
	until time.Time // when what vouches for it expires; zero for never
}

// A loader loads signers, and each root only once.
type loader struct {
	ctx    context.Context //nolint:containedctx // it lives no longer than NewTrust
	config TrustConfig
	trust  *Trust
	files  map[string]source[*trustedRoot]
}

func (l *loader) load(name string, s Signer) (*signer, error) {
	var problems []error
	made := &signer{name: name, config: s}
	given := 0
	for _, is := range []bool{s.KeyPEM != "", s.KeyFile != "", s.KMS != "", s.Keyless != nil} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		problems = append(problems, errors.New("it has no key; give the public key (cosign.pub), or an identity"))
	case given > 1:
		problems = append(problems, errors.New("it has more than one of a key, a key file, a KMS key and an identity; "+
			"make each a signer of its own"))
	case s.Keyless != nil:
		identity, err := s.Keyless.compile()
		problems = append(problems, err)
		made.identity = identity
	default:
		key, err := l.key(s)
		problems = append(problems, err)
		made.key = key
	}
	if s.TrustedRoot != "" {
		trusted, err := l.root(s.TrustedRoot)
		problems = append(problems, err)
		made.root = trusted
	}
	problems = append(problems, made.demand(s))
	return made, errors.Join(problems...)
}

func (l *loader) key(s Signer) (source[*key], error) {
	encoded := []byte(s.KeyPEM)
	if s.KMS != "" {
		return l.kms(s.KMS)
	}
	if s.KeyFile != "" {
		var err error
		if encoded, err = l.config.ReadFile(s.KeyFile); err != nil {
			return nil, fmt.Errorf("key file: %w", err)
		}
	}
	public, err := parsePublicKey(encoded)
	if err != nil {
		return nil, err
	}
	k, err := newKey(public)
	return loaded[*key]{k}, err
}

func (l *loader) root(name string) (source[*trustedRoot], error) {
	if known, ok := l.files[name]; ok {
		return known, nil
	}
	var made source[*trustedRoot]
	if name == TrustTUF {
		var err error
		if made, err = l.tuf(); err != nil {
			return nil, err
		}
	} else {
		text, err := l.config.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("trusted root: %w", err)
		}
		trusted, err := parseTrustedRoot(text)
		if err != nil {
			return nil, fmt.Errorf("trusted root %s: %w", name, err)
		}
		made = loaded[*trustedRoot]{trusted}
	}
	l.files[name] = made
	return made, nil
}

func parseTrustedRoot(text []byte) (*trustedRoot, error) {
	trusted, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		return nil, fmt.Errorf("it is not in the format of sigstore's trusted_root.json: %w", err)
	}
	sum := sha256.Sum256(text)
	return &trustedRoot{TrustedMaterial: trusted, hash: fmt.Sprintf("%x", sum)}, nil
}

// describe is everything that decides whether a signature by the signer counts.
func (s *signer) describe() string {
	var b strings.Builder
	c := s.config
	fmt.Fprintf(&b, "%s %s %s %s %s ", s.log, s.timestamp, s.sct, c.NotBefore, c.NotAfter)
	if s.identity != nil {
		fmt.Fprintf(&b, "%q", *c.Keyless)
	}
	if s.key != nil {
		if k, err := s.key.get(); err == nil {
			b.WriteString(k.fingerprint)
		}
	}
	if s.root != nil {
		if r, err := s.root.get(); err == nil {
			b.WriteString(" " + r.hash)
		}
	}
	return b.String()
}
