package signature

import "sync"

// A layout is where signatures are kept.
type layout int

const (
	attached layout = iota // under the tag sha256-<hex>.sig
	bundles                // in manifests that refer to the image
)

// habits remembers in which layout each registry had signatures last, so that the other is asked for less often. It
// decides nothing: what is not found in one layout is looked for in the other.
type habits struct {
	mu   sync.Mutex
	last map[string]layout
}

// layouts gives both, in the order in which to look.
func (t *Trust) layouts(registry string) []layout {
	t.habits.mu.Lock()
	defer t.habits.mu.Unlock()
	if t.habits.last[registry] == bundles {
		return []layout{bundles, attached}
	}
	return []layout{attached, bundles}
}

func (t *Trust) seen(registry string, in layout) {
	t.habits.mu.Lock()
	defer t.habits.mu.Unlock()
	if t.habits.last == nil {
		t.habits.last = map[string]layout{}
	}
	t.habits.last[registry] = in
}
