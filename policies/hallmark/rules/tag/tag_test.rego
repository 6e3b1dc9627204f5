package hallmark.rules.tag_test

import data.hallmark.rules.tag

_rule := {"allow": ["exact", "dated"], "pattern": "", "class": true, "match": true, "digest": false}

_image := {
	"where": "containers[dev]",
	"tag": "v1.2.3",
	"tagClass": "exact",
	"tagRule": _rule,
}

_messages(image) := messages if {
	messages := {finding.message | some finding in tag.deny} with input.images as [image]
}

test_allowed_tag_passes if _messages(_image) == set()

test_image_without_tag_rule_is_denied if {
	_messages(object.union(_image, {"tagRule": null})) == {"no entry of tags in the configuration covers this image"}
}

test_class_is_denied_with_its_meaning if {
	image := object.union(_image, {"tag": "ubuntu", "tagClass": "distro", "tagRule": object.union(_rule, {"class": false})})
	tag.deny == {{
		"image": "containers[dev]",
		"message": "{tag} {meaning}; allowed here: {allow}",
		"args": {"tag": `"ubuntu"`, "meaning": "names a distribution and moves", "allow": ["exact", "dated"]},
	}} with input.images as [image]
}

test_every_class_has_a_meaning if {
	classes := ["digest", "exact", "dated", "sha", "minor", "major", "distro", "branch", "rolling", "untagged", "named"]
	every class in classes {
		image := object.union(_image, {"tagClass": class, "tagRule": object.union(_rule, {"class": false})})
		count(tag.deny) == 1 with input.images as [image]
	}
}

test_untagged_image_is_denied_without_a_name if {
	image := object.remove(
		object.union(_image, {
			"tagClass": "untagged",
			"tagRule": object.union(_rule, {"class": false}),
		}),
		["tag"],
	)
	some finding in tag.deny with input.images as [image]
	finding.args.tag == "the tag"
}

test_pattern_is_denied if {
	image := object.union(_image, {"tagRule": object.union(_rule, {"match": false, "pattern": "v[0-9]+"})})
	_messages(image) == {"{tag} does not match the pattern {pattern}"}
}

test_decorative_tag_is_denied if {
	image := object.union(_image, {"digest": "sha256:aa", "tagDigest": "sha256:bb"})
	_messages(image) == {"{tag} names {now} in the registry, not {digest}"}
}

test_tag_that_names_the_digest_passes if {
	image := object.union(_image, {"digest": "sha256:aa", "tagDigest": "sha256:aa"})
	_messages(image) == set()
}

test_decorative_tag_passes_where_digests_do if {
	image := object.union(_image, {
		"digest": "sha256:aa", "tagDigest": "sha256:bb",
		"tagRule": object.union(_rule, {"digest": true}),
	})
	_messages(image) == set()
}
