package hallmark.rules.vulnerabilities_test

import data.hallmark.rules.vulnerabilities

_scan(finished, found) := {
	"predicateType": "https://cosign.sigstore.dev/attestation/vuln/v1",
	"signer": "scanner",
	"predicate": {
		"metadata": {"scanFinishedOn": finished},
		"scanner": {"result": {"Results": [{"Vulnerabilities": found}]}},
	},
}

_critical(id, published) := {"VulnerabilityID": id, "Severity": "CRITICAL", "FixedVersion": "1.2.4", "PublishedDate": published}

_messages(attestations) := messages if {
	images := [{"where": "containers[dev]", "attestations": attestations}]
	messages := {[finding.message, object.get(finding, "args", {})] | some finding in vulnerabilities.deny} with input as {
		"request": {"time": "2027-03-31T12:00:00Z"},
		"images": images,
	}
}

_none := {["no vulnerability scan of the last 7 days", {}]}

test_clean_scan_passes if _messages([_scan("2027-03-30T00:00:00Z", [])]) == set()

test_no_scan_is_denied if _messages([]) == _none

test_old_scan_is_denied if _messages([_scan("2027-03-01T00:00:00Z", [])]) == _none

test_scan_by_somebody_else_is_denied if {
	_messages([object.union(_scan("2027-03-30T00:00:00Z", []), {"signer": "somebody"})]) == _none
}

test_known_for_long_is_denied if {
	_messages([_scan("2027-03-30T00:00:00Z", [
		_critical("CVE-2027-1", "2027-03-01T00:00:00Z"),
		_critical("CVE-2027-2", "2027-03-30T00:00:00Z"),
		object.union(_critical("CVE-2027-3", "2027-03-01T00:00:00Z"), {"Severity": "HIGH"}),
		object.union(_critical("CVE-2027-4", "2027-03-01T00:00:00Z"), {"FixedVersion": ""}),
		{"VulnerabilityID": "CVE-2027-5", "Severity": "CRITICAL", "FixedVersion": "1.2.4"},
	])]) == {["critical vulnerabilities known for more than 14 days: {ids}", {"ids": ["CVE-2027-1", "CVE-2027-5"]}]}
}

test_newest_scan_counts if {
	_messages([
		_scan("2027-03-29T00:00:00Z", [_critical("CVE-2027-1", "2027-03-01T00:00:00Z")]),
		_scan("2027-03-30T00:00:00Z", []),
	]) == set()
}
