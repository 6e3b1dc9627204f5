package webhook

// HasImages says whether objects of a kind have images that a Reviewer looks for: pods, and what makes pods of a template.
// The group of the core kinds is "".
func HasImages(group, kind string) bool {
	_, known := podKindOf(group, kind)
	return known
}
