package hallmark.rules.attestation_test

import data.hallmark.rules.attestation

_provenance := "slsa.dev/provenance/v1"

_image(required, rejected) := {
	"where": "containers[dev]",
	"attestedBy": [required],
	"attestationsRejected": rejected,
}

_messages(image) := messages if {
	messages := {[finding.args.type, finding.args.signers, finding.args.found] | some finding in attestation.deny} with input.images as [image]
}

test_attested_image_passes if {
	_messages(_image({"predicateType": _provenance, "anyOf": ["release"], "attested": true}, ["1 attestation by an unknown key"])) == set()
}

test_image_of_which_nothing_must_be_attested_passes if {
	attestation.deny == set() with input.images as [{"where": "containers[dev]", "attestedBy": []}]
}

test_missing_attestation_is_denied if {
	_messages(_image({"predicateType": _provenance, "anyOf": ["ci", "release"], "attested": false}, [])) == {[_provenance, "ci or release", ""]}
}

test_attestation_by_somebody_else_is_denied if {
	required := {"predicateType": _provenance, "anyOf": ["release"], "attested": false}
	_messages(_image(required, ["1 attestation by an unknown key"])) == {[_provenance, "release", " (found: 1 attestation by an unknown key)"]}
}

test_attestations_that_nobody_read_are_none if {
	image := {"where": "containers[dev]", "attestedBy": [{"predicateType": _provenance, "anyOf": ["release"]}]}
	_messages(image) == {[_provenance, "release", ""]}
}

test_long_lists_are_cut if {
	required := {"predicateType": _provenance, "anyOf": ["a", "b", "c", "d", "e"], "attested": false}
	_messages(_image(required, [])) == {[_provenance, "a or b or c or 2 others", ""]}
}
