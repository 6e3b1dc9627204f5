# METADATA
# title: Workspaces start from golden images
# description: |
#   An image must be in the catalogue of golden images (`goldenImages` in the configuration), or be built on one whose
#   entry has `allowDerived`: its layers begin with those of the golden image, and both are signed as the entry says. The
#   golden image may not be decommissioned, and the role must be one that its entry allows. A locked one must have one of
#   the digests of its entry. A deprecated one is allowed with a warning, or denied where its entry says `deprecated: deny`;
#   workspaces that run already go on. The rule applies when the catalogue is not empty.
# custom:
#   id: golden
#   fix: Use a golden image of the catalogue, or the successor that the message names.
#   related: [registry, tag, signature]
#   early: true
package hallmark.rules.golden

deny contains finding if {
	some image in input.images
	image.golden == null
	not image.derivable
	finding := {
		"image": image.where,
		"message": "{repository} is not a golden image",
		"args": {"repository": image.repository},
	}
}

# Only null says that nobody was found: without the fact it is not known yet.
deny contains finding if {
	some image in input.images
	image.derivedFrom == null
	finding := {
		"image": image.where,
		"message": "{repository} is {what}",
		"args": {
			"repository": image.repository,
			"what": object.get(image, "derivedUnsigned", "neither a golden image nor built on one"),
		},
	}
}

deny contains finding if {
	some image in input.images
	some kind, golden in _bases(image)
	golden.status == "decommissioned"
	finding := object.union(
		{
			"image": image.where,
			"message": "{kind} {name} is decommissioned",
			"args": {"kind": kind, "name": golden.name},
		},
		_successor(golden),
	)
}

deny contains finding if {
	some image in input.images
	image.derivedFrom.roleAllowed == false
	finding := {
		"image": image.where,
		"message": "golden image {name}, which it is built on, is not for the role {role}",
		"args": {"name": image.derivedFrom.name, "role": image.role},
	}
}

deny contains finding if {
	some image in input.images
	image.golden.roleAllowed == false
	finding := {
		"image": image.where,
		"message": "golden image {name} is not for the role {role}; its roles: {roles}",
		"args": {"name": image.golden.name, "role": image.role, "roles": image.golden.roles},
	}
}

deny contains finding if {
	some image in input.images
	digest := _digest(image)
	not digest in image.golden.digests
	image.golden.digests
	finding := {
		"image": image.where,
		"message": "golden image {name} is locked to other digests than {digest}",
		"args": {"name": image.golden.name, "digest": substring(digest, 0, 19)},
	}
}

# The digest that would run: the one that was written, else the one that the tag names.
_digest(image) := image.digest if image.digest

_digest(image) := image.tagDigest if not image.digest

deny contains finding if {
	some image in input.images
	some kind, golden in _bases(image)
	golden.denyDeprecated == true
	finding := _deprecated(image, kind, golden)
}

warn contains finding if {
	some image in input.images
	some kind, golden in _bases(image)
	not golden.denyDeprecated
	finding := _deprecated(image, kind, golden)
}

_deprecated(image, kind, golden) := object.union(
	{
		"image": image.where,
		"message": "{kind} {name} is deprecated",
		"args": {"kind": kind, "name": golden.name},
	},
	_successor(golden),
) if {
	golden.status == "deprecated"
}

# The golden image that it is, or that it is built on.
_bases(image) := {"golden image": image.golden} if image.golden.name

_bases(image) := {"its golden base image": image.derivedFrom} if image.derivedFrom.name

_successor(golden) := {"fix": sprintf("use golden image %s", [golden.successor])} if golden.successor

_successor(golden) := {} if not golden.successor
