package signature

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A reason is why an attachment does not count, in words for a developer. It begins with "right key" when the
// signature is by a signer that was asked for, else with "1 signature".
type reason string

const (
	otherDigest  reason = "right key, other digest"
	noDigest     reason = "right key, no digest in the signature"
	noRepository reason = "right key, no repository in the signature"
	otherType    reason = "right key, but not a signature of an image"
	unreadable   reason = "right key, unreadable payload"

	unknownKey reason = one + " by an unknown key"

	malformed reason = one + " in no valid form"
	otherKind reason = one + " of another kind than cosign's"
	missing   reason = one + " without its payload"
	tampered  reason = one + " with a broken payload"
	tooLarge  reason = one + " too large to be read"
	unread    reason = one + " not readable at present"

	one = "1 signature"
)

// by is the reason for a signature by a signer that was not asked for.
func by(signer string) reason { return reason(one + " by " + signer) }

// weight orders reasons: what comes closest to a signature that counts is told first.
func (r reason) weight() int {
	switch {
	case strings.HasPrefix(string(r), "right key"):
		return 0
	case r == unknownKey:
		return 2
	case strings.HasPrefix(string(r), one+" by "):
		return 1
	}
	return 3
}

// times words a reason that holds for n signatures.
func (r reason) times(n int) string {
	if n == 1 {
		return string(r)
	}
	if rest, found := strings.CutPrefix(string(r), one); found {
		return fmt.Sprintf("%d signatures%s", n, rest)
	}
	return fmt.Sprintf("%s (%d signatures)", r, n)
}

// maxReasons is how many are told.
const maxReasons = 3

// tell words reasons with their numbers, the closest first.
func tell(counts map[reason]int) []string {
	all := make([]reason, 0, len(counts))
	for r := range counts {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b reason) int {
		return cmp.Or(cmp.Compare(a.weight(), b.weight()), cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	var told []string
	for _, r := range all[:min(len(all), maxReasons)] {
		told = append(told, r.times(counts[r]))
	}
	return told
}
