package registry

import (
	"errors"
	"net/http"
	"slices"
	"strings"
)

var errLink = errors.New("malformed link")

// nextLink gives the target of the first link to a next page (RFC 8288): `<…>; rel="next"`. A header may hold several
// links, and servers in front of a registry add their own. One that cannot be read is an error and not passed over: it
// could be the one that is looked for.
func nextLink(header http.Header) (target string, found bool, err error) {
	for _, value := range header.Values("Link") {
		for {
			value = strings.TrimLeft(value, " \t,")
			if value == "" {
				break
			}
			end := strings.IndexByte(value, '>')
			if value[0] != '<' || end < 0 {
				return "", false, errLink
			}
			target = value[1:end]
			relation, rest, ok := cutRelation(value[end+1:])
			switch {
			case !ok:
				return "", false, errLink
			case slices.Contains(strings.Fields(strings.ToLower(relation)), "next"):
				return target, true, nil
			}
			value = rest
		}
	}
	return "", false, nil
}

// cutRelation takes the parameters of a link off the front, and gives the first "rel" of them.
func cutRelation(s string) (relation, rest string, ok bool) {
	known := false
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] == ',' {
			return relation, s, true
		}
		if s[0] != ';' {
			return "", "", false
		}
		name, after := cutUntil(strings.TrimLeft(s[1:], " \t"), "=;, \t")
		after = strings.TrimLeft(after, " \t")
		value := ""
		if strings.HasPrefix(after, "=") {
			if value, after, ok = cutParameter(strings.TrimLeft(after[1:], " \t")); !ok {
				return "", "", false
			}
		}
		if !known && strings.EqualFold(name, "rel") {
			relation, known = value, true
		}
		s = after
	}
}

// cutParameter takes a word or a quoted string off the front.
func cutParameter(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutUntil(s, ";, \t")
		return value, rest, true
	}
	return cutQuoted(s)
}

// cutUntil cuts in front of the first of some characters.
func cutUntil(s, characters string) (before, rest string) {
	if i := strings.IndexAny(s, characters); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}
