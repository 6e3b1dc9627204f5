# METADATA
# title: Containers run as a user other than root
# description: |
#   The effective user is that of the container, else of the pod, else of the image's config. uid 0, root and no user at
#   all are refused, and so is a user name: the image itself decides which uid a name stands for, so it cannot be
#   verified. So is a number above 2147483647, of which some runtimes keep a part, or which they take for a name. Of an
#   image for several platforms the worst counts. Groups are not judged. A pod with hostUsers: false is judged like any
#   other.
# custom:
#   id: user
#   fix: Set securityContext.runAsUser to a number other than 0, or use an image whose USER is one.
#   related: [golden]
#   early: true
package hallmark.rules.user

_from := {
	"builder": "the builder starts it so",
	"container": "securityContext of the container",
	"image": "USER of the image",
	"pod": "securityContext of the pod",
}

deny contains finding if {
	some image in input.images
	image.user.root == true
	finding := {
		"image": image.where,
		"message": "runs as root ({from}{platform})",
		"args": {"from": _from[image.user.source], "platform": _platform(image)},
		"fix": _fix(image),
	}
}

deny contains finding if {
	some image in input.images
	image.user.root == false
	image.user.verifiable == false
	finding := {
		"image": image.where,
		"message": "runs as {user}, {kind} that could stand for root ({from}{platform})",
		"args": {"user": image.user.effective, "kind": _kind(image), "from": _from[image.user.source], "platform": _platform(image)},
		"fix": _fix(image),
	}
}

_kind(image) := "a number out of range" if regex.match(`^-?[0-9]+$`, image.user.effective)

_kind(image) := "a name" if not regex.match(`^-?[0-9]+$`, image.user.effective)

_platform(image) := sprintf(" for %s", [image.user.platform]) if image.user.platform

_platform(image) := "" if not image.user.platform

# An image that a builder starts is inside the container, where securityContext does not reach.
_inner(image) if contains(image.where, ".env[")

_inner(image) if contains(image.where, ".arg[")

_fix(image) := "set securityContext.windowsOptions.runAsUserName: ContainerUser" if {
	image.user.windows
	not _inner(image)
}

_fix(image) := _uid(image) if {
	not image.user.windows
	not _inner(image)
}

_fix(image) := _inner_fix(image) if _inner(image)

_uid(image) := sprintf("set securityContext.runAsUser: %d", [image.golden.uid]) if image.golden.uid > 0

_uid(image) := "set securityContext.runAsUser to the image's numeric user, not 0" if not image.golden.uid

_uid(image) := _exempt if image.golden.uid == 0

_inner_fix(image) := sprintf("set CODER_INNER_USERNAME: \"%d\"", [image.golden.uid]) if {
	image.golden.uid > 0
	_envbox(image)
}

_inner_fix(image) := "set CODER_INNER_USERNAME to the image's numeric user, not 0" if {
	not image.golden.uid
	_envbox(image)
}

_inner_fix(image) := "use an image whose USER is a number other than 0" if {
	not image.golden.uid == 0
	not _envbox(image)
}

_inner_fix(image) := _exempt if image.golden.uid == 0

_envbox(image) if regex.match(`\.(env\[CODER_INNER_IMAGE|arg\[--(inner-)?image)\]`, image.where)

_exempt := "ask for an exemption: the catalogue says that this image runs as root"
