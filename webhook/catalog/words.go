package catalog

import "strings"

// isRolling knows the words for "whatever is newest".
func isRolling(word string) bool {
	switch word {
	case "latest", "nightly", "weekly", "daily", "snapshot", "next", "edge", "canary", "insiders", "preview", "stable",
		"unstable", "testing", "beta", "alpha", "rc", "lts", "current", "rolling", "auto", "newest", "bleeding",
		"experimental", "prod", "production", "staging", "mainline", "devel", "tip", "release":
		return true
	}
	return false
}

// isBranch knows branches, and the words that CI puts in front of what it builds from them.
func isBranch(word string, more bool) bool {
	switch word {
	case "main", "master", "develop", "development", "dev", "trunk", "head", "default", "integration":
		return true
	case "pr", "mr", "feature", "feat", "fix", "bugfix", "hotfix", "branch", "ci", "release":
		return more
	}
	return false
}

// isDistro knows distributions and their releases, with or without a version: ubuntu, ubuntu24.04, ubi9, noble.
func isDistro(word string) bool {
	name := strings.TrimRight(word, "0123456789.")
	switch name {
	case "ubuntu", "debian", "alpine", "fedora", "centos", "rocky", "rockylinux", "alma", "almalinux", "opensuse",
		"suse", "sles", "sle", "leap", "tumbleweed", "bci", "rhel", "ubi", "amazonlinux", "amzn", "al", "oraclelinux",
		"ol", "el", "photon", "mariner", "azurelinux", "archlinux", "arch", "gentoo", "nixos", "wolfi", "kali", "void",
		"busybox", "distroless", "windowsservercore", "nanoserver", "servercore", "ltsc", "stream":
		return true
	}
	switch word {
	case "trusty", "xenial", "bionic", "focal", "jammy", "lunar", "mantic", "noble", "oracular", "plucky", "questing",
		"resolute": // Ubuntu
		return true
	case "wheezy", "jessie", "stretch", "buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid": // Debian
		return true
	}
	return false
}
