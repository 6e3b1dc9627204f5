# METADATA
# title: Images are attested as the configuration demands
# description: |
#   For every entry of `attestations` that covers an image there must be an in-toto attestation of exactly that predicate
#   type about its digest, signed by one of the named signers. What the attestation says is for rules of your own:
#   `image.attestations[_].predicate`.
# custom:
#   id: attestation
#   fix: Use an image that the build pipeline has attested; ask the image's owner to attest this one.
#   related: [signature, golden]
package hallmark.rules.attestation

deny contains finding if {
	some image in input.images
	some required in image.attestedBy
	not required.attested == true
	finding := {
		"image": image.where,
		"message": "no attestation {type} by {signers}{found}",
		"args": {
			"type": required.predicateType,
			"signers": concat(" or ", _some(required.anyOf)),
			"found": _found(image),
		},
		"fix": "ask the image's owner to attest it",
	}
}

# At most three names: the message is no place for a full list.
_some(names) := names if count(names) <= 3

_some(names) := array.concat(array.slice(names, 0, 3), [sprintf("%d others", [count(names) - 3])]) if count(names) > 3

_found(image) := sprintf(" (found: %s)", [concat(", ", image.attestationsRejected)]) if count(image.attestationsRejected) > 0

_found(image) := "" if count(object.get(image, "attestationsRejected", [])) == 0
