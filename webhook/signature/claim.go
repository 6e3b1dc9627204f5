package signature

import (
	"github.com/go-json-experiment/json"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/hallmark-admission/hallmark/webhook"
)

// A claim is what a signature says of an image ("simple signing"): that it is this digest, in this repository.
type claim struct {
	Critical struct {
		Type     string `json:"type"`
		Identity struct {
			DockerReference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			DockerManifestDigest string `json:"docker-manifest-digest"`
		} `json:"image"`
	} `json:"critical"`
}

// A claimError says why a signature by the right key does not hold for the image.
type claimError struct{ reason reason }

func (e *claimError) Error() string { return string(e.reason) }

// claimVerifier gives cosign the check of what a signature says. cosign calls it once the signature itself is found
// good, and fails when it fails. Without it, any signature by the right key would do for any image.
func claimVerifier(ref webhook.Reference, bindIdentity bool) func(oci.Signature, v1.Hash, map[string]any) error {
	return func(signature oci.Signature, digest v1.Hash, annotations map[string]any) error {
		body, err := signature.Payload()
		if err != nil {
			return err
		}
		if why := checkClaim(body, ref, bindIdentity); why != "" {
			return &claimError{why}
		}
		// cosign's own check comes last and has the last word.
		if err := cosign.SimpleClaimVerifier(signature, digest, annotations); err != nil {
			return &claimError{unreadable}
		}
		return nil
	}
}

// checkClaim gives why a payload does not speak of ref; "" when it does.
func checkClaim(body []byte, ref webhook.Reference, bindIdentity bool) reason {
	var c claim
	if err := json.Unmarshal(body, &c); err != nil {
		return unreadable
	}
	switch claimed := c.Critical.Image.DockerManifestDigest; {
	case c.Critical.Type != payload.CosignSignatureType:
		return otherType
	case claimed == "":
		return noDigest
	case claimed != ref.Digest:
		return otherDigest
	case !bindIdentity:
		return ""
	}
	name := c.Critical.Identity.DockerReference
	if name == "" {
		return noRepository
	}
	// As cosign writes it the name has no tag; one signed under another identity may have one.
	signed, err := webhook.ParseReference(name)
	if err == nil && signed.Name() == ref.Name() {
		return ""
	}
	const longest = 200
	if err == nil {
		name = signed.Name()
	}
	return reason("right key, other repository " + webhook.Quote(name[:min(len(name), longest)]))
}
