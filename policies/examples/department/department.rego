# METADATA
# title: Teams use the images of their own department
# description: |
#   With `tags.path: "{company}/{department}/{software}"` in the configuration, the department in an image's repository has to
#   be the first part of the namespace's name: corp/data/notebook in data-team-a. Images of department `shared` are for all.
# custom:
#   id: department
#   fix: Use an image of your own department, or ask for one to be put under shared.
package hallmark.rules.department

deny contains finding if {
	some image in input.images
	department := object.get(image, ["path", "department"], "none")
	not department in {"shared", _own}
	finding := {
		"image": image.where,
		"message": "belongs to department {department}, not to {own}",
		"args": {"department": department, "own": _own},
	}
}

_own := split(input.request.namespace, "-")[0]
