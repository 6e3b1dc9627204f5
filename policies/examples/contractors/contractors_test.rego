package hallmark.rules.contractors_test

import data.hallmark.rules.contractors

_denied(groups, image) if count(contractors.deny) == 1 with input as {
	"request": {"user": {"groups": groups}},
	"images": [object.union({"where": "containers[dev]", "role": "workspace"}, image)],
}

test_their_image_passes if not _denied(["contractors"], {"golden": {"name": "contractor"}})

test_another_golden_image_is_denied if _denied(["developers", "contractors"], {"golden": {"name": "base"}})

test_an_image_that_is_not_golden_is_denied if _denied(["contractors"], {"golden": null})

test_others_are_not_concerned if not _denied(["developers"], {"golden": {"name": "base"}})

test_sidecars_are_not_concerned if not _denied(["contractors"], {"role": "sidecar", "golden": null})
