package webhook

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Quote puts text that came from outside between double quotes, with everything escaped that could change how the
// rest of a message looks: control characters, line separators, bidirectional marks, non-ASCII look-alikes.
func Quote(s string) string { return strconv.QuoteToASCII(s) }

// plain escapes what may not stand in a message as it is, but adds no quotes: newlines, control characters, invalid
// UTF-8, invisible and bidirectional characters. Text without any of these is returned unchanged.
func plain(s string) string {
	clean := true
	for _, r := range s {
		if !isPlain(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[0])|0x100, 16)[1:])
		case isPlain(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[size:]
	}
	return b.String()
}

// isPlain: unicode.IsPrint leaves out control (Cc), format (Cf, among them the bidirectional marks) and separator
// characters other than the ASCII space.
func isPlain(r rune) bool { return r != utf8.RuneError && unicode.IsPrint(r) }

// cut shortens s to at most max bytes at a rune boundary and marks the cut with an ellipsis.
func cut(s string, max int) string {
	const ellipsis = "…"
	if len(s) <= max {
		return s
	}
	end := max - len(ellipsis)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}
