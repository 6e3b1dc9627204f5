package signature

import (
	"context"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hallmark-admission/hallmark/webhook"
)

// dockerIndex is what Docker calls an index.
const dockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json"

// verifyPlatforms looks for the signatures of other digests that may speak for the image, if all rules let them: of the
// index that lists it, or of the platforms that it lists. A failure is the same as finding none: then what was found of the
// digest itself is the answer.
func (v *Verifier) verifyPlatforms(ctx context.Context, r request) (webhook.Signatures, bool) {
	every := func(want webhook.PlatformRule) bool {
		return len(r.rules) > 0 &&
			!slices.ContainsFunc(r.rules, func(rule webhook.SignatureRule) bool { return rule.Platforms != want })
	}
	var found webhook.Signatures
	var err error
	switch {
	case every(webhook.PlatformsInherit):
		found, err = v.inherited(ctx, r)
	case every(webhook.PlatformsEach):
		found, err = v.fromEach(ctx, r)
	default:
		return found, false
	}
	return found, err == nil && complete(r.rules, found.Valid)
}

var errNoIndex = errors.New("there is no index that could speak for the image")

// inherited verifies the index that the image's tag names, which has to list the image.
func (v *Verifier) inherited(ctx context.Context, r request) (webhook.Signatures, error) {
	ref := r.binding.ref
	if ref.Tag == "" {
		return webhook.Signatures{}, errNoIndex
	}
	manifest, err := v.fetch.Manifest(ctx, ref.WithTag(ref.Tag), v.manifestBytes)
	if err != nil {
		return webhook.Signatures{}, err
	}
	children, err := v.children(manifest)
	if err != nil {
		return webhook.Signatures{}, err
	}
	if !slices.Contains(children, ref.Digest) {
		return webhook.Signatures{}, errNoIndex
	}
	r.binding.ref = ref.WithDigest(manifest.Digest)
	return v.verifyDigest(ctx, r)
}

// fromEach verifies every platform of the image, which has to be an index. Who signed all of them has signed it.
func (v *Verifier) fromEach(ctx context.Context, r request) (webhook.Signatures, error) {
	ref := r.binding.ref
	manifest, err := v.fetch.Manifest(ctx, ref.WithTag("").WithDigest(ref.Digest), v.manifestBytes)
	if err != nil {
		return webhook.Signatures{}, err
	}
	children, err := v.children(manifest)
	if err != nil {
		return webhook.Signatures{}, err
	}
	var all webhook.Signatures
	for i, child := range children {
		r.binding.ref = ref.WithTag("").WithDigest(child)
		found, err := v.verifyDigest(ctx, r)
		if err != nil || !complete(r.rules, found.Valid) {
			return webhook.Signatures{}, err
		}
		if i == 0 {
			all = found
			continue
		}
		all.Found += found.Found
		all.Until = sooner(all.Until, found.Until)
		all.Valid = slices.DeleteFunc(all.Valid, func(s webhook.Signature) bool {
			return !slices.ContainsFunc(found.Valid, func(o webhook.Signature) bool {
				return o.Signer == s.Signer && o.Identity == s.Identity && o.Issuer == s.Issuer && o.Key == s.Key
			})
		})
	}
	return all, nil
}

// children lists the runnable platforms of an index. Those for "unknown" are attestations of builders, which nothing runs.
func (v *Verifier) children(manifest webhook.Manifest) ([]string, error) {
	var index struct {
		Manifests []struct {
			Digest   string `json:"digest"`
			Platform struct {
				OS           string `json:"os"`
				Architecture string `json:"architecture"`
			} `json:"platform"`
		} `json:"manifests"`
		Layers jsontext.Value `json:"layers"`
		Config jsontext.Value `json:"config"`
	}
	if manifest.MediaType != ociIndex && manifest.MediaType != dockerIndex {
		return nil, errNoIndex
	}
	if json.Unmarshal(manifest.Body, &index) != nil || index.Layers != nil || index.Config != nil {
		return nil, errNoIndex
	}
	var digests []string
	for _, child := range index.Manifests {
		if !isDigest(child.Digest) {
			return nil, errNoIndex
		}
		if child.Platform.OS == "unknown" && child.Platform.Architecture == "unknown" {
			continue
		}
		digests = append(digests, child.Digest)
	}
	if len(digests) == 0 || len(digests) > v.maxPlatforms {
		return nil, errNoIndex
	}
	return digests, nil
}
