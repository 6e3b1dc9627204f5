package signature

import (
	"slices"

	"github.com/go-json-experiment/json"
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

// A binding is the image that something has to speak of.
type binding struct {
	ref        webhook.Reference // with the digest
	repository webhook.RepositoryClaim
	names      []string // further repositories that count as the image's
}

// repositoryOf holds the repository that a signature names against the image's; "" when it is one of them.
func (b binding) repositoryOf(name string) reason {
	signed, err := webhook.ParseReference(name)
	switch {
	case b.repository == webhook.RepositoryAny:
		return ""
	case err != nil:
		return otherRepository(name)
	case signed.Name() == b.ref.Name() || slices.Contains(b.names, signed.Name()):
		return "" // as cosign writes it the name has no tag; one signed under another identity may have one
	}
	return otherRepository(signed.Name())
}

// checkClaim gives why a payload does not speak of the image; "" when it does.
func checkClaim(body []byte, b binding) reason {
	var c claim
	if err := json.Unmarshal(body, &c); err != nil {
		return unreadable
	}
	switch claimed := c.Critical.Image.DockerManifestDigest; {
	case c.Critical.Type != payload.CosignSignatureType:
		return otherType
	case claimed == "":
		return noDigest
	case claimed != b.ref.Digest:
		return otherDigest
	}
	name := c.Critical.Identity.DockerReference
	if name == "" && b.repository != webhook.RepositoryAny {
		return noRepository
	}
	return b.repositoryOf(name)
}
