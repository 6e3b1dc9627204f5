package webhook

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// A Pattern matches names by whole path segments: "*" is one segment, "**" any number of them (at the end: one or
// more), anything else is literal. A pattern never matches a part of a segment, so "registry.corp/golden/**" does not
// cover registry.corp/golden-evil, nor registry.corp.evil.example.
type Pattern struct {
	segments []string
}

// ParsePattern reads a pattern for repositories ("golden/**"), or with a registry in front for images
// ("registry.corp.example:5000/golden/*").
func ParsePattern(s string) (Pattern, error) {
	segments := strings.Split(s, "/")
	for i, segment := range segments {
		switch {
		case segment == "":
			return Pattern{}, fmt.Errorf("pattern %s has an empty segment", Quote(s))
		case segment == "*" || segment == "**":
			if segment == "**" && i > 0 && segments[i-1] == "**" {
				return Pattern{}, fmt.Errorf("pattern %s repeats **", Quote(s))
			}
		case strings.Contains(segment, "*"):
			return Pattern{}, fmt.Errorf("pattern %s has * inside the segment %s; * and ** stand for whole segments, as in %s",
				Quote(s), Quote(segment), Quote(strings.ReplaceAll(segment, "*", "")+"/**"))
		case !validSegment(segment) && !(i == 0 && len(segments) > 1 && checkHost(segment) == nil):
			return Pattern{}, fmt.Errorf("pattern %s has the segment %s, which no image name can have", Quote(s), Quote(segment))
		}
	}
	return Pattern{segments: segments}, nil
}

// ParseImagePattern reads a pattern whose first segment is a registry: a host, or * for any.
func ParseImagePattern(s string) (Pattern, error) {
	p, err := ParsePattern(s)
	if err != nil {
		return p, err
	}
	first := p.segments[0]
	if len(p.segments) < 2 || first != "*" && first != "**" && first != "localhost" && !strings.ContainsAny(first, ".:") {
		return p, fmt.Errorf("pattern %s must begin with a registry and go on with a repository, as in %s",
			Quote(s), Quote("registry.corp.example:5000/golden/**"))
	}
	return p, nil
}

// Match says whether the pattern covers a name such as "golden/base" or "registry.corp.example:5000/golden/base".
func (p Pattern) Match(name string) bool {
	return matchSegments(p.segments, name)
}

// String gives the pattern as it was written.
func (p Pattern) String() string { return strings.Join(p.segments, "/") }

// Literal says whether the pattern is one name, without wildcards.
func (p Pattern) Literal() bool {
	return !slices.Contains(p.segments, "*") && !slices.Contains(p.segments, "**")
}

func matchSegments(pattern []string, name string) bool {
	for i, segment := range pattern {
		if segment == "**" {
			return matchAny(pattern[i+1:], name)
		}
		first, rest, more := strings.Cut(name, "/")
		if segment != "*" && segment != first {
			return false
		}
		if !more {
			return i == len(pattern)-1
		}
		name = rest
	}
	return false
}

// matchAny matches the rest of a pattern behind "**": at the end it takes whatever there is, but at least one segment.
func matchAny(pattern []string, name string) bool {
	if len(pattern) == 0 {
		return name != ""
	}
	for {
		if matchSegments(pattern, name) {
			return true
		}
		_, rest, more := strings.Cut(name, "/")
		if !more {
			return false
		}
		name = rest
	}
}

// MatchName matches a name of a namespace or the like against one in which * stands for any run of characters.
func MatchName(glob, name string) bool {
	first, rest, more := strings.Cut(glob, "*")
	if !more {
		return glob == name
	}
	if !strings.HasPrefix(name, first) {
		return false
	}
	name = name[len(first):]
	for {
		middle, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(name, rest)
		}
		i := strings.Index(name, middle)
		if i < 0 {
			return false
		}
		name, rest = name[i+len(middle):], after
	}
}

// CompileWhole compiles a regular expression that has to match all of a text of one line. Anchors for several lines are
// refused: whoever writes them expects something else.
func CompileWhole(pattern string) (*regexp.Regexp, error) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("the regular expression does not compile: %w", err)
	}
	if hasLines(parsed) {
		return nil, errors.New("flags for several lines are not allowed; the pattern matches all of one line")
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

// hasLines says whether (?m) or (?s) changes what a part of an expression matches.
func hasLines(part *syntax.Regexp) bool {
	switch part.Op {
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpAnyChar:
		return true
	}
	return slices.ContainsFunc(part.Sub, hasLines)
}
