package signature

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Config of a Verifier.
type Config struct {
	Trust  *Trust  // whom to believe
	Fetch  Fetcher // where signatures are read
	Limits Limits
}

// Limits bound what one verification reads. Zero fields have the defaults given here.
type Limits struct {
	Signatures       int   // attached to one digest in one layout; more is an error. 100
	SignatureBytes   int64 // read for one digest and layout, half of it for the list, the rest in equal parts. 8 MiB
	Attestations     int   // attached to one digest in one layout, of the types that are looked for; more is an error. 50
	AttestationBytes int64 // of each. 4 MiB
	Platforms        int   // of an index that are verified one by one. 50
}

func (l Limits) withDefaults() Limits {
	l.Signatures = cmp.Or(l.Signatures, 100)
	l.SignatureBytes = cmp.Or(l.SignatureBytes, 8<<20)
	l.Attestations = cmp.Or(l.Attestations, 50)
	l.AttestationBytes = cmp.Or(l.AttestationBytes, 4<<20)
	l.Platforms = cmp.Or(l.Platforms, 50)
	return l
}

// A Fetcher reads what is stored under a reference and a digest, and checks it against that digest, and lists what refers
// to a digest as an OCI index. Errors are *webhook.ReadError or those of ctx.
type Fetcher interface {
	Manifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error)
	Blob(ctx context.Context, ref webhook.Reference, digest string, maxBytes int64) ([]byte, error)
	Referrers(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error)
}

// A Verifier finds the signatures and attestations of images. It implements webhook.Verifier and webhook.Attester, and may
// be used concurrently.
type Verifier struct {
	trust            *Trust
	fetch            Fetcher
	maxSignatures    int
	manifestBytes    int64 // of a list
	payloadBytes     int64 // of each signature's payload, or bundle
	maxAttestations  int
	attestationBytes int64
	maxPlatforms     int
}

// New checks the configuration and reports everything that is wrong.
func New(config Config) (*Verifier, error) {
	limits := config.Limits.withDefaults()
	var problems []error
	if config.Fetch == nil || config.Trust == nil {
		problems = append(problems, errors.New("signature.Config: Fetch or Trust is missing"))
	}
	if limits.Signatures < 0 || limits.Signatures > 0 && limits.SignatureBytes/2 < int64(limits.Signatures) {
		problems = append(problems, errors.New("limits: signatures is negative, or signatureBytes leaves nothing for each"))
	}
	if limits.Attestations < 0 || limits.AttestationBytes < 0 || limits.Platforms < 0 {
		problems = append(problems, errors.New("limits: attestations, attestationBytes and indexChildren cannot be negative"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return &Verifier{
		trust: config.Trust, fetch: config.Fetch,
		maxSignatures: limits.Signatures, manifestBytes: limits.SignatureBytes / 2,
		payloadBytes:    limits.SignatureBytes / 2 / int64(limits.Signatures),
		maxAttestations: limits.Attestations, attestationBytes: limits.AttestationBytes, maxPlatforms: limits.Platforms,
	}, nil
}

// A request is for one digest, and the signers that its rules name.
type request struct {
	binding binding
	rules   []webhook.SignatureRule
	asked   []*signer
}

// Verify implements webhook.Verifier for an image of which ref has the digest. For one signature it costs two requests in
// cosign's layout and three as a bundle, and one more when the other layout is looked into first.
func (v *Verifier) Verify(ctx context.Context, ref webhook.Reference, rules []webhook.SignatureRule) (webhook.Signatures, error) {
	if ref.Digest == "" {
		return webhook.Signatures{}, fmt.Errorf("signature: %s has no digest to verify", ref)
	}
	var names []string
	for _, rule := range rules {
		names = append(names, rule.AnyOf...)
	}
	asked, err := v.trust.named(names)
	if err != nil {
		return webhook.Signatures{}, err
	}
	r := request{bindingOf(ref, rules), rules, asked}
	found, err := v.verifyDigest(ctx, r)
	if err == nil && complete(rules, found.Valid) || ctx.Err() != nil {
		return found, err
	}
	if others, ok := v.verifyPlatforms(ctx, r); ok {
		return others, nil
	}
	return found, err
}

// named gives the signers with these names, each once.
func (t *Trust) named(names []string) ([]*signer, error) {
	var all []*signer
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		s, ok := t.signers[name]
		if !ok {
			return nil, fmt.Errorf("signature: there is no signer %s", webhook.Quote(name))
		}
		all = append(all, s)
	}
	return all, nil
}

// bindingOf takes the strictest of what rules say of the repository.
func bindingOf(ref webhook.Reference, rules []webhook.SignatureRule) binding {
	b := binding{ref: ref, repository: webhook.RepositoryAny}
	for i, rule := range rules {
		switch rule.Repository {
		case webhook.RepositoryRequire:
			b.repository = webhook.RepositoryRequire
		case webhook.RepositoryMatch, "":
			if b.repository == webhook.RepositoryAny {
				b.repository = webhook.RepositoryMatch
			}
		}
		if i == 0 {
			b.names = rule.Names
		} else {
			b.names = slices.DeleteFunc(slices.Clone(b.names), func(n string) bool { return !slices.Contains(rule.Names, n) })
		}
	}
	return b
}

// attachments reads the list of what is attached in cosign's own layout, under the tags sha256-<hex>.sig and .att.
func (v *Verifier) attachments(ctx context.Context, ref webhook.Reference, kind layerKind) ([]attachment, error) {
	suffix, most := ".sig", v.maxSignatures
	if kind == attestationLayers {
		suffix, most = ".att", v.maxAttestations
	}
	tag := strings.Replace(ref.Digest, ":", "-", 1) + suffix
	manifest, err := v.fetch.Manifest(ctx, ref.WithTag(tag), v.manifestBytes)
	if err != nil {
		return nil, notFoundIsNone(err)
	}
	all, err := parseManifest(manifest, kind, most)
	if err != nil {
		return nil, invalid(ref, err)
	}
	return all, nil
}

func artifactOf(body []byte) func() verify.ArtifactPolicyOption {
	return func() verify.ArtifactPolicyOption { return verify.WithArtifact(bytes.NewReader(body)) }
}

func bySigner(a, b webhook.Signature) int {
	return cmp.Or(cmp.Compare(a.Signer, b.Signer), cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.Key, b.Key))
}
