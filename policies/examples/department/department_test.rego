package hallmark.rules.department_test

import data.hallmark.rules.department

_departments(namespace, path) := found if {
	found := {finding.args.department | some finding in department.deny} with input as {
		"request": {"namespace": namespace},
		"images": [object.union({"where": "containers[dev]"}, path)],
	}
}

_of(name) := {"path": {"company": "corp", "department": name, "software": "notebook"}}

test_own_department_passes if _departments("data-team-a", _of("data")) == set()

test_shared_image_passes if _departments("data-team-a", _of("shared")) == set()

test_other_department_is_denied if _departments("data-team-a", _of("finance")) == {"finance"}

test_department_that_only_begins_alike_is_denied if _departments("data-team-a", _of("dat")) == {"dat"}

test_image_outside_the_scheme_is_denied if _departments("data-team-a", {}) == {"none"}
