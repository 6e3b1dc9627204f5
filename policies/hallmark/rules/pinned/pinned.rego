# METADATA
# title: Pods run images by digest
# description: |
#   The mutating half of Hallmark replaces every tag of a pod by the digest that was checked. A pod that still has a
#   tag without a digest got past that half, and what would run is not what was checked. Workloads keep their tags: their
#   pods are pinned. The rule applies while `pin.pods` is rewrite.
# custom:
#   id: pinned
#   fix: Try again; if it happens again, tell the cluster admin that Hallmark's mutating webhook does not answer.
#   related: [tag]
package hallmark.rules.pinned

deny contains finding if {
	input.request.kind == "Pod"
	data.hallmark.config.pin.pods == "rewrite"
	some image in input.images
	image.registry
	not image.digest
	finding := {
		"image": image.where,
		"message": "must be pinned by digest, and the half of Hallmark that does so did not",
		"fix": "try again",
	}
}
