# METADATA
# title: Contractors use the image that is made for them
# description: |
#   Who is in group `contractors` may start workspaces from the golden image `contractor` alone. The group is what the API
#   server has authenticated; where a controller creates the pods of all users, look at the namespace instead.
# custom:
#   id: contractors
#   fix: Choose the template for contractors.
package hallmark.rules.contractors

deny contains finding if {
	"contractors" in input.request.user.groups
	some image in input.images
	image.role == "workspace"
	not _theirs(image)
	finding := {
		"image": image.where,
		"message": "contractors use the golden image {name}",
		"args": {"name": "contractor"},
	}
}

_theirs(image) if image.golden.name == "contractor"
