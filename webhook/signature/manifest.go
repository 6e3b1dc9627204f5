package signature

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hallmark-admission/hallmark/webhook"
)

// How cosign v2 stores signatures (its SIGNATURE_SPEC.md): one manifest a digest, one layer a signature. The layer's
// content is what was signed, the signature stands in an annotation.
const (
	ociManifest         = "application/vnd.oci.image.manifest.v1+json"
	dockerManifest      = "application/vnd.docker.distribution.manifest.v2+json"
	simpleSigning       = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// maxSignatureLength is in base64 and has room for RSA with 16,384 bits.
const maxSignatureLength = 4 << 10

// An attachment is one layer of a manifest of signatures or of attestations.
type attachment struct {
	payload       string // digest of what was signed, or of the envelope
	size          int64  // of it, as the manifest says
	base64        string // the signature; "" for an envelope
	proofs        proofs // as they stand in annotations: they are parsed only for who needs them
	predicateType string // of an envelope, as its annotation claims
	broken        reason // why the layer cannot be one; "" when it can
}

// layerKind tells signatures from attestations.
type layerKind string

const (
	signatureLayers   layerKind = simpleSigning
	attestationLayers layerKind = layerKind(dsseEnvelope)
)

// noun is what a message calls them.
func (k layerKind) noun() string {
	if k == attestationLayers {
		return "attestation"
	}
	return "signature"
}

// parseManifest reads a manifest of signatures or attestations. A layer that is broken does not hide the others. The error continues the
// name of the registry and is followed by "for <image>".
func parseManifest(manifest webhook.Manifest, kind layerKind, most int) ([]attachment, error) {
	if manifest.MediaType != ociManifest && manifest.MediaType != dockerManifest {
		return nil, fmt.Errorf("has something other than %ss", kind.noun())
	}
	// Duplicate names do no harm here, since signatures prove themselves, and a record of all names could grow to many
	// times the size of a hostile document.
	var body struct {
		Layers layers `json:"layers"`
	}
	err := json.Unmarshal(manifest.Body, &body, jsontext.AllowDuplicateNames(true),
		json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, l *layers) error {
			return l.read(d, kind, most)
		})))
	switch {
	case errors.Is(err, errTooMany):
		return nil, fmt.Errorf("has more than %d %ss", most, kind.noun())
	case err != nil:
		return nil, fmt.Errorf("has %ss whose manifest cannot be read", kind.noun())
	}
	return body.Layers, nil
}

type layers []attachment

var errTooMany = errors.New("too many layers")

// read takes the layers one by one and stops at the first that is too many.
func (l *layers) read(d *jsontext.Decoder, kind layerKind, most int) error {
	*l = nil
	if token, err := d.ReadToken(); err != nil || token.Kind() == 'n' {
		return err
	} else if token.Kind() != '[' {
		return errors.New("layers is not an array")
	}
	for d.PeekKind() != ']' {
		layer, err := d.ReadValue()
		if err != nil {
			return err
		}
		if len(*l) == most {
			return errTooMany
		}
		*l = append(*l, parseLayer(layer, kind))
	}
	_, err := d.ReadToken()
	return err
}

func parseLayer(layer jsontext.Value, kind layerKind) attachment {
	var l struct {
		MediaType   string                    `json:"mediaType"`
		Digest      string                    `json:"digest"`
		Size        int64                     `json:"size"`
		Annotations map[string]jsontext.Value `json:"annotations"`
	}
	if err := json.Unmarshal(layer, &l); err != nil || !isDigest(l.Digest) || l.Size < 0 {
		return attachment{broken: malformed}
	}
	if l.MediaType != string(kind) {
		return attachment{broken: otherKind}
	}
	text := func(annotation string) (value string) {
		if raw, there := l.Annotations[annotation]; there && json.Unmarshal(raw, &value) != nil {
			return "?" // no string: broken for whoever needs it, and nothing to others
		}
		return value
	}
	a := attachment{
		payload: l.Digest, size: l.Size,
		proofs: proofs{text(certificateAnnotation), text(logAnnotation), text(timestampAnnotation)},
	}
	if kind == attestationLayers {
		a.predicateType = text(predicateAnnotation)
		return a
	}
	a.base64 = text(signatureAnnotation)
	if a.base64 == "" || len(a.base64) > maxSignatureLength || strings.ContainsAny(a.base64, "\r\n") {
		return attachment{broken: malformed}
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(a.base64); err != nil {
		return attachment{broken: malformed}
	}
	return a
}

func isDigest(s string) bool {
	digits, found := strings.CutPrefix(s, "sha256:")
	return found && len(digits) == 64 && strings.Trim(digits, "0123456789abcdef") == ""
}
