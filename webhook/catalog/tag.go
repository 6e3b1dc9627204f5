package catalog

import (
	"strconv"
	"strings"
)

// Classes of tags, each described in the package comment.
const (
	Digest   = "digest"
	Exact    = "exact"
	Dated    = "dated"
	SHA      = "sha"
	Minor    = "minor"
	Major    = "major"
	Distro   = "distro"
	Branch   = "branch"
	Rolling  = "rolling"
	Untagged = "untagged"
	Named    = "named"
)

// Classes lists all tag classes, the least moving first.
func Classes() []string {
	return []string{Digest, Exact, Dated, SHA, Minor, Major, Distro, Branch, Rolling, Untagged, Named}
}

// A Tag is a tag as it was understood.
type Tag struct {
	Class   string
	Version []int // major, minor, patch, as far as the tag begins with them
}

// ClassifyTag reads a tag; hasDigest says whether the reference has a digest besides.
func ClassifyTag(tag string, hasDigest bool) Tag {
	switch {
	case tag == "" && hasDigest:
		return Tag{Class: Digest}
	case tag == "":
		return Tag{Class: Untagged}
	}
	lower := strings.ToLower(tag)
	parts := strings.FieldsFunc(lower, func(r rune) bool { return r == '-' || r == '_' })
	if len(parts) == 0 || isSignatureTag(lower) {
		return Tag{Class: Named}
	}
	if version := versionOf(parts[0]); version != nil && !isDate(parts[0]) {
		return classifyVersion(version, parts)
	}
	return classifyWord(parts)
}

// classifyVersion reads a tag that begins with a version. Three numbers are exact whatever follows; fewer are when a
// build stamp follows, and give way to a commit or a date.
func classifyVersion(version []int, parts []string) Tag {
	tag := Tag{Version: version[:min(len(version), 3)]}
	rest := parts[1:]
	switch {
	case len(version) >= 3:
		tag.Class = Exact
	case len(rest) > 0 && isYearMonth(parts[0], rest[0]):
		tag.Class, tag.Version = Dated, nil
	case some(rest, isCommit):
		tag.Class = SHA
	case some(rest, isDate):
		tag.Class = Dated
	case some(rest, isBuildStamp), len(rest) == 0 && isBuildStamp(parts[0]):
		tag.Class = Exact
	case len(version) == 2:
		tag.Class = Minor
	case version[0] > 9999: // no major version is that large: a number of another kind
		tag.Class, tag.Version = Named, nil
	default:
		tag.Class = Major
	}
	return tag
}

// classifyWord reads a tag that begins with a word, a date or a commit.
func classifyWord(parts []string) Tag {
	first := parts[0]
	switch {
	case some(parts, isCommit):
		return Tag{Class: SHA}
	case some(parts, isDate), anyYearMonth(parts):
		return Tag{Class: Dated}
	case isDistro(first):
		return Tag{Class: Distro}
	}
	// A word and then a full version: rm-2023.2.5, release-1.2.3.
	for _, part := range parts[1:] {
		if version := versionOf(part); len(version) >= 3 {
			return Tag{Class: Exact, Version: version[:3]}
		}
	}
	switch {
	case isBranch(first, len(parts) > 1):
		return Tag{Class: Branch}
	case isRolling(first):
		return Tag{Class: Rolling}
	}
	return Tag{Class: Named}
}

// isSignatureTag recognises the tags under which signatures and referrers hang (cosign's sha256-<hex>.sig, and the
// fallback tag sha256-<hex> of the OCI distribution specification): no image is meant.
func isSignatureTag(tag string) bool {
	return strings.HasPrefix(tag, "sha256-") || strings.HasPrefix(tag, "sha512-")
}

// versionOf reads "v1", "1.3", "4.133.0", "2.1.5.1": numbers with dots, after an optional v. nil when it is none.
func versionOf(part string) []int {
	digits := strings.TrimPrefix(part, "v")
	if digits == "" {
		return nil
	}
	version := make([]int, 0, 4)
	for number := range strings.SplitSeq(digits, ".") {
		n, err := strconv.Atoi(number)
		if err != nil || number[0] == '+' || number[0] == '-' {
			// "1.2.3rc1" and "3.0.0.beta1": numbers, and then a qualifier at the third place or later.
			if len(version) >= 2 && number != "" && isDigit(number[0]) {
				return append(version, leadingNumber(number))
			}
			if len(version) >= 3 && number != "" {
				return version
			}
			return nil
		}
		version = append(version, n)
	}
	return version
}

func leadingNumber(s string) int {
	end := 0
	for end < len(s) && isDigit(s[end]) {
		end++
	}
	n, _ := strconv.Atoi(s[:end]) // too large a number is 0, which is as good as any
	return n
}

// isDate recognises 20260319, also as v20260319, 20260319.1 and 20260319T1200.
func isDate(part string) bool {
	part = strings.TrimPrefix(part, "v")
	if len(part) < 8 || !allDigits(part[:8]) || len(part) > 8 && isDigit(part[8]) && len(part) != 12 && len(part) != 14 {
		return false
	}
	return isYear(part[:4]) && inRange(part[4:6], 1, 12) && inRange(part[6:8], 1, 31)
}

// isYearMonth recognises the parts of 2023-03; a day may follow.
func isYearMonth(year, month string) bool {
	return len(year) == 4 && isYear(year) && len(month) == 2 && inRange(month, 1, 12)
}

func anyYearMonth(parts []string) bool {
	for i := 1; i < len(parts); i++ {
		if isYearMonth(parts[i-1], parts[i]) {
			return true
		}
	}
	return false
}

func isYear(s string) bool { return inRange(s, 1990, 2099) }

func inRange(s string, low, high int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && allDigits(s) && low <= n && n <= high
}

// isBuildStamp recognises seconds since 1970 and build numbers of that size.
func isBuildStamp(part string) bool {
	return len(part) >= 9 && len(part) <= 14 && allDigits(part) && !isDate(part)
}

// isCommit recognises 7 to 64 hexadecimal digits with letters and digits among them, also behind the g of
// "git describe". A whole SHA-1 or SHA-256 may be of any digits.
func isCommit(part string) bool {
	if len(part) == 41 || len(part) >= 8 && len(part) <= 13 && part[0] == 'g' {
		part = strings.TrimPrefix(part, "g")
	}
	if len(part) < 7 || len(part) > 64 {
		return false
	}
	digits := 0
	for i := range len(part) {
		switch c := part[i]; {
		case isDigit(c):
			digits++
		case c < 'a' || c > 'f':
			return false
		}
	}
	if len(part) == 40 || len(part) == 64 {
		return true
	}
	return digits > 0 && digits < len(part)
}

func some(parts []string, is func(string) bool) bool {
	for _, part := range parts {
		if is(part) {
			return true
		}
	}
	return false
}

func allDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
