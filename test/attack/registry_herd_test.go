package attack

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestHerd: five hundred pods of one new image at once cost the requests of one.
func TestHerd(t *testing.T) {
	registry := serving(t, nil, func(http.ResponseWriter, *http.Request) bool { time.Sleep(20 * time.Millisecond); return false })
	w := besiege(t, "", targetOf(registry))
	w.publish(t, registry, "golden/one", "v1.0.0")
	w.publish(t, registry, "golden/herd", "v1.0.0")
	registry.Reset()
	allowed().check(t, w.admit(t, w.pod(image(registry.Host()+"/golden/one:v1.0.0"))))
	alone := len(registry.Requests())
	known, pods := map[string]object{}, map[string]object{}
	for i := range 500 {
		known[fmt.Sprint(i)] = w.pod(image(registry.Host() + "/golden/one:v1.0.0"))
		pods[fmt.Sprint(i)] = w.pod(image(registry.Host() + "/golden/herd:v1.0.0"))
	}
	// The handshakes of so many connections keep this process, which is the registry as well, from answering for seconds.
	w.admitAll(t, 500, known)
	registry.Reset()
	var slowest time.Duration
	for _, got := range w.admitAll(t, 500, pods) {
		allowed().check(t, got.Admission)
		slowest = max(slowest, got.took)
	}
	t.Logf("the slowest of 500 took %v", slowest)
	if n := len(registry.Requests()); n != alone {
		t.Errorf("%d requests, and %d for one pod: %+v", n, alone, registry.Requests())
	}
	w.sound(t)
}

// TestFloodOfReferences: one who asks for ever new images takes neither memory nor the registry from the others.
func TestFloodOfReferences(t *testing.T) {
	registry := serving(t, nil, nil)
	w := besiege(t, "limits: {requestsPerSecond: 1000}\ncache: {maxBytes: 1Mi}\n", targetOf(registry))
	w.publish(t, registry, "golden/quiet", "v1.0.0")
	w.sound(t)
	before := memoryOf(t, w.PID())
	pods := map[string]object{}
	for i := range 1000 {
		pods[fmt.Sprint(i)] = w.pod(image(fmt.Sprintf("%s/golden/flood%d:v1.0.%d", registry.Host(), i, i)))
	}
	done := make(chan struct{})
	most := peak(t, w.PID(), func() {
		go func() {
			defer close(done)
			for title, got := range w.admitAll(t, 50, pods) {
				if got.Allowed || got.Code != http.StatusForbidden && got.Code != http.StatusServiceUnavailable {
					t.Errorf("%s: allowed %t with code %d", title, got.Allowed, got.Code)
				}
			}
		}()
		for waiting := true; waiting; {
			within(t, 2*time.Second, func() { allowed().check(t, w.admit(t, w.pod())) })
			select {
			case <-done:
				waiting = false
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	allowed().check(t, w.admit(t, w.pod(image(registry.Host()+"/golden/quiet:v1.0.0"))))
	if most > before+48<<20 {
		t.Errorf("the webhook grew from %d to %d MiB", before>>20, most>>20)
	}
	w.sound(t)
}
