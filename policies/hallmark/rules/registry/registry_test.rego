package hallmark.rules.registry_test

import data.hallmark.rules.registry

_image(host, repository) := {
	"where": "containers[dev]",
	"registry": "registry.corp",
	"repository": "golden/base",
	"registryEntry": {"host": host, "repository": repository},
}

test_internal_registry_passes if {
	registry.deny == set() with input.images as [_image(true, true)]
}

test_other_registry_is_denied if {
	registry.deny == {{
		"image": "containers[dev]",
		"message": "{registry} is not an internal registry",
		"args": {"registry": "registry.corp"},
	}} with input.images as [_image(false, false)]
}

test_other_repository_is_denied if {
	registry.deny == {{
		"image": "containers[dev]",
		"message": "{repository} is not among the repositories that are allowed on {registry}",
		"args": {"registry": "registry.corp", "repository": "golden/base"},
	}} with input.images as [_image(true, false)]
}
