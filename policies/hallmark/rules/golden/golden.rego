# METADATA
# title: Workspaces start from golden images
# description: |
#   An image must be in the catalogue of golden images (`goldenImages` in the configuration), not decommissioned, and
#   used in a role that its entry allows. A locked one must have one of the digests of its entry. A deprecated one is
#   allowed with a warning. The rule applies when the catalogue is not empty.
# custom:
#   id: golden
#   fix: Use a golden image of the catalogue, or the successor that the message names.
#   related: [registry, tag, signature]
#   early: true
package hallmark.rules.golden

deny contains finding if {
	some image in input.images
	image.golden == null
	finding := {
		"image": image.where,
		"message": "{repository} is not a golden image",
		"args": {"repository": image.repository},
	}
}

deny contains finding if {
	some image in input.images
	image.golden.status == "decommissioned"
	finding := object.union(
		{
			"image": image.where,
			"message": "golden image {name} is decommissioned",
			"args": {"name": image.golden.name},
		},
		_successor(image),
	)
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

warn contains finding if {
	some image in input.images
	image.golden.status == "deprecated"
	finding := object.union(
		{
			"image": image.where,
			"message": "golden image {name} is deprecated",
			"args": {"name": image.golden.name},
		},
		_successor(image),
	)
}

_successor(image) := {"fix": sprintf("use golden image %s", [image.golden.successor])} if image.golden.successor

_successor(image) := {} if not image.golden.successor
