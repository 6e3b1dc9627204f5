package hallmark.rules.user_test

import data.hallmark.rules.user

_image(who) := {"where": "containers[dev]", "user": who}

_root := {"effective": "root", "source": "image", "root": true, "verifiable": false}

_named := {"effective": "coder", "source": "image", "root": false, "verifiable": false}

test_numeric_user_passes if {
	who := {"effective": "1000", "source": "pod", "root": false, "verifiable": true}
	user.deny == set() with input.images as [_image(who)]
}

test_image_without_process_passes if {
	user.deny == set() with input.images as [{"where": "volumes[data]"}]
}

test_root_is_denied if {
	user.deny == {{
		"image": "containers[dev]",
		"message": "runs as root ({from}{platform})",
		"args": {"from": "USER of the image", "platform": ""},
		"fix": "set securityContext.runAsUser to the image's numeric user, not 0",
	}} with input.images as [_image(_root)]
}

test_named_user_is_denied_with_the_platform if {
	user.deny == {{
		"image": "containers[dev]",
		"message": "runs as {user}, {kind} that could stand for root ({from}{platform})",
		"args": {"user": "coder", "kind": "a name", "from": "USER of the image", "platform": " for linux/arm64"},
		"fix": "set securityContext.runAsUser to the image's numeric user, not 0",
	}} with input.images as [_image(object.union(_named, {"platform": "linux/arm64"}))]
}

test_number_out_of_range_is_denied if {
	who := {"effective": "4294968296", "source": "image", "root": false, "verifiable": false}
	some finding in user.deny with input.images as [_image(who)]
	finding.args.kind == "a number out of range"
}

test_fix_names_the_uid_of_the_catalogue if {
	some finding in user.deny with input.images as [object.union(_image(_named), {"golden": {"uid": 1000}})]
	finding.fix == "set securityContext.runAsUser: 1000"
}

test_fix_for_an_image_that_is_root_by_design if {
	some finding in user.deny with input.images as [object.union(_image(_root), {"golden": {"uid": 0}})]
	finding.fix == "ask for an exemption: the catalogue says that this image runs as root"
}

test_fix_on_windows_is_an_account if {
	who := {"effective": "ContainerAdministrator", "source": "container", "root": true, "verifiable": false, "windows": true}
	some finding in user.deny with input.images as [object.union(_image(who), {"golden": {"uid": 1000}})]
	finding.fix == "set securityContext.windowsOptions.runAsUserName: ContainerUser"
}

_inside(where, more) := object.union({"where": where, "user": object.union(_root, {"source": "builder"})}, more)

test_fix_of_an_image_inside_the_container[where] if {
	some where, wants in {
		"containers[dev].env[CODER_INNER_IMAGE]": {
			"set CODER_INNER_USERNAME to the image's numeric user, not 0": {},
			"set CODER_INNER_USERNAME: \"1000\"": {"golden": {"uid": 1000}},
			"ask for an exemption: the catalogue says that this image runs as root": {"golden": {"uid": 0}},
		},
		"containers[dev].arg[--image]": {"set CODER_INNER_USERNAME: \"1000\"": {"golden": {"uid": 1000}}},
		"containers[dev].env[FALLBACK_IMAGE]": {
			"use an image whose USER is a number other than 0": {},
			"ask for an exemption: the catalogue says that this image runs as root": {"golden": {"uid": 0}},
		},
		"containers[dev].arg[--fallback-image]": {"use an image whose USER is a number other than 0": {"golden": {"uid": 1000}}},
	}
	every fix, more in wants {
		{finding.fix | some finding in user.deny} == {fix} with input.images as [_inside(where, more)]
	}
}
