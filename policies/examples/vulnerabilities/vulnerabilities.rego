# METADATA
# title: No critical vulnerability is left for long
# description: |
#   There has to be a vulnerability scan of the last week, as `cosign attest --type vuln` attaches the report of Trivy, signed by
#   signer `scanner`, and the newest one may not name a critical vulnerability with a fix that was published two weeks
#   before. Of several scans the newest counts: an old one, which did not know yet, hides nothing.
# custom:
#   id: vulnerabilities
#   fix: Use a newer build of the image; its owner rebuilds it with the fixed packages.
package hallmark.rules.vulnerabilities

_type := "https://cosign.sigstore.dev/attestation/vuln/v1"

_day := ((24 * 60) * 60) * 1000000000

_now := time.parse_rfc3339_ns(input.request.time)

deny contains finding if {
	some image in input.images
	not _scanned_lately(image)
	finding := {"image": image.where, "message": "no vulnerability scan of the last 7 days"}
}

deny contains finding if {
	some image in input.images
	ids := {id |
		some scan in _scans(image)
		scan.at == _newest(image)
		some result in scan.report.Results
		some vulnerability in result.Vulnerabilities
		vulnerability.Severity == "CRITICAL"
		vulnerability.FixedVersion != ""
		not _new(vulnerability)
		id := vulnerability.VulnerabilityID
	}
	count(ids) > 0
	finding := {
		"image": image.where,
		"message": "critical vulnerabilities known for more than 14 days: {ids}",
		"args": {"ids": [id | some id in ids]},
	}
}

_scanned_lately(image) if _newest(image) > _now - (7 * _day)

# One without a date is not new.
_new(vulnerability) if time.parse_rfc3339_ns(vulnerability.PublishedDate) > _now - (14 * _day)

# When the newest scan ended, in nanoseconds; undefined without one.
_newest(image) := max([scan.at | some scan in _scans(image)])

_scans(image) := [{"at": at, "report": attestation.predicate.scanner.result} |
	some attestation in image.attestations
	attestation.predicateType == _type
	attestation.signer == "scanner"
	at := time.parse_rfc3339_ns(attestation.predicate.metadata.scanFinishedOn)
]
