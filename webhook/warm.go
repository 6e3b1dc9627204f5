package webhook

import "context"

// Warmed is what Warm found.
type Warmed struct {
	Digest  string
	Unknown []Unknown // what could not be found out
	Signed  bool      // the signatures and attestations that the configuration demands are there
}

// Warm reads and verifies an image as an admission would, so that the first workspace that starts from it does not wait.
func (r *Reviewer) Warm(ctx context.Context, ref Reference) Warmed {
	image := &Image{Where: "containers[warm]", Role: RoleWorkspace, Text: ref.String(), Ref: ref, Changed: true}
	v := &review{
		Reviewer: r, request: &Request{Operation: Create, Kind: "Pod"}, object: &object{kind: objectKind{isPod: true}},
		changed: []*Image{image},
	}
	v.catalogue(false)
	v.fetch(ctx, image, v.needs(image))
	warmed := Warmed{Digest: image.Digest(), Unknown: image.Unknown, Signed: true}
	for _, rule := range image.Entry.Signed {
		warmed.Signed = warmed.Signed && image.Signatures != nil && rule.Satisfied(image.Signatures.Valid)
	}
	for _, rule := range image.Entry.Attested {
		warmed.Signed = warmed.Signed && image.Attested != nil && rule.Satisfied(image.Attested.Valid)
	}
	return warmed
}
