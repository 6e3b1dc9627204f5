# METADATA
# title: Images are not older than 90 days
# description: |
#   An image that was built long ago has long been without patches. The date is the one in its config; an image without one is
#   as old as can be, and reproducible builds that write 1970 have to be exempted or to write the date of the commit.
# custom:
#   id: age
#   fix: Use a newer build of the image; its owner rebuilds it at least every month.
package hallmark.rules.age

_days := 90

_limit := time.parse_rfc3339_ns(input.request.time) - (((_days * 24) * 3600) * 1000000000)

deny contains finding if {
	some image in input.images
	not _fresh(image)
	finding := {
		"image": image.where,
		"message": "was built on {date}, more than {days} days ago",
		"args": {"date": substring(object.get(image, ["image", "created"], "an unknown date"), 0, 10), "days": _days},
	}
}

_fresh(image) if time.parse_rfc3339_ns(image.image.created) > _limit
