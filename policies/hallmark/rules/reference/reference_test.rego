package hallmark.rules.reference_test

import data.hallmark.rules.reference

test_canonical_reference_passes if {
	reference.deny == set() with input.images as [{"where": "containers[dev]", "registry": "registry.corp"}]
}

test_invalid_reference_is_denied if {
	reference.deny == {{
		"image": "containers[dev]",
		"message": "{reason}",
		"args": {"reason": "the tag is empty"},
	}} with input.images as [{"where": "containers[dev]", "error": "the tag is empty"}]
}
