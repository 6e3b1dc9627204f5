# METADATA
# title: Containers do not run privileged
# description: |
#   A privileged container can do on its node what root can. The rule is off unless the configuration gives it a mode
#   (`rules: {privileged: enforce}`): envbox needs it, and clusters with PodSecurity "baseline" refuse it already.
# custom:
#   id: privileged
#   fix: Leave out securityContext.privileged; for Docker in a workspace use a runtime such as Sysbox, or an exemption.
#   related: [user]
#   default: "off"
package hallmark.rules.privileged

deny contains finding if {
	some image in input.images
	image.privileged == true
	finding := {
		"image": image.where,
		"message": "the container is privileged",
		"fix": "leave out securityContext.privileged",
	}
}
