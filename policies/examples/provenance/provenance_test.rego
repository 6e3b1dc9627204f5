package hallmark.rules.provenance_test

import data.hallmark.rules.provenance

_ours := "https://github.com/corp/images/.github/workflows/build.yml@refs/heads/main"

_image(attestations) := {"where": "containers[dev]", "attestations": attestations}

_by(signer, builder) := {
	"predicateType": "https://slsa.dev/provenance/v1",
	"signer": signer,
	"predicate": {"runDetails": {"builder": {"id": builder}}},
}

_found(attestations) := found if {
	found := {finding.args.found | some finding in provenance.deny} with input.images as [_image(attestations)]
}

test_our_builder_passes if _found([_by("release", "https://x"), _by("release", _ours)]) == set()

test_another_builder_is_denied if _found([_by("release", "https://x")]) == {" (it says https://x)"}

test_another_signer_is_denied if _found([_by("somebody", _ours)]) == {""}

test_another_type_is_denied if {
	_found([object.union(_by("release", _ours), {"predicateType": "https://slsa.dev/provenance/v0.2"})]) == {""}
}

test_provenance_in_another_form_is_denied if {
	_found([{"predicateType": "https://slsa.dev/provenance/v1", "signer": "release", "predicate": {"builder": _ours}}]) == {""}
}

test_nothing_attested_is_denied if _found([]) == {""}
