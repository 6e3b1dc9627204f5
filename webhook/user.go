package webhook

import (
	"math"
	"strconv"
	"strings"
)

// A User is the user that an image's process will run as, where that can be told.
type User struct {
	Known      bool   // false until the image's config was read, where the pod does not say it
	Applies    bool   // false for an image that no process is started from (an image volume)
	Effective  string // "1000", "coder", "ContainerUser"; "" means root
	Source     string // container, pod, image, builder, catalogue
	Platform   string // the platform whose image says so, when there are several
	Root       bool   // it is root, or an administrator on Windows
	Windows    bool   // it is an account on Windows
	Verifiable bool   // it is a number in range, so nothing in the image can turn it into root
}

// userFromPod tells the user as far as the pod does: container before pod, as the kubelet does
// (k8s.io/kubernetes/pkg/securitycontext, DetermineEffectiveSecurityContext).
func userFromPod(image *Image) User {
	s := &image.source
	switch {
	case image.Role == RoleVolume:
		return User{Known: true}
	case s.inner && s.innerUser != "":
		return vouched(userNamed(s.innerUser, "builder"), image)
	case s.inner:
		return User{Applies: true}
	}
	// Windows options are ignored on a Linux node, so unless the pod is for Windows they can only make things worse.
	if name := firstOf(s.security.windowsUser, s.pod.windowsUser); name != "" {
		user := windowsUser(name, sourceOf(s.security.windowsUser != ""))
		if s.windows || user.Root {
			return user
		}
	}
	if s.windows {
		return User{Applies: true}
	}
	for _, from := range []struct {
		uid    *int64
		source string
	}{{s.security.runAsUser, "container"}, {s.pod.runAsUser, "pod"}} {
		if from.uid != nil {
			return User{
				Known: true, Applies: true, Effective: strconv.FormatInt(*from.uid, 10), Source: from.source,
				Root: isRoot(*from.uid), Verifiable: inRange(*from.uid),
			}
		}
	}
	return User{Applies: true}
}

// userFromImage completes a user that the pod leaves to the image: the worst of all platforms, since the node is not
// chosen yet.
func userFromImage(image *Image) User {
	if image.User.Known || image.Content == nil {
		return image.User
	}
	var worst User
	for i, platform := range image.Content.Platforms {
		var user User
		if image.source.windows || platform.OS == "windows" {
			user = windowsUser(platform.User, "image")
		} else {
			user = userNamed(platform.User, "image")
		}
		user = vouched(user, image)
		if len(image.Content.Platforms) > 1 {
			user.Platform = platform.Name()
		}
		if i == 0 || user.badness() > worst.badness() {
			worst = user
		}
	}
	worst.Known = len(image.Content.Platforms) > 0
	worst.Applies = true
	return worst
}

// vouched accepts a user name of an image that a builder starts, when the catalogue gives a uid for the image: neither
// the kubelet nor a patch can set a number there.
func vouched(user User, image *Image) User {
	golden := image.Entry.Golden
	if image.source.inner && isPlainName(user.Effective) && !user.Root && !user.Verifiable && golden != nil && golden.UID != nil && *golden.UID != 0 {
		user.Verifiable, user.Source = true, "catalogue"
	}
	return user
}

// isPlainName says that a user name can be one: a variable of Kubernetes stands for any, and so does what cannot be seen.
func isPlainName(name string) bool {
	return strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_.-", r)
	}) < 0
}

func (u User) badness() int {
	switch {
	case u.Root:
		return 2
	case !u.Verifiable:
		return 1
	}
	return 0
}

// isRoot says whether a runtime may make 0 of a uid: containerd before 1.6.38, 1.7.27 and 2.0.4 kept the lower 32 bits of
// USER (CVE-2024-40635).
func isRoot(uid int64) bool { return uint32(uid) == 0 } //nolint:gosec // as the runtime would

// inRange says whether a uid is one that Kubernetes and all runtimes take for itself
// (k8s.io/apimachinery/pkg/util/validation, IsValidUserID). containerd before 2.0.9, 2.2.4 and 2.3.1 looked others up in the
// image as names (CVE-2026-46680).
func inRange(uid int64) bool { return uid >= 0 && uid <= math.MaxInt32 }

// userNamed reads USER of an image config: "user", "user:group", "uid" or "uid:gid" (OCI image specification, config).
// No user is root.
func userNamed(config, source string) User {
	name, _, _ := strings.Cut(config, ":")
	u := User{Known: true, Applies: true, Effective: name, Source: source}
	if uid, err := strconv.ParseInt(name, 10, 64); err == nil {
		u.Effective, u.Root, u.Verifiable = strconv.FormatInt(uid, 10), isRoot(uid), inRange(uid)
		return u
	}
	if name == "" || name == "root" {
		u.Effective, u.Root = "root", true
	}
	return u
}

// windowsUser: on Windows there is no uid. ContainerUser is the account without rights that every base image has;
// others are as good as the image says, so they are not verifiable (kubelet, security_context_windows.go).
func windowsUser(name, source string) User {
	u := User{Known: true, Applies: true, Effective: name, Source: source, Windows: true}
	account := name
	if i := strings.LastIndexByte(name, '\\'); i >= 0 {
		account = name[i+1:]
	}
	switch strings.ToLower(account) {
	case "", "containeradministrator", "administrator", "administrators", "system", "localsystem":
		u.Root = true
	case "containeruser":
		u.Verifiable = true
	}
	return u
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func sourceOf(container bool) string {
	if container {
		return "container"
	}
	return "pod"
}
