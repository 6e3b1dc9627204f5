package hallmark.rules.labels_test

import data.hallmark.rules.labels

_denied(image) if count(labels.deny) == 1 with input.images as [object.union({"where": "containers[dev]"}, image)]

_source(url) := {"image": {"labels": {"org.opencontainers.image.source": url}}}

test_our_source_passes if not _denied(_source("https://github.com/corp/images"))

test_other_source_is_denied if _denied(_source("https://github.com/corporation/images"))

test_no_label_is_denied if {
	_denied({"image": {"labels": {}}})
	_denied({"image": {}})
}
