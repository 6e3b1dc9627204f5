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

// An attachment is one layer of a signature manifest. Annotations other than the signature (certificates, Rekor
// bundles) are not taken over: with a key they prove nothing, and parsing them is a risk.
type attachment struct {
	payload string // digest of what was signed
	size    int64  // of it, as the manifest says
	base64  string // the signature
	broken  reason // why the layer cannot be a signature; "" when it can
}

// parseManifest reads a signature manifest. A layer that is broken does not hide the others. The error continues the
// name of the registry and is followed by "for <image>".
func parseManifest(manifest webhook.Manifest, maxSignatures int) ([]attachment, error) {
	if manifest.MediaType != ociManifest && manifest.MediaType != dockerManifest {
		return nil, errors.New("has something other than signatures")
	}
	// Duplicate names do no harm here, since signatures prove themselves, and a record of all names could grow to many
	// times the size of a hostile document.
	var body struct {
		Layers layers `json:"layers"`
	}
	err := json.Unmarshal(manifest.Body, &body, jsontext.AllowDuplicateNames(true),
		json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, l *layers) error {
			return l.read(d, maxSignatures)
		})))
	switch {
	case errors.Is(err, errTooMany):
		return nil, fmt.Errorf("has more than %d signatures", maxSignatures)
	case err != nil:
		return nil, errors.New("has a signature manifest that cannot be read")
	}
	return body.Layers, nil
}

type layers []attachment

var errTooMany = errors.New("too many layers")

// read takes the layers one by one and stops at the first that is too many.
func (l *layers) read(d *jsontext.Decoder, max int) error {
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
		if len(*l) == max {
			return errTooMany
		}
		*l = append(*l, parseLayer(layer))
	}
	_, err := d.ReadToken()
	return err
}

func parseLayer(layer jsontext.Value) attachment {
	var l struct {
		MediaType   string                    `json:"mediaType"`
		Digest      string                    `json:"digest"`
		Size        int64                     `json:"size"`
		Annotations map[string]jsontext.Value `json:"annotations"`
	}
	if err := json.Unmarshal(layer, &l); err != nil || !isDigest(l.Digest) || l.Size < 0 {
		return attachment{broken: malformed}
	}
	if l.MediaType != simpleSigning {
		return attachment{broken: otherKind}
	}
	var encoded string
	if err := json.Unmarshal(l.Annotations[signatureAnnotation], &encoded); err != nil {
		return attachment{broken: malformed}
	}
	if encoded == "" || len(encoded) > maxSignatureLength {
		return attachment{broken: malformed}
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(encoded); err != nil || strings.ContainsAny(encoded, "\r\n") {
		return attachment{broken: malformed}
	}
	return attachment{payload: l.Digest, size: l.Size, base64: encoded}
}

func isDigest(s string) bool {
	digits, found := strings.CutPrefix(s, "sha256:")
	return found && len(digits) == 64 && strings.Trim(digits, "0123456789abcdef") == ""
}
