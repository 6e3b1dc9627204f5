# METADATA
# title: The tag is of an allowed kind
# description: |
#   What a tag promises can be read off its spelling (its class), and `tags` in the configuration says which classes and
#   patterns are allowed, by repository. A reference with both tag and digest must have an allowed tag, and either the
#   tag names this digest in the registry, or bare digests are allowed.
# custom:
#   id: tag
#   fix: Use a tag of an allowed class, such as the default tag of the golden image.
#   related: [golden, pinned]
#   early: true
package hallmark.rules.tag

# What is wrong with a class that is not allowed, for the developer. The reference says the rest.
_meaning := {
	"branch": "names a branch and moves",
	"dated": "is a date",
	"digest": "names no tag, only a digest",
	"distro": "names a distribution and moves",
	"exact": "is an exact version",
	"major": "names a major version and moves",
	"minor": "names a minor version and moves",
	"named": "has no meaning that Hallmark knows",
	"rolling": "names whatever is newest",
	"sha": "names a commit",
	"untagged": "is missing, which means latest",
}

deny contains finding if {
	some image in input.images
	image.tagRule == null
	finding := {"image": image.where, "message": "no entry of tags in the configuration covers this image"}
}

deny contains finding if {
	some image in input.images
	image.tagRule.class == false
	finding := {
		"image": image.where,
		"message": "{tag} {meaning}; allowed here: {allow}",
		"args": {
			"tag": _quoted(image),
			"meaning": _meaning[image.tagClass],
			"allow": image.tagRule.allow,
		},
	}
}

deny contains finding if {
	some image in input.images
	image.tagRule.match == false
	finding := {
		"image": image.where,
		"message": "{tag} does not match the pattern {pattern}",
		"args": {"tag": _quoted(image), "pattern": image.tagRule.pattern},
	}
}

deny contains finding if {
	some image in input.images
	image.tagRule.digest == false
	image.tagDigest != image.digest
	finding := {
		"image": image.where,
		"message": "{tag} names {now} in the registry, not {digest}",
		"args": {"tag": _quoted(image), "now": substring(image.tagDigest, 0, 19), "digest": substring(image.digest, 0, 19)},
		"fix": "leave the digest out, or use the one that the tag names; try again if the tag has just moved",
	}
}

_quoted(image) := sprintf("%q", [image.tag]) if image.tag

_quoted(image) := "the tag" if not image.tag
