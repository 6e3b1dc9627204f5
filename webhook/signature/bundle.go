package signature

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/hallmark-admission/hallmark/webhook"
)

// How sigstore bundles hang on an image: a manifest that refers to it (OCI distribution-spec 1.1), with the bundle as its
// layer and annotations that say what is in it. The annotations are the pusher's; they choose what is read first and what
// need not be read, and prove nothing.
const (
	bundleType        = "application/vnd.dev.sigstore.bundle"
	ociIndex          = "application/vnd.oci.image.index.v1+json"
	bundlePredicate   = "dev.sigstore.bundle.predicateType"
	bundleContent     = "dev.sigstore.bundle.content"
	messageSignature  = "message-signature"
	maxBundleManifest = 64 << 10
	maxReferrers      = 10_000 // of all kinds; only what may be a bundle is counted against Limits
	emptyConfigType   = "application/vnd.oci.empty.v1+json"
	imageConfigType   = "application/vnd.oci.image.config.v1+json"
)

// A referrer is a manifest that refers to the image and may hold a bundle.
type referrer struct {
	digest      string
	annotations map[string]string
}

// referrers lists what may hold a bundle for one of the wanted predicate types, the certain ones first.
func (v *Verifier) referrers(ctx context.Context, ref webhook.Reference, wanted want) ([]referrer, error) {
	manifest, err := v.fetch.Referrers(ctx, ref.WithTag("").WithDigest(ref.Digest), v.manifestBytes)
	if err != nil {
		return nil, notFoundIsNone(err)
	}
	all, err := parseReferrers(manifest)
	if err != nil {
		return nil, invalid(ref, err)
	}
	var some []referrer
	for _, r := range all {
		if may, _ := wanted.says(r.annotations); may {
			some = append(some, r)
		}
	}
	if len(some) > wanted.most {
		return nil, invalid(ref, fmt.Errorf("has more than %d %ss", wanted.most, wanted.noun))
	}
	slices.SortStableFunc(some, func(a, b referrer) int {
		return wanted.order(a.annotations) - wanted.order(b.annotations)
	})
	return some, nil
}

// A want is which bundles are looked for.
type want struct {
	predicates []string // types of statements
	message    bool     // and signatures of the manifest itself
	most       int
	noun       string
}

// says reads off annotations whether a bundle may be one that is wanted, and whether that is certain.
func (w want) says(annotations map[string]string) (may, certain bool) {
	predicate, content := annotations[bundlePredicate], annotations[bundleContent]
	switch {
	case predicate != "":
		wanted := slices.Contains(w.predicates, predicate)
		return wanted, wanted
	case content == messageSignature:
		return w.message, w.message
	}
	return true, false
}

func (w want) order(annotations map[string]string) int {
	if _, certain := w.says(annotations); certain {
		return 0
	}
	return 1
}

// parseReferrers reads the list of a registry. What says that it is something other than a bundle is left out.
func parseReferrers(manifest webhook.Manifest) ([]referrer, error) {
	var index struct {
		Manifests []jsontext.Value `json:"manifests"`
	}
	if manifest.MediaType != ociIndex || json.Unmarshal(manifest.Body, &index, jsontext.AllowDuplicateNames(true)) != nil {
		return nil, errors.New("has a list of referrers that cannot be read")
	}
	if len(index.Manifests) > maxReferrers {
		return nil, fmt.Errorf("has more than %d referrers", maxReferrers)
	}
	var found []referrer
	for _, raw := range index.Manifests {
		var d struct {
			MediaType    string            `json:"mediaType"`
			Digest       string            `json:"digest"`
			ArtifactType string            `json:"artifactType"`
			Annotations  map[string]string `json:"annotations"`
		}
		if json.Unmarshal(raw, &d, jsontext.AllowDuplicateNames(true)) != nil || !isDigest(d.Digest) {
			continue // what it is cannot be told, and not read either
		}
		mayBe := strings.HasPrefix(d.ArtifactType, bundleType) || d.ArtifactType == "" ||
			d.ArtifactType == emptyConfigType || d.ArtifactType == imageConfigType
		if d.MediaType == ociManifest && mayBe {
			found = append(found, referrer{d.Digest, d.Annotations})
		}
	}
	return found, nil
}

// readBundle reads the manifest of a referrer and the bundle in it; nil for what turns out to be something else.
func (v *Verifier) readBundle(ctx context.Context, ref webhook.Reference, r referrer, wanted want) ([]byte, reason, error) {
	at := ref.WithTag("").WithDigest(r.digest)
	manifest, err := v.fetch.Manifest(ctx, at, maxBundleManifest)
	if err != nil {
		return nil, "", err
	}
	var m struct {
		Annotations map[string]string `json:"annotations"`
		Layers      []struct {
			MediaType string `json:"mediaType"`
			Digest    string `json:"digest"`
			Size      int64  `json:"size"`
		} `json:"layers"`
	}
	if json.Unmarshal(manifest.Body, &m, jsontext.AllowDuplicateNames(true)) != nil {
		return nil, malformed, nil //nolint:nilerr // the reason tells it
	}
	if may, _ := wanted.says(m.Annotations); !may {
		return nil, "", nil
	}
	most := v.payloadBytes
	if !wanted.message {
		most = v.attestationBytes
	}
	for _, layer := range m.Layers {
		switch {
		case !strings.HasPrefix(layer.MediaType, bundleType):
			continue
		case !isDigest(layer.Digest):
			return nil, malformed, nil
		case layer.Size > most:
			return nil, tooLarge, nil
		}
		body, err := v.fetch.Blob(ctx, at, layer.Digest, most)
		return body, "", err
	}
	return nil, "", nil
}

// newBundle makes a bundle ready to be verified. An error is a reason.
func newBundle(body []byte, b binding) (*signed, *statement, reason) {
	var parsed bundle.Bundle
	var x *signed
	var said *statement
	digest, err := hex.DecodeString(strings.TrimPrefix(b.ref.Digest, "sha256:"))
	if err != nil {
		return nil, nil, malformed
	}
	artifact := func() verify.ArtifactPolicyOption { return verify.WithArtifactDigest("sha256", digest) }
	err = guarded(func() error {
		if err := parsed.UnmarshalJSON(body); err != nil {
			return err
		}
		x = &signed{entity: func() verify.SignedEntity { return &parsed }, artifact: artifact}
		content, err := parsed.VerificationContent()
		if err != nil {
			return err
		}
		x.certified = content.Certificate() != nil
		entries, err := parsed.TlogEntries()
		if err != nil {
			return err
		}
		timestamps, err := parsed.Timestamps()
		if err != nil {
			return err
		}
		x.log, x.timestamp = len(entries) > 0, len(timestamps) > 0
		if envelope, ok := parsed.Content.(*protobundle.Bundle_DsseEnvelope); ok {
			x.loose = verify.WithoutArtifactUnsafe
			said, ok = parseStatement(envelope.DsseEnvelope.GetPayloadType(), envelope.DsseEnvelope.GetPayload())
			if !ok {
				return errors.New("the envelope holds no statement")
			}
			return nil
		}
		x.loose = x.artifact
		return nil
	})
	if err != nil {
		return nil, nil, malformed
	}
	return x, said, ""
}

// signatureBundle is newBundle for a signature of an image: by cosign's predicate, or of the manifest itself, which names no
// repository.
func signatureBundle(body []byte, b binding) (*signed, reason) {
	x, said, why := newBundle(body, b)
	if why != "" {
		return nil, why
	}
	x.claim = func() reason {
		switch {
		case said == nil && b.repository == webhook.RepositoryRequire:
			return noRepository
		case said == nil:
			return ""
		case said.PredicateType != signPredicate:
			return otherType
		}
		return said.check(b)
	}
	return x, ""
}

// notFoundIsNone drops the error that says that nothing is there.
func notFoundIsNone(err error) error {
	var read *webhook.ReadError
	if errors.As(err, &read) && read.Failure == webhook.NotFound {
		return nil
	}
	return err
}

// invalid is the error for what hangs on an image and cannot be judged.
func invalid(ref webhook.Reference, err error) error {
	return &webhook.ReadError{
		Failure: webhook.Invalid, Registry: ref.Registry,
		Reason: fmt.Sprintf("%v for %s@%s", err, ref.Repository, webhook.ShortDigest(ref.Digest)),
	}
}
