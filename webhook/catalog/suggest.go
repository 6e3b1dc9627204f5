package catalog

import (
	"path"
	"strings"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Suggest gives an image to use instead of one that is not allowed: the default tag of the golden image that it is, the
// successor of one that is decommissioned, or the golden image with the most alike name. "" when none is known: a
// suggestion is never invented.
func (c *Catalogue) Suggest(image *webhook.Image) string {
	golden := c.golden[image.Ref.Name()]
	if golden == nil {
		golden = c.nearest(image.Ref)
	}
	for range len(c.names) { // a chain of successors ends, even if it is a circle
		if golden == nil || golden.Status == "active" || golden.Successor == "" {
			break
		}
		golden = c.named(golden.Successor)
	}
	if golden == nil || golden.Status == "decommissioned" || golden.DefaultTag == "" {
		return ""
	}
	return golden.Repository + ":" + golden.DefaultTag
}

func (c *Catalogue) named(name string) *Golden {
	for _, golden := range c.names {
		if golden.Name == name {
			return golden
		}
	}
	return nil
}

// nearest finds the golden image whose name or last path segment is most like that of a reference: the same, one within
// the other as a whole word ("enterprise-base" and "base"), or at most a third of its letters apart.
func (c *Catalogue) nearest(ref webhook.Reference) *Golden {
	if ref.IsZero() {
		return nil
	}
	want := path.Base(ref.Repository)
	var best *Golden
	bestScore := -1
	for _, golden := range c.names {
		for _, have := range []string{golden.Name, path.Base(golden.Repository)} {
			if score := distance(want, have); score >= 0 && (best == nil || score < bestScore) {
				best, bestScore = golden, score
			}
		}
	}
	return best
}

// distance is 0 for the same name, 1 for a shared word, more for an edit distance, -1 for nothing in common.
func distance(a, b string) int {
	if a == b {
		return 0
	}
	for _, word := range strings.FieldsFunc(a, isSeparator) {
		if word == b {
			return 1
		}
	}
	for _, word := range strings.FieldsFunc(b, isSeparator) {
		if word == a {
			return 1
		}
	}
	if d := editDistance(a, b); d*3 <= min(len(a), len(b)) {
		return 1 + d
	}
	return -1
}

func isSeparator(r rune) bool { return r == '-' || r == '_' || r == '.' }

// editDistance counts the bytes to insert, delete, replace or swap with their neighbour (optimal string alignment); names
// are ASCII.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := last[j-1]
			if a[i-1] != b[j-1] {
				cost = 1 + min(last[j-1], last[j], row[j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cost = min(cost, 1+before[j-2])
			}
			row[j] = cost
		}
	}
	return row[len(b)]
}
