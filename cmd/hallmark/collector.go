package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// garbageBytes is how much garbage may lie between two collections at least. By default a process with a small heap
// collects each time it has grown by 4 MiB or by its own size (runtime, GOGC=100): here about every hundred reviews. The
// heap is a few megabytes and each collection goes through all of it, so collecting half as often is worth 8 MiB.
const garbageBytes = 8 << 20

// tuneCollector sets the percentage of the garbage collector by what is alive, after each collection, until ctx ends. A limit
// of memory (GOMEMLIMIT) holds in any case. Whoever sets GOGC knows better.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	t := &tuning{ctx: ctx, percent: 100, live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
	t.tune()
}

// A tuning goes from one collection to the next. A percentage that was right for a small heap would let the garbage of one
// that has suddenly grown grow with it: so it does not wait for a clock.
type tuning struct {
	ctx context.Context //nolint:containedctx // it goes on behind the caller, until that ends

	mutex   sync.Mutex
	percent int
	live    []metrics.Sample
}

// A collected is noticed when the collector has been there.
type collected [4]uint64

func (t *tuning) tune() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.ctx.Err() != nil {
		return
	}
	metrics.Read(t.live)
	if wanted := collectorPercent(t.live[0].Value.Uint64()); max(wanted-t.percent, t.percent-wanted)*4 > t.percent { // each change stops the world
		debug.SetGCPercent(wanted)
		t.percent = wanted
	}
	runtime.AddCleanup(new(collected), (*tuning).tune, t)
}

// collectorPercent is the share of live bytes that may be added as garbage. What is remembered of thousands of images is
// mostly bytes without pointers, which cost the collector little, so half as much is enough then. More is alive while
// registries send large answers, or all the time with large attestations: then a fixed amount, and half as much at least.
func collectorPercent(live uint64) int {
	const least, most, large = 50, 400, 32 << 20
	if live > large {
		return int(max(least, large*100/live))
	}
	return int(min(max(garbageBytes*100/max(live, 1), least), most))
}
