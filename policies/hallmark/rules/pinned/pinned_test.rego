package hallmark.rules.pinned_test

import data.hallmark.rules.pinned

_deny(kind, mode, image) := found if {
	found := pinned.deny with input.request as {"kind": kind}
		with data.hallmark.config.pin.pods as mode
		with input.images as [image]
}

_tagged := {"where": "containers[dev]", "registry": "registry.corp", "tag": "v1.0.0"}

test_pinned_pod_passes if _deny("Pod", "rewrite", object.union(_tagged, {"digest": "sha256:aa"})) == set()

test_tagged_pod_is_denied if {
	_deny("Pod", "rewrite", _tagged) == {{
		"image": "containers[dev]",
		"message": "must be pinned by digest, and the half of Hallmark that does so did not",
		"fix": "try again",
	}}
}

test_workloads_keep_their_tags if _deny("Deployment", "rewrite", _tagged) == set()

test_nothing_is_pinned_in_other_modes if _deny("Pod", "annotate", _tagged) == set()

test_invalid_reference_is_left_to_another_rule if {
	_deny("Pod", "rewrite", {"where": "containers[dev]", "error": "it is empty"}) == set()
}
