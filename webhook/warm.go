package webhook

import "context"

// Warm reads and verifies an image as an admission would, so that the first workspace that starts from it does not wait.
// It gives what could not be found out, and whether the signatures are those that the configuration demands.
func (r *Reviewer) Warm(ctx context.Context, ref Reference) (unknown []Unknown, signed bool) {
	image := &Image{Where: "containers[warm]", Role: RoleWorkspace, Text: ref.String(), Ref: ref, Changed: true}
	v := &review{
		Reviewer: r, request: &Request{Operation: Create, Kind: "Pod"}, object: &object{kind: objectKind{isPod: true}},
		changed: []*Image{image},
	}
	v.catalogue(false)
	v.fetch(ctx, image, v.needs(image))
	signed = true
	for _, rule := range image.Entry.Signed {
		signed = signed && image.Signatures != nil && rule.Satisfied(image.Signatures.Valid)
	}
	return image.Unknown, signed
}
