package webhook

import (
	"context"
	"slices"
	"sync"
	"time"
)

// SignatureRule says who must have signed an image: at least Threshold of AnyOf, each of them somebody else.
type SignatureRule struct {
	AnyOf      []string
	Threshold  int
	Repository RepositoryClaim
	Names      []string // further repositories whose signatures count: what a mirror was copied from
	Platforms  PlatformRule
}

// RepositoryClaim says how the repository that a signature names is held against that of the image. cosign's signatures
// up to v2 name one, sigstore bundles may not.
type RepositoryClaim string

// The ways to treat the repository of a signature. "" is RepositoryMatch.
const (
	RepositoryMatch   RepositoryClaim = "match"   // what it names has to be the image's; a bundle may name none
	RepositoryRequire RepositoryClaim = "require" // it has to name the image's
	RepositoryAny     RepositoryClaim = "any"     // the digest alone counts
)

// PlatformRule says which digest must be signed when an image is one platform of an index, or an index.
type PlatformRule string

// The digests whose signatures count. "" is PlatformsExact.
const (
	PlatformsExact   PlatformRule = "exact"   // the digest that is run
	PlatformsInherit PlatformRule = "inherit" // or the index that its tag names and that lists it
	PlatformsEach    PlatformRule = "each"    // or each runnable platform of the index that is run
)

// A Signature is one valid signature by a trusted signer over one digest.
type Signature struct {
	Signer   string    // its name in the configuration
	Digest   string    // of the image, or of the index or platform that speaks for it
	Identity string    // subject of a keyless certificate; "" for a key
	Issuer   string    // issuer of a keyless identity; "" for a key
	Key      string    // fingerprint of a public key, "" for an identity
	At       time.Time // when it was signed, as far as a log or a timestamp proves it; else zero
}

// Signatures is what was found of an image's signatures.
type Signatures struct {
	Valid    []Signature // by trusted signers, sorted by signer
	Found    int         // all that are attached to the image, valid or not
	Rejected []string    // why the others do not count, in words for a developer; at most a few
	Until    time.Time   // when Valid may cease to hold; zero for never
}

// SignedBy names those of AnyOf who have signed, sorted. Whoever signed counts for one name alone, even if the
// configuration trusts the same key or identity under two: so many names have as many different signers behind them.
func (r SignatureRule) SignedBy(signatures []Signature) []string {
	if len(r.AnyOf) == 1 {
		if slices.ContainsFunc(signatures, func(s Signature) bool { return s.Signer == r.AnyOf[0] }) {
			return r.AnyOf[:1:1]
		}
		return nil
	}
	type principal struct{ identity, issuer, key string }
	behind := map[string][]principal{}
	for _, s := range signatures {
		if slices.Contains(r.AnyOf, s.Signer) {
			behind[s.Signer] = append(behind[s.Signer], principal{s.Identity, s.Issuer, s.Key})
		}
	}
	// A maximum matching of names and principals by augmenting paths.
	nameOf := map[principal]string{}
	var assign func(name string, tried map[principal]bool) bool
	assign = func(name string, tried map[principal]bool) bool {
		for _, p := range behind[name] {
			if tried[p] {
				continue
			}
			tried[p] = true
			if other, taken := nameOf[p]; !taken || assign(other, tried) {
				nameOf[p] = name
				return true
			}
		}
		return false
	}
	var names []string
	for _, name := range slices.Compact(slices.Sorted(slices.Values(r.AnyOf))) {
		if assign(name, map[principal]bool{}) {
			names = append(names, name)
		}
	}
	return names
}

// Satisfied says whether signers have signed as a rule demands.
func (r SignatureRule) Satisfied(signatures []Signature) bool {
	return len(r.SignedBy(signatures)) >= r.Threshold
}

// A Verifier looks for signatures that satisfy rules over an image, whose reference has a digest. It may stop when all
// are. Signatures that cannot be verified are no error: they are counted in Found. An error means that it could not be
// found out whether the rules are satisfied: a *ReadError, or that of ctx.
type Verifier interface {
	Verify(ctx context.Context, ref Reference, rules []SignatureRule) (Signatures, error)
}

// VerifierFunc is a function as a Verifier.
type VerifierFunc func(ctx context.Context, ref Reference, rules []SignatureRule) (Signatures, error)

// Verify calls f.
func (f VerifierFunc) Verify(ctx context.Context, ref Reference, rules []SignatureRule) (Signatures, error) {
	return f(ctx, ref, rules)
}

// AttestationRule says that something must be attested of an image, and by whom.
type AttestationRule struct {
	PredicateType string   // exact: "https://slsa.dev/provenance/v1"
	AnyOf         []string // signers; empty for all that are configured
}

// An Attestation is one statement about a digest, verified like a signature.
type Attestation struct {
	PredicateType string
	Predicate     *Predicate
	Signer        string
	Digest        string // of the image
	Identity      string // as of Signature
	Issuer        string
	At            time.Time
}

// Attestations is what was found of the predicate types that were asked for.
type Attestations struct {
	Valid    []Attestation // sorted by type, signer and time, the newest first
	Found    int           // of those types, valid or not
	Rejected []string      // as of Signatures
	Until    time.Time     // as of Signatures
}

// Satisfied says whether there is a valid attestation as a rule demands.
func (r AttestationRule) Satisfied(attestations []Attestation) bool {
	return slices.ContainsFunc(attestations, func(a Attestation) bool {
		return a.PredicateType == r.PredicateType && (len(r.AnyOf) == 0 || slices.Contains(r.AnyOf, a.Signer))
	})
}

// An Attester looks for attestations of an image, whose reference has a digest. It reads no other types than the rules
// name. Errors are as of Verifier.
type Attester interface {
	Attest(ctx context.Context, ref Reference, rules []AttestationRule) (Attestations, error)
}

// AttesterFunc is a function as an Attester.
type AttesterFunc func(ctx context.Context, ref Reference, rules []AttestationRule) (Attestations, error)

// Attest calls f.
func (f AttesterFunc) Attest(ctx context.Context, ref Reference, rules []AttestationRule) (Attestations, error) {
	return f(ctx, ref, rules)
}

// A Predicate is what an attestation says, as JSON. It is converted into what a policy reads once, and not once a request:
// a bill of materials may have megabytes.
type Predicate struct {
	JSON []byte

	once      sync.Once
	converted any
	err       error
}

// Converted gives what convert makes of the JSON, the first time it is asked for.
func (p *Predicate) Converted(convert func(json []byte) (any, error)) (any, error) {
	p.once.Do(func() { p.converted, p.err = convert(p.JSON) })
	return p.converted, p.err
}
