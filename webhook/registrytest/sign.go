package registrytest

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// Where cosign v2 puts signatures (its SIGNATURE_SPEC.md).
const (
	// SimpleSigning is the media type of a signature's layer.
	SimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	// SignatureAnnotation holds a signature over the layer, in base64.
	SignatureAnnotation = "dev.cosignproject.cosign/signature"
)

// SignOptions say how a signature differs from the one that `cosign sign --key` makes.
type SignOptions struct {
	// DockerReference is the claimed identity; "" is host and repository.
	DockerReference string
	// Optional is written into the payload, as `cosign sign -a` does.
	Optional map[string]any
	// Annotations are added to those of the layer, and replace those of the same names.
	Annotations map[string]string
	// Payload is signed instead of the one that would be made.
	Payload []byte
	// AttachTo is the digest under whose signature tag it is stored; "" is the digest that was signed.
	AttachTo string
	// SHA256 signs as cosign did up to v2.4: SHA-256 with every curve, and Ed25519 not pre-hashed.
	SHA256 bool
	// Witness has the signature logged and stamped.
	Witness Witness
	// Mutate changes the signature before it is stored.
	Mutate func(*Signature)
}

// KeylessOptions say whom the certificate names, and how the signature differs from the one that `cosign sign` makes.
type KeylessOptions struct {
	Certificate Certificate
	SignOptions
}

// A Signature is one layer of a signature manifest.
type Signature struct {
	Payload     []byte
	Base64      string            // the signature; "" leaves the annotation out
	Annotations map[string]string // further ones
	MediaType   string            // "" is SimpleSigning
}

// SignatureTag is the tag under which cosign v2 keeps the signatures of a digest.
func SignatureTag(digest string) string { return strings.Replace(digest, ":", "-", 1) + ".sig" }

// Sign signs a digest with a key and stores the signature beside those that are there.
func (r *Registry) Sign(ctx context.Context, repository, digest string, key crypto.Signer, opts SignOptions) error {
	return r.sign(ctx, target{repository, digest}, Signer{Key: key, SHA256: opts.SHA256}, opts)
}

// SignKeyless signs a digest with a key that is thrown away and a certificate of an authority, whose log the signature
// goes into unless opts say something else. The signature is stored beside those that are there.
func (r *Registry) SignKeyless(
	ctx context.Context, repository, digest string, by *Sigstore, opts KeylessOptions,
) error {
	return r.sign(ctx, target{repository, digest}, Signer{Keyless: by, Certificate: opts.Certificate}, opts.SignOptions)
}

// A target is what is signed and where it is.
type target struct{ repository, digest string }

func (r *Registry) sign(ctx context.Context, on target, by Signer, opts SignOptions) error {
	witness := opts.Witness
	ready, err := by.prepare(&witness)
	if err != nil {
		return err
	}
	body := opts.Payload
	if body == nil {
		if body, err = r.payload(on, opts); err != nil {
			return err
		}
	}
	raw, err := ready.sign(body)
	if err != nil {
		return err
	}
	testimony, err := witness.testify(ctx, record{by: ready, signature: raw, signed: body}, raw)
	if err != nil {
		return err
	}
	layer := Signature{
		Payload: body, Base64: base64.StdEncoding.EncodeToString(raw), Annotations: map[string]string{},
	}
	if err := testimony.annotate(layer.Annotations); err != nil {
		return err
	}
	maps.Copy(layer.Annotations, opts.Annotations)
	if opts.Mutate != nil {
		opts.Mutate(&layer)
	}
	if opts.AttachTo != "" {
		on.digest = opts.AttachTo
	}
	return r.Attach(ctx, on.repository, on.digest, layer)
}

func (r *Registry) payload(on target, opts SignOptions) ([]byte, error) {
	claim := payload.SimpleContainerImage{Optional: opts.Optional}
	claim.Critical.Type = payload.CosignSignatureType
	claim.Critical.Image.DockerManifestDigest = on.digest
	claim.Critical.Identity.DockerReference = opts.DockerReference
	if opts.DockerReference == "" {
		claim.Critical.Identity.DockerReference = r.host + "/" + on.repository
	}
	body, err := json.Marshal(claim)
	if err != nil {
		return nil, fmt.Errorf("registrytest: payload for %s: %w", on.repository, err)
	}
	return body, nil
}

// SignPayload signs as cosign v2 does with the default of its present version, or with sha256 of its earlier ones. The
// signature is in base64.
func SignPayload(key crypto.Signer, body []byte, sha256 bool) (string, error) {
	raw, err := (&signer{key: key, sha256: sha256}).sign(body)
	return base64.StdEncoding.EncodeToString(raw), err
}

// Attach stores signatures of a digest, valid or not, beside those that are there.
func (r *Registry) Attach(ctx context.Context, repository, digest string, signatures ...Signature) error {
	return r.attach(ctx, repository, SignatureTag(digest), signatures)
}

func (r *Registry) attach(ctx context.Context, repository, tag string, signatures []Signature) error {
	r.signing.Lock()
	defer r.signing.Unlock()
	manifest := r.signatures(ctx, repository, tag)
	for _, s := range signatures {
		mediaType := types.MediaType(SimpleSigning)
		if s.MediaType != "" {
			mediaType = types.MediaType(s.MediaType)
		}
		layer, err := r.pushDescribed(ctx, repository, mediaType, s.Payload)
		if err != nil {
			return err
		}
		layer.Annotations = map[string]string{}
		maps.Copy(layer.Annotations, s.Annotations)
		if s.Base64 != "" {
			layer.Annotations[SignatureAnnotation] = s.Base64
		}
		manifest.Layers = append(manifest.Layers, layer)
	}
	return r.pushSignatures(ctx, repository, tag, manifest)
}

// signatures gives the signature manifest that is there, or an empty one.
func (r *Registry) signatures(ctx context.Context, repository, tag string) v1.Manifest {
	empty := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	stored, err := r.Manifest(ctx, repository, tag)
	if err != nil {
		return empty
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(stored.Body))
	if err != nil {
		return empty // whatever a test put there is replaced
	}
	return *manifest
}

// pushSignatures gives the manifest the config that cosign gives it: an image config with one diff ID a layer.
func (r *Registry) pushSignatures(ctx context.Context, repository, tag string, manifest v1.Manifest) error {
	config := v1.ConfigFile{RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}}}
	for _, layer := range manifest.Layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.Digest)
	}
	configJSON, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("registrytest: signature config: %w", err)
	}
	if manifest.Config, err = r.pushDescribed(ctx, repository, types.OCIConfigJSON, configJSON); err != nil {
		return err
	}
	body, err := json.Marshal(manifest)
	if err != nil {
		return fmt.Errorf("registrytest: signature manifest: %w", err)
	}
	_, err = r.PushManifest(ctx, repository, tag, Manifest{string(types.OCIManifestSchema1), body})
	return err
}
