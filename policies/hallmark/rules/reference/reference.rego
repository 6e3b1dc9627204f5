# METADATA
# title: The image reference is one that every tool reads the same way
# description: |
#   An image must be named by a canonical reference: the form that the kubelet accepts and that no other parser reads as
#   another image. Upper-case hosts, empty ports, `..` segments, digests other than sha256 and images whose name cannot
#   be seen (an image variable that comes from a Secret) are refused.
# custom:
#   id: reference
#   fix: Write the image as registry/repository:tag, in lower case, with the registry's host as it is configured.
#   related: [registry]
package hallmark.rules.reference

deny contains {"image": image.where, "message": "{reason}", "args": {"reason": image.error}} if {
	some image in input.images
	image.error
}
