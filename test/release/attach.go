package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// Both layouts in which signatures stand in a registry are written: tools of the one do not see the other.
const (
	refName = "org.opencontainers.image.ref.name" // of an entry of a layout: the tag
	kind    = "kind"                              // by which cosign finds its way in a layout that it did not write

	simpleSigning   = types.MediaType("application/vnd.dev.cosign.simplesigning.v1+json")
	dsseEnvelope    = types.MediaType("application/vnd.dsse.envelope.v1+json")
	bundleType      = types.MediaType("application/vnd.dev.sigstore.bundle.v0.3+json")
	emptyConfig     = types.MediaType("application/vnd.oci.empty.v1+json")
	cosignSignature = "dev.cosignproject.cosign/signature"
)

// A signedLayout is an OCI layout with an image and all that is signed about it.
type signedLayout struct {
	path       layout.Path
	key        *key
	repository name.Repository
	created    time.Time
}

// newSignedLayout writes the image itself, under its tag.
func newSignedLayout(dir string, i image, tag string) (*signedLayout, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return nil, fmt.Errorf("write the layout: %w", err)
	}
	if i.index == nil {
		annotations := map[string]string{refName: tag, kind: "dev.cosignproject.cosign/image"}
		err = path.AppendImage(i.platforms[0].image, layout.WithAnnotations(annotations))
	} else {
		annotations := map[string]string{refName: tag, kind: "dev.cosignproject.cosign/imageIndex"}
		err = path.AppendIndex(i.index, layout.WithAnnotations(annotations))
	}
	if err != nil {
		return nil, fmt.Errorf("write the layout: %w", err)
	}
	return &signedLayout{path: path}, nil
}

// An attestation is a statement of some type.
type attestation struct {
	predicateType string
	statement     []byte
}

// add signs a manifest, and what is said of it. Only one manifest of a layout is its top, which cosign reads from the directory.
func (s *signedLayout) add(ctx context.Context, of v1.Descriptor, top bool, said []attestation) error {
	signature, err := s.signature(of)
	if err != nil {
		return err
	}
	if err := s.append(signature, of, "sig", top); err != nil {
		return err
	}
	plain, err := newStatement(signPredicate, []byte("{}"), subject{Digest: map[string]string{"sha256": of.Digest.Hex}})
	if err != nil {
		return err
	}
	if err := s.refer(ctx, of, attestation{signPredicate, plain}); err != nil {
		return err
	}
	attested := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	attested = mutate.ConfigMediaType(attested, types.OCIConfigJSON)
	for _, a := range said {
		if err := s.refer(ctx, of, a); err != nil {
			return err
		}
		envelope, err := s.envelope(a.statement)
		if err != nil {
			return err
		}
		attested, err = mutate.Append(attested, mutate.Addendum{
			Layer: static.NewLayer(envelope, dsseEnvelope), Annotations: map[string]string{cosignSignature: "", "predicateType": a.predicateType},
		})
		if err != nil {
			return err
		}
	}
	return s.append(attested, of, "att", top)
}

// signature is one as cosign up to v2 writes it.
func (s *signedLayout) signature(of v1.Descriptor) (v1.Image, error) {
	text, err := json.Marshal(payload.Cosign{Image: s.repository.Digest(of.Digest.String())}.SimpleContainerImage())
	if err != nil {
		return nil, err
	}
	signature, err := s.key.sign(text)
	if err != nil {
		return nil, err
	}
	signed := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	return mutate.Append(signed, mutate.Addendum{
		Layer: static.NewLayer(text, simpleSigning), Annotations: map[string]string{cosignSignature: base64.StdEncoding.EncodeToString(signature)},
	})
}

// envelope signs a statement as cosign up to v2 does (DSSE).
func (s *signedLayout) envelope(statement []byte) ([]byte, error) {
	signature, err := s.key.sign(dsse.PAE(inTotoPayload, statement))
	if err != nil {
		return nil, err
	}
	return json.Marshal(dsse.Envelope{
		PayloadType: inTotoPayload, Payload: base64.StdEncoding.EncodeToString(statement),
		Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(signature)}},
	})
}

// append adds an image under the tag that cosign looks for.
func (s *signedLayout) append(one v1.Image, of v1.Descriptor, suffix string, top bool) error {
	annotations := map[string]string{refName: strings.Replace(of.Digest.String(), ":", "-", 1) + "." + suffix}
	if top {
		annotations[kind] = "dev.cosignproject.cosign/" + suffix + "s"
	}
	if err := s.path.AppendImage(one, layout.WithAnnotations(annotations)); err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	return nil
}

// refer adds a bundle that refers to a manifest, as cosign v3 writes it.
func (s *signedLayout) refer(ctx context.Context, of v1.Descriptor, a attestation) error {
	bundle, err := s.key.bundle(ctx, &sign.DSSEData{Data: a.statement, PayloadType: inTotoPayload})
	if err != nil {
		return err
	}
	manifest := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: string(bundleType), Subject: &of,
		Annotations: map[string]string{
			"org.opencontainers.image.created": s.created.Format(time.RFC3339),
			"dev.sigstore.bundle.content":      "dsse-envelope", "dev.sigstore.bundle.predicateType": a.predicateType,
		},
	}
	if manifest.Config, err = s.blob(emptyConfig, []byte("{}")); err != nil {
		return err
	}
	layer, err := s.blob(bundleType, bundle)
	if err != nil {
		return err
	}
	manifest.Layers = []v1.Descriptor{layer}
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	described, err := s.blob(types.OCIManifestSchema1, text)
	if err != nil {
		return err
	}
	described.ArtifactType = string(bundleType)
	return s.path.AppendDescriptor(described)
}

func (s *signedLayout) blob(mediaType types.MediaType, content []byte) (v1.Descriptor, error) {
	hash, size, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := s.path.WriteBlob(hash, io.NopCloser(bytes.NewReader(content))); err != nil {
		return v1.Descriptor{}, fmt.Errorf("write the layout: %w", err)
	}
	return v1.Descriptor{MediaType: mediaType, Digest: hash, Size: size}, nil
}
