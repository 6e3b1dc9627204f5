package registrytest

import (
	"context"
	"fmt"
	"maps"
	"strings"
)

// Where cosign v2 puts attestations.
const (
	// Envelope is the media type of an attestation's layer.
	Envelope = "application/vnd.dsse.envelope.v1+json"
	// PredicateAnnotation repeats the type of the statement's predicate.
	PredicateAnnotation = "predicateType"
)

// AttestOptions say who attests what, and how that differs from what `cosign attest` writes.
type AttestOptions struct {
	Signer    Signer
	Witness   Witness
	Statement Statement // without a Predicate it has an empty one; in layers its subject is host and repository by name

	Bundle bool // write a bundle that refers to the digest, instead of a layer

	// PredicateAnnotation is what the annotation says instead of the type of the statement's predicate.
	PredicateAnnotation string
	// Annotations are added to those of the layer or of the bundle's manifest, and replace those of the same names.
	Annotations map[string]string
	// AttachTo is the digest under whose tag, or to which, it is stored; "" is the digest that it is about.
	AttachTo string
	// Mutate changes a layer before it is stored.
	Mutate func(*Signature)
	// MutateBundle changes a bundle's JSON before it is stored.
	MutateBundle func(bundleJSON []byte) []byte
}

// AttestationTag is the tag under which cosign v2 keeps the attestations of a digest.
func AttestationTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".att" }

// Attest says something about a digest and stores that beside what is there.
func (r *Registry) Attest(ctx context.Context, repository, digest string, opts AttestOptions) error {
	if opts.Statement.Predicate == nil {
		opts.Statement.Predicate = struct{}{}
	}
	annotations := map[string]string{}
	if opts.Bundle {
		if opts.PredicateAnnotation != "" {
			annotations[BundlePredicateAnnotation] = opts.PredicateAnnotation
		}
		maps.Copy(annotations, opts.Annotations)
		return r.SignBundle(ctx, repository, digest, BundleOptions{
			Signer: opts.Signer, Witness: opts.Witness, Statement: opts.Statement,
			Annotations: annotations, AttachTo: opts.AttachTo, Mutate: opts.MutateBundle,
		})
	}
	layer, err := r.attestation(ctx, target{repository, digest}, opts)
	if err != nil {
		return fmt.Errorf("registrytest: attest %s: %w", digest, err)
	}
	if opts.AttachTo != "" {
		digest = opts.AttachTo
	}
	return r.attach(ctx, repository, AttestationTag(digest), []Signature{layer})
}

// attestation is a layer as cosign v2 writes it. What is stamped is the whole envelope, other than in bundles.
func (r *Registry) attestation(ctx context.Context, on target, opts AttestOptions) (Signature, error) {
	witness := opts.Witness
	ready, err := opts.Signer.prepare(&witness)
	if err != nil {
		return Signature{}, err
	}
	if opts.Statement.SubjectName == "" {
		opts.Statement.SubjectName = r.host + "/" + on.repository
	}
	statement, err := opts.Statement.encode(on, statementTypeV0)
	if err != nil {
		return Signature{}, err
	}
	rec, err := envelop(statement, opts.Statement.payloadType(), ready)
	if err != nil {
		return Signature{}, err
	}
	testimony, err := witness.testify(ctx, rec, rec.envelope)
	if err != nil {
		return Signature{}, err
	}
	layer := Signature{Payload: rec.envelope, MediaType: Envelope, Annotations: map[string]string{
		SignatureAnnotation: "", PredicateAnnotation: opts.Statement.predicateType(),
	}}
	if opts.PredicateAnnotation != "" {
		layer.Annotations[PredicateAnnotation] = opts.PredicateAnnotation
	}
	if err := testimony.annotate(layer.Annotations); err != nil {
		return Signature{}, err
	}
	maps.Copy(layer.Annotations, opts.Annotations)
	if opts.Mutate != nil {
		opts.Mutate(&layer)
	}
	return layer, nil
}
