package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestCollectorPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 400, 1 << 20: 400, 4 << 20: 200, 8 << 20: 100, 16 << 20: 50, 33 << 20: 96, 48 << 20: 66, 64 << 20: 50, 1 << 30: 50,
	} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d bytes alive: %d %%, want %d", live, got, want)
		}
	}
}

// TestTuneCollector: the percentage follows what is alive from one collection to the next, and stays where the end found it.
func TestTuneCollector(t *testing.T) {
	percent := func() int {
		now := debug.SetGCPercent(100)
		debug.SetGCPercent(now)
		return now
	}
	t.Setenv("GOGC", "")
	before := percent()
	defer debug.SetGCPercent(before)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	tuneCollector(ctx)
	held := make([]byte, 256<<20)
	for began := time.Now(); percent() != 50; runtime.GC() {
		if time.Since(began) > time.Minute {
			t.Fatalf("256 MiB are alive, and the percentage is %d", percent())
		}
	}
	runtime.KeepAlive(held)
	stop()
	for range 5 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	if got := percent(); got != 50 {
		t.Errorf("after the end it was set to %d", got)
	}
}
