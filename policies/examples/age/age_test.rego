package hallmark.rules.age_test

import data.hallmark.rules.age

_dates(image) := found if {
	found := {finding.args.date | some finding in age.deny} with input as {
		"request": {"time": "2027-03-31T12:00:00Z"},
		"images": [{"where": "containers[dev]", "image": image}],
	}
}

test_new_image_passes if _dates({"created": "2027-03-01T00:00:00Z"}) == set()

test_old_image_is_denied if _dates({"created": "2026-12-01T00:00:00Z"}) == {"2026-12-01"}

test_image_without_a_date_is_denied if _dates({}) == {"an unknown"}
