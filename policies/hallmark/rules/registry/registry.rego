# METADATA
# title: Images come from an internal registry
# description: |
#   The registry of an image, and the repository on it, must be covered by an entry of `registries` in the
#   configuration. Hosts are compared whole, with their port; repositories by whole path segments. No other host is ever
#   contacted.
# custom:
#   id: registry
#   fix: Use the same image from an internal registry, or ask the cluster admin to add the registry.
#   related: [reference, golden]
package hallmark.rules.registry

deny contains finding if {
	some image in input.images
	image.registryEntry.host == false
	finding := {
		"image": image.where,
		"message": "{registry} is not an internal registry",
		"args": {"registry": image.registry},
	}
}

deny contains finding if {
	some image in input.images
	image.registryEntry.host == true
	image.registryEntry.repository == false
	finding := {
		"image": image.where,
		"message": "{repository} is not among the repositories that are allowed on {registry}",
		"args": {"registry": image.registry, "repository": image.repository},
	}
}
