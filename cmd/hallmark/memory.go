package main

import (
	"log/slog"
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// limitMemory has the garbage collector keep the process below nine tenths of the memory that its container may have,
// unless GOMEMLIMIT says something else. It gives the limit in bytes, 0 when there is none.
func limitMemory(log *slog.Logger) int64 {
	limit, err := memlimit.Set(memlimit.WithRatio(0.9))
	if err != nil {
		log.Warn("the memory limit of the container could not be read; set GOMEMLIMIT", "error", err)
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit
}

// shares divides the memory that the process may have, so that all of its parts together stay below it. Half is left for
// what reviews need besides, and for the garbage collector.
type shares struct {
	bodies  int64 // of large requests, in bytes
	answers int   // large ones of registries at the same time: 8 MiB each with the default limits
	cache   int64 // most bytes of the cache; 0 is as many as the configuration says
}

const largeAnswers = 8

func sharesOf(memory int64) shares {
	if memory == 0 {
		return shares{answers: largeAnswers}
	}
	return shares{bodies: memory / 8, answers: int(min(largeAnswers, max(2, memory>>26))), cache: memory / 4}
}
