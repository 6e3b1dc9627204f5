package hallmark.rules.privileged_test

import data.hallmark.rules.privileged

_places(images) := {finding.image | some finding in privileged.deny with input.images as images}

test_privileged_is_denied if {
	_places([{"where": "containers[a]", "privileged": true}, {"where": "containers[b]", "privileged": false}]) == {"containers[a]"}
}

test_others_pass if _places([{"where": "containers[b]", "privileged": false}]) == set()
