package signature

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Config of a Verifier.
type Config struct {
	Signers map[string]Signer // by name, as rules and messages know them
	Fetch   Fetcher           // where signatures are read
	Limits  Limits

	// BindIdentity has a signature count only for the repository that it names, so that an image signed for one
	// repository cannot be passed off in another. nil is true. Without it a signature holds wherever the digest is.
	BindIdentity *bool
}

// A Signer is a public key in PEM, given as text or as a file that New reads; one of the two.
type Signer struct {
	KeyPEM  string
	KeyFile string
}

// Limits bound what one verification reads. Zero fields have the defaults given here.
type Limits struct {
	Signatures     int   // attached to one digest; more is an error. 100
	SignatureBytes int64 // read for one digest, half of it for the manifest, the rest in equal parts. 8 MiB
}

// A Fetcher reads what is stored under a reference and a digest, and checks it against that digest. Errors are
// *webhook.ReadError or those of ctx.
type Fetcher interface {
	Manifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error)
	Blob(ctx context.Context, ref webhook.Reference, digest string, maxBytes int64) ([]byte, error)
}

// A Verifier finds the signatures of images. It implements webhook.Verifier and may be used concurrently.
type Verifier struct {
	keys          map[string]key
	fetch         Fetcher
	bindIdentity  bool
	maxSignatures int
	manifestBytes int64 // of the signature manifest
	payloadBytes  int64 // of each signature's payload
}

// New checks the configuration, loads the keys and reports everything that is wrong.
func New(config Config) (*Verifier, error) {
	if config.Limits.Signatures == 0 {
		config.Limits.Signatures = 100
	}
	if config.Limits.SignatureBytes == 0 {
		config.Limits.SignatureBytes = 8 << 20
	}
	var problems []error
	if config.Fetch == nil {
		problems = append(problems, errors.New("signature.Config.Fetch is missing"))
	}
	v := &Verifier{
		keys:         make(map[string]key, len(config.Signers)),
		fetch:        config.Fetch,
		bindIdentity: config.BindIdentity == nil || *config.BindIdentity,
	}
	if n, size := config.Limits.Signatures, config.Limits.SignatureBytes; n < 0 || size/2 < int64(n) {
		problems = append(problems, errors.New("limits: signatures is negative, or signatureBytes leaves nothing for each"))
	} else {
		v.maxSignatures, v.manifestBytes, v.payloadBytes = n, size/2, size/2/int64(n)
	}
	for _, name := range slices.Sorted(maps.Keys(config.Signers)) {
		loaded, err := config.Signers[name].load(name)
		if err != nil {
			problems = append(problems, fmt.Errorf("signer %s: %w", webhook.Quote(name), err))
			continue
		}
		v.keys[name] = loaded
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return v, nil
}

// Verify implements webhook.Verifier for an image of which ref has the digest. It costs one request when nothing is
// attached, and one more for each different payload until every rule is satisfied.
func (v *Verifier) Verify(ctx context.Context, ref webhook.Reference, rules []webhook.SignatureRule) (webhook.Signatures, error) {
	var signers []string
	for _, rule := range rules {
		signers = append(signers, rule.AnyOf...)
	}
	asked := make([]key, 0, len(signers))
	for _, name := range slices.Compact(slices.Sorted(slices.Values(signers))) {
		k, ok := v.keys[name]
		if !ok {
			return webhook.Signatures{}, fmt.Errorf("signature: there is no signer %s", webhook.Quote(name))
		}
		asked = append(asked, k)
	}
	if ref.Digest == "" {
		return webhook.Signatures{}, fmt.Errorf("signature: %s has no digest to verify", ref)
	}
	manifest, err := v.fetch.Manifest(ctx, ref.WithTag(signatureTag(ref.Digest)), v.manifestBytes)
	if err != nil {
		var read *webhook.ReadError
		if errors.As(err, &read) && read.Failure == webhook.NotFound {
			return webhook.Signatures{}, nil
		}
		return webhook.Signatures{}, err
	}
	attached, err := parseManifest(manifest, v.maxSignatures)
	if err != nil {
		return webhook.Signatures{}, &webhook.ReadError{
			Failure: webhook.Invalid, Registry: ref.Registry,
			Reason: fmt.Sprintf("%v for %s@%s", err, ref.Repository, webhook.ShortDigest(ref.Digest)),
		}
	}
	if len(asked) == 0 {
		return webhook.Signatures{Found: len(attached)}, nil
	}
	return v.search(ctx, request{ref, rules, asked}, attached)
}

// signatureTag is where cosign v2 keeps the signatures of a digest: "sha256-<hex>.sig".
func signatureTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }
