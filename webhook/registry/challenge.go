package registry

import (
	"net/http"
	"strings"
)

// A challenge is what a registry asks for with a 401.
type challenge struct {
	bearer  bool // else Basic
	realm   string
	service string
	scope   string
}

// parseChallenge finds the first challenge in the WWW-Authenticate headers that can be met (RFC 9110, 11.6.1). A
// header may hold several, and servers behind proxies send several headers.
func parseChallenge(header http.Header) (challenge, bool) {
	for _, value := range header.Values("WWW-Authenticate") {
		for _, found := range splitChallenges(value) {
			switch strings.ToLower(found.scheme) {
			case "basic":
				return challenge{}, true
			case "bearer":
				p := found.parameters
				return challenge{bearer: true, realm: p["realm"], service: p["service"], scope: p["scope"]}, true
			}
		}
	}
	return challenge{}, false
}

type rawChallenge struct {
	scheme     string
	parameters map[string]string // names in lower case; the first of a name counts
}

// splitChallenges reads `Bearer realm="…",service="…", Basic realm="…"`. What it cannot read it skips.
func splitChallenges(s string) []rawChallenge {
	var all []rawChallenge
	for s != "" {
		s = strings.TrimLeft(s, " \t,")
		word, rest := cutToken(s)
		if word == "" {
			_, s, _ = strings.Cut(s, ",")
			continue
		}
		value, after, isParameter := cutValue(rest)
		switch {
		case !isParameter:
			all = append(all, rawChallenge{word, map[string]string{}})
			s = rest
		case len(all) == 0:
			s = after
		default:
			name, parameters := strings.ToLower(word), all[len(all)-1].parameters
			if _, twice := parameters[name]; !twice {
				parameters[name] = value
			}
			s = after
		}
	}
	return all
}

// cutToken takes a token (RFC 9110, 5.6.2) off the front.
func cutToken(s string) (token, rest string) {
	end := strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`",=`, r) })
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:]
}

// cutValue takes `= value` off the front, where the value is a token or a quoted string.
func cutValue(s string) (value, rest string, found bool) {
	s, found = strings.CutPrefix(strings.TrimLeft(s, " \t"), "=")
	if !found {
		return "", s, false
	}
	s = strings.TrimLeft(s, " \t")
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		if value == "" { // a stray "=": take it off, so that there is less each time
			return "", strings.TrimLeft(rest, "="), true
		}
		return value, rest, true
	}
	value, rest, _ = cutQuoted(s) // when the quotes are not closed, there is nothing more
	return value, rest, true
}

// cutQuoted takes a quoted string (RFC 9110, 5.6.4) off the front, where its first quote is.
func cutQuoted(s string) (value, rest string, closed bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}
