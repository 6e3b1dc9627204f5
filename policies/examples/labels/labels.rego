# METADATA
# title: Images say where their source is
# description: |
#   The label org.opencontainers.image.source has to lead to one of our repositories, so that whoever finds something in an
#   image knows whom to tell.
# custom:
#   id: labels
#   fix: Set the label org.opencontainers.image.source when the image is built.
package hallmark.rules.labels

_label := "org.opencontainers.image.source"

_prefix := "https://github.com/corp/"

_labels(image) := object.get(image, ["image", "labels"], {})

deny contains finding if {
	some image in input.images
	not startswith(object.get(_labels(image), _label, ""), _prefix)
	finding := {
		"image": image.where,
		"message": "its label {label} does not begin with {prefix}",
		"args": {"label": _label, "prefix": _prefix},
	}
}
