package registrytest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"google.golang.org/protobuf/encoding/protojson"
)

// What cosign v3, and v2 if asked, write instead of SimpleSigning: bundles that refer to the image.
const (
	// BundleMediaType is that of the layer, and the type of the artifact.
	BundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// SignPredicate is the predicate that says nothing but that the subject is signed.
	SignPredicate = "https://sigstore.dev/cosign/sign/v1"

	BundleContentAnnotation   = "dev.sigstore.bundle.content"       // "dsse-envelope"
	BundlePredicateAnnotation = "dev.sigstore.bundle.predicateType" // that of the statement
	CreatedAnnotation         = "org.opencontainers.image.created"

	statementType   = "https://in-toto.io/Statement/v1"
	statementTypeV0 = "https://in-toto.io/Statement/v0.1"
	inTotoMediaType = "application/vnd.in-toto+json"
)

// A Statement is an in-toto statement. The zero value is that of a signature.
type Statement struct {
	Type          string // "" is that of in-toto v1 in bundles, and of v0.1 in the layers of cosign v2
	PredicateType string // "" is SignPredicate
	Predicate     any    // is written as JSON; nil leaves it out
	Subject       string // the digest; "" is that of the image
	SubjectName   string // "" is none
	PayloadType   string // of the envelope; "" is in-toto's
	Raw           []byte // is signed instead of all this
}

// BundleOptions say who signs, and how the bundle differs from the one that cosign writes.
type BundleOptions struct {
	Signer    Signer
	Witness   Witness
	Statement Statement

	// Message signs the manifest of the image as a file, without a statement.
	Message bool

	ArtifactType string            // of the manifest; "" is BundleMediaType
	MediaType    string            // of the layer; "" is BundleMediaType
	Annotations  map[string]string // replace those of the manifest; "" takes one away
	AttachTo     string            // the digest that the manifest refers to; "" is the digest that was signed

	// Mutate changes the bundle's JSON before it is stored.
	Mutate func(bundleJSON []byte) []byte
}

// SignBundle signs a digest and stores the signature as a bundle that refers to it.
func (r *Registry) SignBundle(ctx context.Context, repository, digest string, opts BundleOptions) error {
	witness := opts.Witness
	ready, err := opts.Signer.prepare(&witness)
	if err != nil {
		return err
	}
	content := r.envelop
	if opts.Message {
		content = r.message
	}
	bundle, rec, err := content(ctx, target{repository, digest}, bundling{ready, opts.Statement})
	if err != nil {
		return err
	}
	testimony, err := witness.testify(ctx, rec, rec.signature)
	if err != nil {
		return err
	}
	bundle.MediaType = BundleMediaType
	if bundle.VerificationMaterial, err = testimony.material(witness); err != nil {
		return err
	}
	encoded, err := protojson.Marshal(bundle)
	if err != nil {
		return fmt.Errorf("registrytest: encode a bundle: %w", err)
	}
	if opts.Mutate != nil {
		encoded = opts.Mutate(encoded)
	}
	if opts.AttachTo != "" {
		digest = opts.AttachTo
	}
	_, err = r.AttachReferrer(ctx, repository, digest, opts.referrer(encoded, witness.At))
	return err
}

func (o BundleOptions) referrer(bundle []byte, at time.Time) Referrer {
	if at.IsZero() {
		at = time.Now()
	}
	referrer := Referrer{
		ArtifactType: o.ArtifactType, MediaType: o.MediaType, Content: bundle,
		Annotations: map[string]string{
			CreatedAnnotation:       at.UTC().Format(time.RFC3339),
			BundleContentAnnotation: "dsse-envelope", BundlePredicateAnnotation: o.Statement.predicateType(),
		},
	}
	if o.Message {
		referrer.Annotations[BundleContentAnnotation] = "message-signature"
		delete(referrer.Annotations, BundlePredicateAnnotation)
	}
	if o.ArtifactType == "" {
		referrer.ArtifactType = BundleMediaType
	}
	if o.MediaType == "" {
		referrer.MediaType = BundleMediaType
	}
	maps.Copy(referrer.Annotations, o.Annotations)
	maps.DeleteFunc(referrer.Annotations, func(_, value string) bool { return value == "" })
	return referrer
}

// bundling is who signs what.
type bundling struct {
	by        *signer
	statement Statement
}

// envelop makes a bundle of a statement in an envelope.
func (r *Registry) envelop(_ context.Context, on target, b bundling) (*protobundle.Bundle, record, error) {
	statement, err := b.statement.encode(on, statementType)
	if err != nil {
		return nil, record{}, err
	}
	rec, err := envelop(statement, b.statement.payloadType(), b.by)
	if err != nil {
		return nil, record{}, err
	}
	return &protobundle.Bundle{Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
		Payload: statement, PayloadType: b.statement.payloadType(),
		Signatures: []*protodsse.Signature{{Sig: rec.signature}},
	}}}, rec, nil
}

// message makes a bundle of a signature over the bytes of the manifest.
func (r *Registry) message(ctx context.Context, on target, b bundling) (*protobundle.Bundle, record, error) {
	manifest, err := r.Manifest(ctx, on.repository, on.digest)
	if err != nil {
		return nil, record{}, err
	}
	raw, err := b.by.sign(manifest.Body)
	if err != nil {
		return nil, record{}, err
	}
	name, digest := b.by.digest(manifest.Body)
	algorithm := protocommon.HashAlgorithm_value[strings.Replace(name.String(), "SHA-", "SHA2_", 1)]
	return &protobundle.Bundle{Content: &protobundle.Bundle_MessageSignature{
		MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{
				Algorithm: protocommon.HashAlgorithm(algorithm), Digest: digest,
			},
			Signature: raw,
		},
	}}, record{by: b.by, signature: raw, signed: manifest.Body}, nil
}

// envelop signs a payload and puts both into an envelope (DSSE).
func envelop(payload []byte, payloadType string, by *signer) (record, error) {
	signed := dsse.PAE(payloadType, payload)
	raw, err := by.sign(signed)
	if err != nil {
		return record{}, err
	}
	envelope, err := json.Marshal(dsse.Envelope{
		PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(payload),
		Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(raw)}},
	})
	if err != nil {
		return record{}, fmt.Errorf("registrytest: encode an envelope: %w", err)
	}
	return record{by: by, signature: raw, signed: signed, envelope: envelope}, nil
}

func (s Statement) predicateType() string {
	if s.PredicateType == "" {
		return SignPredicate
	}
	return s.PredicateType
}

func (s Statement) payloadType() string {
	if s.PayloadType == "" {
		return inTotoMediaType
	}
	return s.PayloadType
}

func (s Statement) encode(on target, defaultType string) ([]byte, error) {
	if s.Raw != nil {
		return s.Raw, nil
	}
	if s.Type == "" {
		s.Type = defaultType
	}
	if s.Subject == "" {
		s.Subject = on.digest
	}
	algorithm, hex, _ := strings.Cut(s.Subject, ":")
	type subject struct {
		Name   string            `json:"name,omitempty"`
		Digest map[string]string `json:"digest"`
	}
	encoded, err := json.Marshal(struct {
		Type          string    `json:"_type"`
		PredicateType string    `json:"predicateType"`
		Subject       []subject `json:"subject"`
		Predicate     any       `json:"predicate,omitempty"`
	}{s.Type, s.predicateType(), []subject{{s.SubjectName, map[string]string{algorithm: hex}}}, s.Predicate})
	if err != nil {
		return nil, fmt.Errorf("registrytest: encode a statement: %w", err)
	}
	return encoded, nil
}
