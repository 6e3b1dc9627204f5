package policy

import (
	"crypto/sha256"
	"slices"
	"sync"

	"github.com/hallmark-admission/hallmark/webhook"
)

// judgementKey is the SHA-256 of an input and its phase. Whoever writes pods chooses parts of the input, so a hash that can
// be made to collide would let one pod have the verdict on another.
type judgementKey [sha256.Size]byte

// judgement is what the rules of a phase found. Most find nothing.
type judgement []judged

// judged is a finding, with its image told by its number in the input; -1 is the whole object.
type judged struct {
	finding webhook.Finding
	image   int
}

// memoryBytes bounds each of the two halves of a memory. A judgement without findings counts judgementBytes, so that about
// 5,000 are kept in a half.
const (
	memoryBytes    = 1 << 20
	judgementBytes = 200
)

// A memory keeps what rules said of an input. It belongs to one Engine, and is forgotten with it. When its younger half is
// full, that becomes the older one, and what was in the older one and has not been asked for since is forgotten.
type memory struct {
	mutex  sync.RWMutex
	young  map[judgementKey]judgement
	old    map[judgementKey]judgement
	filled int // bytes in young
}

func newMemory() *memory { return &memory{young: map[judgementKey]judgement{}} }

// recall gives findings of their own to whoever asks, about the images at hand.
func (m *memory) recall(key judgementKey, images []*webhook.Image) ([]webhook.Finding, bool) {
	m.mutex.RLock()
	found, known := m.young[key]
	fromOld := false
	if !known {
		found, known = m.old[key]
		fromOld = known
	}
	m.mutex.RUnlock()
	if !known {
		return nil, false
	}
	if fromOld {
		m.put(key, found)
	}
	var findings []webhook.Finding
	for _, j := range found {
		f := j.finding
		if j.image >= 0 {
			f.Image = images[j.image]
		}
		findings = append(findings, f)
	}
	return findings, true
}

// keep remembers findings about images.
func (m *memory) keep(key judgementKey, findings []webhook.Finding, images []*webhook.Image) {
	var found judgement
	for _, f := range findings {
		image := slices.Index(images, f.Image)
		f.Image = nil
		found = append(found, judged{f, image})
	}
	m.put(key, found)
}

func (m *memory) put(key judgementKey, found judgement) {
	size := judgementBytes
	for _, j := range found {
		size += judgementBytes + len(j.finding.Message) + len(j.finding.Fix)
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if _, known := m.young[key]; known {
		return
	}
	if m.filled += size; m.filled > memoryBytes {
		m.old, m.young, m.filled = m.young, make(map[judgementKey]judgement), size
	}
	m.young[key] = found
}
