# METADATA
# title: Images pass the checklist of a minimal image
# description: |
#   Somebody has run the checklist of a minimal image on this one and signed the result as signer `devex-ci`: there is git, a
#   program to download with, the certificates of the authorities, and a user other than root. Of several results the
#   newest counts.
# custom:
#   id: checklist
#   fix: Build on the minimal golden image, or add what the message names to your image.
package hallmark.rules.checklist

_type := "https://hallmark.dev/image-checklist/v1"

_demanded := {"git", "download", "ca-certificates", "non-root-user"}

deny contains finding if {
	some image in input.images
	lacking := _demanded - _passed(image)
	count(lacking) > 0
	finding := {
		"image": image.where,
		"message": "not known to have passed the checklist of a minimal image: {lacking}",
		"args": {"lacking": sort(lacking)},
	}
}

_passed(image) := {check.id |
	some result in _results(image)
	result.checkedAt == max([other.checkedAt | some other in _results(image)])
	some check in result.checks
	check.passed == true
}

_results(image) := [attestation.predicate |
	some attestation in image.attestations
	attestation.predicateType == _type
	attestation.signer == "devex-ci"
]
