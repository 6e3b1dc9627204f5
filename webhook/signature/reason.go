package signature

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// A reason is why something attached does not count, in words for a developer. It begins with "right key" or "right
// identity" when it is by a signer that was asked for, and with "1 signature" when that is not certain.
type reason string

const (
	otherDigest  reason = rightKey + ", other digest"
	noDigest     reason = rightKey + ", no digest in the signature"
	noRepository reason = rightKey + ", no repository in the signature"
	otherType    reason = rightKey + ", but not a signature of an image"
	unreadable   reason = rightKey + ", unreadable payload"

	otherCertificate reason = rightKey + ", but a certificate of another"
	otherAuthority   reason = one + " by an authority that is not trusted"

	unknownKey reason = one + " by an unknown key"

	noLog              reason = one + " without a transparency log entry"
	invalidLog         reason = one + " whose transparency log entry does not hold"
	noTimestamp        reason = one + " without a timestamp"
	invalidTimestamp   reason = one + " whose timestamp does not hold"
	noTime             reason = one + " without proof of its time"
	expiredCertificate reason = one + " from outside the time of its certificate"
	expiredChain       reason = one + " from when its certificate authority had expired or not begun"
	noSCT              reason = one + " whose certificate is in no trusted certificate log"
	brokenProof        reason = one + " with a broken certificate, log entry or timestamp"
	invalidSignature   reason = one + " that does not verify"

	malformed reason = one + " in no valid form"
	otherKind reason = one + " of another kind than cosign's"
	missing   reason = one + " without its payload"
	tampered  reason = one + " with a broken payload"
	tooLarge  reason = one + " too large to be read"
	unread    reason = one + " not readable at present"

	one      = "1 signature"
	rightKey = "right key"
)

// by is the reason for a signature by a signer that was not asked for.
func by(signer string) reason { return reason(one + " by " + signer) }

// otherRepository is the reason for a signature of the same image in another repository.
func otherRepository(name string) reason {
	return rightKey + ", other repository " + reason(shortened(name))
}

// otherIdentity and otherIssuer are the reasons for a certificate of somebody else. Both have to fit into a line of a message,
// so what they have in common is left out when they are long, and then their ends.
func otherIdentity(found, expected string) reason { return otherThan("identity", found, expected) }

func otherIssuer(found, expected string) reason {
	return otherThan("identity by issuer", found, expected)
}

func otherThan(what, found, expected string) reason {
	const longestFound, longestExpected = 40, 36
	if len(found) > longestFound || len(expected) > longestExpected {
		if cut := common(found, expected); cut > 0 {
			found, expected = "..."+found[cut:], "..."+expected[cut:]
		}
	}
	return reason(fmt.Sprintf("%s %s, expected %s", what, webhook.Quote(begin(found, longestFound)), begin(expected, longestExpected)))
}

// common is the length of the beginning that two names share, less what shows where in them they begin to differ.
func common(a, b string) int {
	const context = 16
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return strings.LastIndexAny(a[:max(0, n-context)], "/@:") + 1
}

func begin(text string, longest int) string {
	if len(text) > longest {
		return text[:longest-3] + "..."
	}
	return text
}

// outOfTime is the reason for a key that does not count any longer, or not yet.
func outOfTime(until, at time.Time) reason {
	if !until.IsZero() && at.After(until) {
		return rightKey + ", signed or looked at after its time ended on " + reason(until.UTC().Format(time.DateOnly))
	}
	return rightKey + ", signed or looked at before its time begins"
}

// ofIdentity words a reason that was found with a key for an identity.
func (r reason) ofIdentity() reason {
	if rest, found := strings.CutPrefix(string(r), rightKey); found {
		return "right identity" + reason(rest)
	}
	return r
}

// shortened quotes what somebody else wrote, and leaves out the middle of what is too long for a message.
func shortened(text string) string {
	const longest = 72
	if len(text) > longest {
		text = text[:longest/2] + "..." + text[len(text)-longest/2:]
	}
	return webhook.Quote(text)
}

// weight orders reasons: what comes closest to a signature that counts is told first.
func (r reason) weight() int {
	switch {
	case strings.HasPrefix(string(r), "right "):
		return 0
	case strings.HasPrefix(string(r), "identity "):
		return 1
	case r == unknownKey:
		return 4
	case strings.HasPrefix(string(r), one+" by "), r == brokenProof, r == invalidSignature:
		return 3
	case strings.HasPrefix(string(r), one+" from "), strings.HasPrefix(string(r), one+" whose "),
		strings.HasPrefix(string(r), one+" without "):
		return 2
	}
	return 5
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

// tell words reasons with their numbers, the closest first. What is a signature may be called something else.
func tell(counts map[reason]int, noun string) []string {
	all := make([]reason, 0, len(counts))
	for r := range counts {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b reason) int {
		return cmp.Or(cmp.Compare(a.weight(), b.weight()), cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	var told []string
	for _, r := range all[:min(len(all), maxReasons)] {
		text := r.times(counts[r])
		told = append(told, strings.Replace(text, "signature", noun, 1))
	}
	return told
}
