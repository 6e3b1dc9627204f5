# METADATA
# title: Images are signed by a trusted signer
# description: |
#   An image that an entry of `signatures` covers, or that is a golden image with signers of its own, must have valid
#   signatures over its digest by as many of the named signers as the entry demands. Whoever signs counts once, even if the
#   configuration trusts the same key or identity under two names.
# custom:
#   id: signature
#   fix: Use an image that the build pipeline has signed; ask the image's owner to sign this one.
#   related: [golden, pinned]
package hallmark.rules.signature

deny contains finding if {
	some image in input.images
	some required in image.signedBy
	found := object.get(required, "signed", [])
	count(found) < required.threshold
	finding := {
		"image": image.where,
		"message": "{lacks}{found}",
		"args": {"lacks": _lacks(required, found), "found": _found(image)},
		"fix": "ask the image's owner to sign it",
	}
}

_lacks(required, _) := sprintf("not signed by %s", [concat(" or ", _some(required.anyOf))]) if required.threshold == 1

_lacks(required, found) := sprintf(
	"signed by %d of the %d signers that it needs from %s",
	[count(found), required.threshold, concat(", ", _some(required.anyOf))],
) if {
	required.threshold > 1
}

# At most three names: the message is no place for a full list.
_some(names) := names if count(names) <= 3

_some(names) := array.concat(array.slice(names, 0, 3), [sprintf("%d others", [count(names) - 3])]) if count(names) > 3

_found(image) := " (no signature found)" if image.signaturesFound == 0

_found(image) := sprintf(" (found: %s)", [concat(", ", image.signaturesRejected)]) if count(image.signaturesRejected) > 0

_found(image) := "" if {
	image.signaturesFound > 0
	count(image.signaturesRejected) == 0
}

_found(image) := "" if not image.signaturesFound
