package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// garbageBytes is how much garbage may lie between two collections at least. By default a process with a small heap
// collects each time it has grown by 4 MiB or by its own size (runtime, GOGC=100): here about every hundred reviews. The
// heap is a few megabytes and each collection goes through all of it, so collecting half as often is worth 8 MiB.
const garbageBytes = 8 << 20

// tuneCollector sets the percentage of the garbage collector by what is alive, until ctx ends. A limit of memory (GOMEMLIMIT)
// holds in any case. Whoever sets GOGC knows better.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent := 100
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		metrics.Read(sample)
		if wanted := collectorPercent(sample[0].Value.Uint64()); max(wanted-percent, percent-wanted)*10 > percent {
			debug.SetGCPercent(wanted)
			percent = wanted
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// collectorPercent is the share of live bytes that may be added as garbage. What is remembered of thousands of images is
// mostly bytes without pointers, which cost the collector little, so half as much is enough then. More is alive only with a
// large catalogue or large attestations, which are trees of values: then as by default.
func collectorPercent(live uint64) int {
	const least, most, large = 50, 400, 32 << 20
	if live > large {
		return 100
	}
	return int(min(max(garbageBytes*100/max(live, 1), least), most))
}
