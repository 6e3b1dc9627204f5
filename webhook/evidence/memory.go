package evidence

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/singleflight"
)

// memory is a map that forgets what was not used for longest when it has too many entries or bytes. It is safe for
// concurrent use.
type memory[V any] struct {
	mutex sync.Mutex
	lru   *simplelru.LRU[string, entry[V]]
	bytes int64
	max   int64
}

type entry[V any] struct {
	value V
	bytes int64
}

func newMemory[V any](entries int, bytes int64) *memory[V] {
	m := &memory[V]{max: bytes}
	lru, err := simplelru.NewLRU(entries, func(_ string, e entry[V]) { m.bytes -= e.bytes })
	if err != nil {
		panic(fmt.Sprintf("evidence: %v", err)) // a size that is not positive
	}
	m.lru = lru
	return m
}

func (m *memory[V]) get(key string) (V, bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	e, ok := m.lru.Get(key)
	return e.value, ok
}

// entryBytes is what an entry takes beside its key and value: an element of the list, one of the map and their pointers.
const entryBytes = 160

// add remembers a value of about so many bytes, unless it alone is more than there may be.
func (m *memory[V]) add(key string, value V, bytes int64) {
	e := entry[V]{value, bytes + int64(len(key)) + entryBytes}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.lru.Remove(key)
	if e.bytes > m.max {
		return
	}
	m.lru.Add(key, e)
	m.bytes += e.bytes
	for m.bytes > m.max {
		m.lru.RemoveOldest()
	}
}

func (m *memory[V]) remove(key string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.lru.Remove(key)
}

func (m *memory[V]) size() int64 {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.bytes
}

// flights joins callers that want the same thing at the same time.
type flights struct {
	group   singleflight.Group
	timeout time.Duration // of the work itself
}

// do runs work once for all callers of one key. The caller waits for it no longer than its own context lets it.
func do[V any](ctx context.Context, f *flights, key string, work func(ctx context.Context) (V, error)) (V, error) {
	done := f.group.DoChan(key, func() (result any, err error) {
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.timeout)
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		return work(detached)
	})
	var none V
	select {
	case <-ctx.Done():
		return none, ctx.Err()
	case result := <-done:
		if result.Err != nil {
			return none, result.Err
		}
		return result.Val.(V), nil
	}
}
