package attack

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// timed is what came of an admission, and when.
type timed struct {
	servertest.Admission
	took time.Duration
}

// admitAll sends many objects through both halves, so many at a time. Parallel subtests would run no more than there are
// processors, and most of these wait.
func (w world) admitAll(t *testing.T, atOnce int, objects map[string]object) map[string]timed {
	t.Helper()
	all := map[string]timed{}
	var mutex sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for title, o := range objects {
		text := encode(t, o)
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			start := time.Now()
			a, err := w.Client.Admit(t.Context(), servertest.Object{JSON: text})
			if err != nil {
				t.Errorf("%s: %v", title, err)
			}
			mutex.Lock()
			defer mutex.Unlock()
			all[title] = timed{a, time.Since(start)}
		})
	}
	group.Wait()
	return all
}

// wantCleanLog wants nothing in the log but records of the webhook's own. net/http writes about broken protocols to the
// standard logger, and quotes what the server sent: that has no place there.
func (w world) wantCleanLog(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(w.Log()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("the log has a line that is no record: %.200q", line)
		}
	}
}

// memoryOf is the resident memory of a process in bytes.
func memoryOf(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal("resident memory can be read on Linux only: ", err)
	}
	_, rest, _ := strings.Cut(string(status), "\nVmRSS:")
	line, _, _ := strings.Cut(rest, "kB")
	kib, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// peak is the most memory that a process has while f runs.
func peak(t *testing.T, pid int, f func()) (most int64) {
	t.Helper()
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			most = max(most, memoryOf(t, pid))
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	})
	f()
	close(done)
	group.Wait()
	return most
}
