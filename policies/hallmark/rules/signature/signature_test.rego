package hallmark.rules.signature_test

import data.hallmark.rules.signature

_image(required, valid, rejected) := {
	"where": "containers[dev]",
	"signedBy": [object.union(required, {"signed": valid})],
	"signaturesFound": count(valid) + count(rejected),
	"signaturesRejected": rejected,
}

_one_of(names) := {"anyOf": names, "threshold": 1}

_reasons(image) := reasons if {
	reasons := {concat("", [finding.args.lacks, finding.args.found]) | some finding in signature.deny} with input.images as [image]
}

test_signed_image_passes if _reasons(_image(_one_of(["ci", "release"]), ["release"], ["1 signature by an unknown key"])) == set()

test_image_that_needs_no_signature_passes if {
	signature.deny == set() with input.images as [{"where": "containers[dev]", "signedBy": []}]
}

test_unsigned_image_is_denied if {
	_reasons(_image(_one_of(["ci"]), [], [])) == {"not signed by ci (no signature found)"}
}

test_unknown_key_is_denied if {
	_reasons(_image(_one_of(["ci", "release"]), [], ["1 signature by an unknown key"])) == {"not signed by ci or release (found: 1 signature by an unknown key)"}
}

test_other_reasons_are_told if {
	image := object.union(_image(_one_of(["ci"]), [], []), {"signaturesFound": 1})
	_reasons(image) == {"not signed by ci"}
}

test_threshold_is_reached_or_not if {
	required := {"anyOf": ["a", "b", "c"], "threshold": 2}
	_reasons(_image(required, ["a", "b"], [])) == set()
	_reasons(_image(required, ["a"], [])) == {"signed by 1 of the 2 signers that it needs from a, b, c"}
}

test_long_lists_are_cut if {
	_reasons(_image(_one_of(["a", "b", "c", "d", "e"]), [], [])) == {"not signed by a or b or c or 2 others (no signature found)"}
}

test_signatures_that_nobody_read_are_none if {
	_reasons({"where": "containers[dev]", "signedBy": [_one_of(["ci"])]}) == {"not signed by ci"}
}
