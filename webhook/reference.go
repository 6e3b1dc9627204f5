package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// DockerHub is the canonical name of Docker Hub. It answers under several host names
// (index.docker.io, registry-1.docker.io, registry.hub.docker.com); a Reference knows only this one.
const DockerHub = "docker.io"

// Limits of a reference. The first is the length to which kubelet and containerd agree (distribution/reference,
// RepositoryNameTotalLengthMax), the second the OCI distribution specification's limit for a tag.
const (
	maxNameLength = 255
	maxTagLength  = 128
)

// digestLength is the length of "sha256:" and 64 hexadecimal digits, the only digests that Hallmark accepts: a
// signature tag made of a sha512 digest would be longer than a tag may be, so such an image could not be verified.
const digestLength = len("sha256:") + 64

// A Reference is an image reference in canonical form. It is made by ParseReference alone, so every part of Hallmark
// (rules, registry client, patch) speaks of the same image as the kubelet will.
type Reference struct {
	Registry   string // host, with its port if one was written: "registry.corp.example:5000", "docker.io"
	Repository string // path below the host: "golden/base", "library/ubuntu"
	Tag        string // "" when none was written; never an implied "latest"
	Digest     string // "sha256:<64 lower-case hexadecimal digits>", or ""
}

// ErrReference is wrapped by every error of ParseReference.
var ErrReference = errors.New("invalid image reference")

// ParseReference reads an image reference by the rules that the kubelet uses (distribution/reference,
// ParseNormalizedNamed) and refuses in addition what other parsers would read differently: upper-case hosts, ports
// that are not written canonically, IPv6 literals and digests other than sha256. Two parsers that disagree are a
// bypass. What it accepts, distribution/reference accepts with the same parts (FuzzParseReference).
func ParseReference(s string) (Reference, error) {
	name, tag, digest, err := splitReference(s)
	if err != nil {
		return Reference{}, err
	}
	host, repository := splitHost(name)
	if err := checkHost(host); err != nil {
		return Reference{}, err
	}
	if err := checkRepository(repository); err != nil {
		return Reference{}, err
	}
	if len(host)+1+len(repository) > maxNameLength {
		return Reference{}, invalidReference("the name is longer than %d characters", maxNameLength)
	}
	return Reference{Registry: host, Repository: repository, Tag: tag, Digest: digest}, nil
}

// String gives the canonical form, which parses to the same Reference.
func (r Reference) String() string {
	var b strings.Builder
	b.Grow(len(r.Registry) + 1 + len(r.Repository) + 1 + len(r.Tag) + 1 + len(r.Digest))
	b.WriteString(r.Registry)
	b.WriteByte('/')
	b.WriteString(r.Repository)
	if r.Tag != "" {
		b.WriteByte(':')
		b.WriteString(r.Tag)
	}
	if r.Digest != "" {
		b.WriteByte('@')
		b.WriteString(r.Digest)
	}
	return b.String()
}

// Short is String with a digest cut to its first twelve hexadecimal digits, for people.
func (r Reference) Short() string {
	r.Digest = ShortDigest(r.Digest)
	return r.String()
}

// Name is the registry and the repository, without tag and digest.
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

// WithDigest is the reference pinned to a digest; a tag stays, for people to read.
func (r Reference) WithDigest(digest string) Reference {
	r.Digest = digest
	return r
}

// WithTag is the same repository under another tag, without a digest.
func (r Reference) WithTag(tag string) Reference {
	r.Tag, r.Digest = tag, ""
	return r
}

// DigestOf is the digest of content.
func DigestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ShortDigest keeps the first twelve hexadecimal digits of a digest, for people.
func ShortDigest(digest string) string { return digest[:min(len(digest), len("sha256:")+12)] }

// IsZero says that nothing was parsed.
func (r Reference) IsZero() bool { return r.Registry == "" }

func invalidReference(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrReference}, args...)...)
}

// splitReference takes tag and digest off the name and checks both.
func splitReference(s string) (name, tag, digest string, err error) {
	if s == "" {
		return "", "", "", invalidReference("it is empty")
	}
	if isHex(s) && len(s) == 64 {
		return "", "", "", invalidReference("64 hexadecimal digits are an image ID, not a name")
	}
	if scheme, _, found := strings.Cut(s, "://"); found {
		return "", "", "", invalidReference("a reference has no scheme; leave out %s", Quote(scheme+"://"))
	}
	name, digest, digested := strings.Cut(s, "@")
	if digested {
		if err := checkDigest(digest); err != nil {
			return "", "", "", err
		}
	}
	// A colon behind the last slash begins the tag; one before it belongs to the port.
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
		if err := checkTag(tag); err != nil {
			return "", "", "", err
		}
	}
	return name, tag, digest, nil
}

// splitHost takes the host off a name as Docker does: the first segment is a host when it has a dot, a colon or an
// upper-case letter, or is "localhost"; otherwise the name belongs to Docker Hub.
func splitHost(name string) (host, repository string) {
	first, rest, slash := strings.Cut(name, "/")
	switch {
	case !slash:
		return DockerHub, "library/" + name
	case isDockerHub(first):
		if !strings.Contains(rest, "/") {
			rest = "library/" + rest
		}
		return DockerHub, rest
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		return first, rest
	default:
		return DockerHub, name
	}
}

func isDockerHub(host string) bool {
	switch host {
	case DockerHub, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return true
	}
	return false
}

// CheckHost says what is wrong with a registry host as it would stand in a reference: "host" or "host:port", lower
// case, no scheme, no path.
func CheckHost(host string) error { return checkHost(host) }

func checkHost(host string) error {
	name, port, hasPort := strings.Cut(host, ":")
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return err
		}
	}
	if !hasPort {
		return nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
		return invalidReference("the port of host %s is not a number from 1 to 65535", Quote(host))
	}
	return nil
}

func checkLabel(label string) error {
	if label == "" {
		return invalidReference("the host has an empty part")
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return invalidReference("a part of the host begins or ends with a hyphen")
	}
	for i := range len(label) {
		switch c := label[i]; {
		case isLowerAlnum(c) || c == '-':
		case 'A' <= c && c <= 'Z':
			return invalidReference("the host has upper-case letters; write %s", strings.ToLower(label))
		default:
			return invalidReference("the host part %s has a character that is not allowed", Quote(label))
		}
	}
	return nil
}

// checkRepository holds a path to alphanumeric runs separated by one dot, one or two underscores or any number of
// hyphens, in segments separated by single slashes.
func checkRepository(path string) error {
	if path == "" {
		return invalidReference("the repository is missing")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if !validSegment(segment) {
			return invalidReference("the repository part %s is not allowed "+
				"(lower-case letters and digits, separated by one of . _ __ -)", Quote(segment))
		}
	}
	return nil
}

func validSegment(s string) bool {
	if s == "" || !isLowerAlnum(s[0]) || !isLowerAlnum(s[len(s)-1]) {
		return false
	}
	for i := 1; i < len(s)-1; {
		if isLowerAlnum(s[i]) {
			i++
			continue
		}
		start := i
		for s[i] == s[start] {
			i++
		}
		run := i - start
		ok := s[start] == '-' || s[start] == '.' && run == 1 || s[start] == '_' && run <= 2
		if !ok || !isLowerAlnum(s[i]) {
			return false
		}
	}
	return true
}

func checkTag(tag string) error {
	if tag == "" {
		return invalidReference("the tag is empty")
	}
	if len(tag) > maxTagLength {
		return invalidReference("the tag is longer than %d characters", maxTagLength)
	}
	for i := range len(tag) {
		c := tag[i]
		word := isLowerAlnum(c) || 'A' <= c && c <= 'Z' || c == '_'
		if !word && (i == 0 || c != '.' && c != '-') {
			return invalidReference("the tag %s has a character that is not allowed there", Quote(tag))
		}
	}
	return nil
}

func checkDigest(digest string) error {
	algorithm, hex, found := strings.Cut(digest, ":")
	switch {
	case !found:
		return invalidReference("the digest %s has no algorithm", Quote(digest))
	case algorithm != "sha256":
		return invalidReference("the digest algorithm %s is not supported; only sha256 is", Quote(algorithm))
	case len(digest) != digestLength || !isHex(hex):
		return invalidReference("the digest is not sha256: and 64 lower-case hexadecimal digits")
	}
	return nil
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
