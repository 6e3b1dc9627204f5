package webhook

import (
	"context"
	"slices"
	"strings"
)

// A Base is a golden image that others may be built on.
type Base struct {
	Golden
	Signers        []string // any of them must have signed the golden image; none leaves that open
	DerivedSigners []string // any of them must have signed what is built on it; none leaves that open
}

// Derived is what was found when an image that is not golden was held against the golden ones.
type Derived struct {
	From     *Golden // the one that it is built on; nil for none
	Digest   string  // of the golden image
	Unsigned string  // why a base that it is built on does not count, "" when none was passed over
}

// derive looks for the golden image that an image is built on. One image is built on another when the other's layers are
// its first ones, by diff ID, so that another compression makes no difference; a runtime that unpacks an image holds its
// layers against these IDs. Of an index every platform has to be. What is held against it is the golden image as its
// default tag and its locked digests name it, and the digest that the image itself names as its base: it chooses what is
// looked at, and proves nothing.
func (v *review) derive(ctx context.Context, image *Image) (*Derived, error) {
	found := &Derived{}
	var unread error
	for i := range image.Entry.Bases {
		base := &image.Entry.Bases[i]
		digest, err := v.builtOn(ctx, image, base)
		if digest == "" {
			unread = firstError(unread, err) // another one may be the base
			continue
		}
		why, err := v.vouchedFor(ctx, image, base, digest)
		switch {
		case err != nil:
			unread = firstError(unread, err)
		case why == "":
			return &Derived{From: &base.Golden, Digest: digest}, nil
		default:
			found.Unsigned = why
		}
	}
	if unread != nil {
		return nil, unread
	}
	return found, nil
}

func firstError(first, next error) error {
	if first != nil {
		return first
	}
	return next
}

// builtOn gives the digest of the golden image that an image is built on; "" when it is not, or with the error when that
// could not be found out.
func (v *review) builtOn(ctx context.Context, image *Image, base *Base) (string, error) {
	ref, err := ParseReference(base.Repository)
	if err != nil {
		return "", err
	}
	candidates, unread := v.baseDigests(ctx, image, base)
	for _, digest := range candidates {
		golden, err := v.readImage(ctx, ref.WithDigest(digest), WithConfig)
		switch {
		case err == nil && isBuiltOn(image.Content, golden):
			return digest, nil
		case err != nil && !unknownOf(0, ref, err).Missing: // missing: the digest of something in another repository
			unread = firstError(unread, err)
		}
	}
	return "", unread
}

// maxBases bounds how many digests of one golden image are held against one image.
const maxBases = 20

// baseDigests gives the digests of a golden image that an image may be built on.
func (v *review) baseDigests(ctx context.Context, image *Image, base *Base) ([]string, error) {
	digests := slices.Clone(base.Digests)
	if base.Follow == "locked" {
		return digests, nil
	}
	for _, platform := range image.Content.Platforms {
		if platform.BaseDigest != "" {
			digests = append(digests, platform.BaseDigest)
		}
	}
	var unread error
	if base.DefaultTag != "" {
		ref, err := ParseReference(base.Repository + ":" + base.DefaultTag)
		if err != nil {
			return nil, err
		}
		tagged, err := v.readImage(ctx, ref, DigestOnly)
		if err == nil {
			digests = append(digests, tagged.Digest)
		} else if !unknownOf(0, ref, err).Missing {
			unread = err
		}
	}
	slices.Sort(digests)
	digests = slices.Compact(digests)
	return digests[:min(len(digests), maxBases)], unread
}

// isBuiltOn says whether every platform of an image begins with the layers of the same platform of another.
func isBuiltOn(image, base *Content) bool {
	return len(image.Platforms) > 0 && !slices.ContainsFunc(image.Platforms, func(p Platform) bool {
		return !slices.ContainsFunc(base.Platforms, func(b Platform) bool {
			return b.OS == p.OS && b.Architecture == p.Architecture && len(b.Layers) > 0 && len(b.Layers) <= len(p.Layers) &&
				slices.Equal(p.Layers[:len(b.Layers)], b.Layers)
		})
	})
}

// vouchedFor says why a base does not count: it, or what is built on it, is not signed as it has to be. "" when both are.
func (v *review) vouchedFor(ctx context.Context, image *Image, base *Base, digest string) (string, error) {
	ref, err := ParseReference(base.Repository)
	if err != nil {
		return "", err
	}
	for _, check := range []struct {
		ref     Reference
		signers []string
		lacking string
	}{
		{ref.WithDigest(digest), base.Signers, "built on " + base.Name + ", which is not signed by "},
		{image.Ref.WithDigest(image.Digest()), base.DerivedSigners, "built on " + base.Name + ", but not signed by "},
	} {
		if len(check.signers) == 0 {
			continue
		}
		rule := SignatureRule{AnyOf: check.signers, Threshold: 1}
		found, err := v.verify(ctx, check.ref, []SignatureRule{rule})
		if err != nil {
			return "", err
		}
		if !rule.Satisfied(found.Valid) {
			const most = 3 // the message is no place for a full list
			return check.lacking + strings.Join(check.signers[:min(len(check.signers), most)], " or "), nil
		}
	}
	return "", nil
}
