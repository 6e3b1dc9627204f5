package hallmark.rules.golden_test

import data.hallmark.rules.golden

_image := {
	"where": "containers[dev]",
	"role": "workspace",
	"repository": "golden/base",
	"golden": {"name": "base", "status": "active", "roles": [], "roleAllowed": true},
}

_with(patch) := object.union(_image, {"golden": object.union(_image.golden, patch)})

test_active_golden_image_passes if {
	golden.deny == set() with input.images as [_image]
	golden.warn == set() with input.images as [_image]
}

test_other_image_is_denied if {
	golden.deny == {{
		"image": "containers[dev]",
		"message": "{repository} is not a golden image",
		"args": {"repository": "golden/base"},
	}} with input.images as [object.union(_image, {"golden": null, "derivable": false})]
}

_derived(patch) := object.union(object.remove(_image, ["golden"]), object.union({"golden": null, "derivable": true}, patch))

_base := {"name": "base", "status": "active", "roleAllowed": true}

test_image_that_may_be_built_on_a_golden_one_is_left_for_later if {
	golden.deny == set() with input.images as [_derived({})]
}

test_image_built_on_a_golden_one_passes if {
	golden.deny == set() with input.images as [_derived({"derivedFrom": _base})]
	golden.warn == set() with input.images as [_derived({"derivedFrom": _base})]
}

test_image_built_on_none_is_denied if {
	golden.deny == {{
		"image": "containers[dev]",
		"message": "{repository} is {what}",
		"args": {"repository": "golden/base", "what": "neither a golden image nor built on one"},
	}} with input.images as [_derived({"derivedFrom": null})]
}

test_image_built_on_a_golden_one_by_somebody_is_denied if {
	golden.deny == {{
		"image": "containers[dev]",
		"message": "{repository} is {what}",
		"args": {"repository": "golden/base", "what": "built on base, but not signed by ci"},
	}} with input.images as [_derived({"derivedFrom": null, "derivedUnsigned": "built on base, but not signed by ci"})]
}

test_image_built_on_a_decommissioned_one_is_denied if {
	golden.deny == {{
		"image": "containers[dev]",
		"message": "{kind} {name} is decommissioned",
		"args": {"kind": "its golden base image", "name": "base"},
		"fix": "use golden image universal",
	}} with input.images as [_derived({"derivedFrom": object.union(_base, {"status": "decommissioned", "successor": "universal"})})]
}

test_image_built_on_a_deprecated_one_is_warned_of if {
	golden.deny == set() with input.images as [_derived({"derivedFrom": object.union(_base, {"status": "deprecated"})})]
	count(golden.warn) == 1 with input.images as [_derived({"derivedFrom": object.union(_base, {"status": "deprecated"})})]
}

test_image_built_on_one_for_another_role_is_denied if {
	golden.deny == {{
		"image": "containers[dev]",
		"message": "golden image {name}, which it is built on, is not for the role {role}",
		"args": {"name": "base", "role": "workspace"},
	}} with input.images as [_derived({"derivedFrom": object.union(_base, {"roleAllowed": false})})]
}

test_decommissioned_image_is_denied_with_its_successor if {
	golden.deny == {{
		"image": "containers[dev]",
		"message": "{kind} {name} is decommissioned",
		"args": {"kind": "golden image", "name": "base"},
		"fix": "use golden image universal",
	}} with input.images as [_with({"status": "decommissioned", "successor": "universal"})]
}

test_decommissioned_image_without_successor_is_denied if {
	golden.deny == {{
		"image": "containers[dev]",
		"message": "{kind} {name} is decommissioned",
		"args": {"kind": "golden image", "name": "base"},
	}} with input.images as [_with({"status": "decommissioned"})]
}

test_deprecated_image_is_allowed_with_a_warning if {
	golden.deny == set() with input.images as [_with({"status": "deprecated"})]
	golden.warn == {{
		"image": "containers[dev]",
		"message": "{kind} {name} is deprecated",
		"args": {"kind": "golden image", "name": "base"},
		"fix": "use golden image universal",
	}} with input.images as [_with({"status": "deprecated", "successor": "universal"})]
}

test_deprecated_image_is_denied_where_its_entry_says_so if {
	golden.warn == set() with input.images as [_with({"status": "deprecated", "denyDeprecated": true})]
	golden.deny == {{
		"image": "containers[dev]",
		"message": "{kind} {name} is deprecated",
		"args": {"kind": "golden image", "name": "base"},
	}} with input.images as [_with({"status": "deprecated", "denyDeprecated": true})]
	golden.deny == set() with input.images as [_with({"status": "active", "denyDeprecated": true})]
}

test_other_role_is_denied if {
	golden.deny == {{
		"image": "containers[dev]",
		"message": "golden image {name} is not for the role {role}; its roles: {roles}",
		"args": {"name": "base", "role": "workspace", "roles": ["init"]},
	}} with input.images as [_with({"roles": ["init"], "roleAllowed": false})]
}

test_locked_image_passes_with_its_digest if {
	golden.deny == set() with input.images as [object.union(_with({"digests": ["sha256:aa"]}), {"digest": "sha256:aa"})]
	golden.deny == set() with input.images as [object.union(_with({"digests": ["sha256:aa"]}), {"tagDigest": "sha256:aa"})]
}

test_locked_image_is_denied_with_another_digest if {
	golden.deny == {{
		"image": "containers[dev]",
		"message": "golden image {name} is locked to other digests than {digest}",
		"args": {"name": "base", "digest": "sha256:bb"},
	}} with input.images as [object.union(_with({"digests": ["sha256:aa"]}), {"digest": "sha256:bb", "tagDigest": "sha256:aa"})]
}

test_locked_image_whose_tag_was_not_read_is_left_for_later if {
	golden.deny == set() with input.images as [_with({"digests": ["sha256:aa"]})]
}
