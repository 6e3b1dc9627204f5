package hallmark.rules.checklist_test

import data.hallmark.rules.checklist

_all := {"git", "download", "ca-certificates", "non-root-user"}

_result(at, passed) := {
	"predicateType": "https://hallmark.dev/image-checklist/v1",
	"signer": "devex-ci",
	"predicate": {
		"checkedAt": at,
		"checks": [{"id": id, "passed": id in passed} | some id in _all],
	},
}

_lacking(attestations) := lacking if {
	images := [{"where": "containers[dev]", "attestations": attestations}]
	lacking := {finding.args.lacking | some finding in checklist.deny} with input.images as images
}

test_all_passed if _lacking([_result("2027-03-31T00:00:00Z", _all)]) == set()

test_some_failed if {
	_lacking([_result("2027-03-31T00:00:00Z", _all - {"git", "non-root-user"})]) == {["git", "non-root-user"]}
}

test_newest_result_counts if {
	_lacking([
		_result("2027-03-31T00:00:00Z", _all - {"git"}),
		_result("2027-03-01T00:00:00Z", _all),
	]) == {["git"]}
}

test_nothing_attested_is_denied if _lacking([]) == {["ca-certificates", "download", "git", "non-root-user"]}

test_somebody_else_does_not_count if {
	_lacking([object.union(_result("2027-03-31T00:00:00Z", _all), {"signer": "somebody"})]) == {sort(_all)}
}
