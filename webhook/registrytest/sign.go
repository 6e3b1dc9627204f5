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
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
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
	// Annotations are added to those of the layer, a Rekor bundle for instance.
	Annotations map[string]string
	// Payload is signed instead of the one that would be made.
	Payload []byte
	// AttachTo is the digest under whose signature tag it is stored; "" is the digest that was signed.
	AttachTo string
	// SHA256 signs as cosign did up to v2.4: SHA-256 with every curve, and Ed25519 not pre-hashed.
	SHA256 bool
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

// Sign signs a digest and stores the signature beside those that are there.
func (r *Registry) Sign(ctx context.Context, repository, digest string, key crypto.Signer, opts SignOptions) error {
	body := opts.Payload
	if body == nil {
		var err error
		if body, err = r.payload(repository, digest, opts); err != nil {
			return err
		}
	}
	encoded, err := SignPayload(key, body, opts.SHA256)
	if err != nil {
		return err
	}
	if opts.AttachTo != "" {
		digest = opts.AttachTo
	}
	return r.Attach(ctx, repository, digest, Signature{Payload: body, Base64: encoded, Annotations: opts.Annotations})
}

func (r *Registry) payload(repository, digest string, opts SignOptions) ([]byte, error) {
	claim := payload.SimpleContainerImage{Optional: opts.Optional}
	claim.Critical.Type = payload.CosignSignatureType
	claim.Critical.Image.DockerManifestDigest = digest
	claim.Critical.Identity.DockerReference = opts.DockerReference
	if opts.DockerReference == "" {
		claim.Critical.Identity.DockerReference = r.host + "/" + repository
	}
	body, err := json.Marshal(claim)
	if err != nil {
		return nil, fmt.Errorf("registrytest: payload for %s: %w", repository, err)
	}
	return body, nil
}

// SignPayload signs as cosign v2 does with the default of its present version, or with sha256 of its earlier ones. The
// signature is in base64.
func SignPayload(key crypto.Signer, body []byte, sha256 bool) (string, error) {
	load := func() (signature.Signer, error) { return signature.LoadDefaultSigner(key, options.WithED25519ph()) }
	if sha256 {
		load = func() (signature.Signer, error) { return signature.LoadSigner(key, crypto.SHA256) }
	}
	signer, err := load()
	if err != nil {
		return "", fmt.Errorf("registrytest: load the key: %w", err)
	}
	raw, err := signer.SignMessage(bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("registrytest: sign: %w", err)
	}
	return base64.StdEncoding.EncodeToString(raw), nil
}

// Attach stores signatures of a digest, valid or not, beside those that are there.
func (r *Registry) Attach(ctx context.Context, repository, digest string, signatures ...Signature) error {
	r.signing.Lock()
	defer r.signing.Unlock()
	manifest := r.signatures(ctx, repository, digest)
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
	return r.pushSignatures(ctx, repository, digest, manifest)
}

// signatures gives the signature manifest that is there, or an empty one.
func (r *Registry) signatures(ctx context.Context, repository, digest string) v1.Manifest {
	empty := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	stored, err := r.Manifest(ctx, repository, SignatureTag(digest))
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
func (r *Registry) pushSignatures(ctx context.Context, repository, digest string, manifest v1.Manifest) error {
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
	_, err = r.PushManifest(ctx, repository, SignatureTag(digest), Manifest{string(types.OCIManifestSchema1), body})
	return err
}
