# METADATA
# title: Images are built by our builder
# description: |
#   SLSA provenance, signed by signer `release`, has to say that one of our workflows built the image. Hallmark has verified
#   the signature, the predicate type and that it is about the image's digest before this rule sees it.
# custom:
#   id: provenance
#   fix: Use an image that the build pipeline has built; images that were pushed by hand have no provenance.
package hallmark.rules.provenance

_builders := {"https://github.com/corp/images/.github/workflows/build.yml@refs/heads/main"}

deny contains finding if {
	some image in input.images
	not _built_by_us(image)
	finding := {
		"image": image.where,
		"message": "no provenance that says who built it, by one of our builders{found}",
		"args": {"found": _found(image)},
	}
}

_built_by_us(image) if {
	some builder in _claimed(image)
	builder in _builders
}

_claimed(image) := {builder |
	some attestation in image.attestations
	attestation.predicateType == "https://slsa.dev/provenance/v1"
	attestation.signer == "release"
	builder := attestation.predicate.runDetails.builder.id
}

_found(image) := sprintf(" (it says %s)", [concat(", ", _claimed(image))]) if count(_claimed(image)) > 0

_found(image) := "" if count(_claimed(image)) == 0
