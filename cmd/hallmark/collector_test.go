package main

import "testing"

func TestCollectorPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 400, 1 << 20: 400, 4 << 20: 200, 8 << 20: 100, 16 << 20: 50, 64 << 20: 100, 1 << 30: 100,
	} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d bytes alive: %d %%, want %d", live, got, want)
		}
	}
}
