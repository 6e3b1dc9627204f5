package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A scenario is a load under certain circumstances.
type scenario struct {
	name, what string
	run        func(context.Context, *bench) error
}

func scenarios() []scenario {
	return []scenario{
		{"warm", "images that are known", warm},
		{"cold", "each pod has new signed images", cold},
		{"herd", "five hundred pods of one new image at once", herd},
		{"move", "a tag moves during the load", move},
		{"down", "the registry is gone, after it was there", down},
		{"429", "the registry has everybody come back later, after it was there", throttled},
		{"hostile", "good pods beside oversized, malformed, foreign and unsigned ones", hostile},
		{"start", "from exec to ready, and the size of the binary", start},
		{"memory", "what ten thousand different images leave in memory", memory},
		{"day", "memory while tags expire and move, many days in a short time", day},
		{"morning", "ten thousand workspaces that start within an hour, with replicas", morning},
	}
}

// turns gives each server its turn, in another order each time, so that a machine that gets slower or faster meanwhile
// does so for all.
func (s *stand) turns(ctx context.Context, name string, clients int, load func(t *target, round int) ([]sample, error)) error {
	sums := make([]turn, len(s.targets))
	for round := range s.bench.rounds {
		for i := range s.targets {
			at := (i + round) % len(s.targets)
			t := s.targets[at]
			var err error
			result, usedErr := s.measured(t, func() (samples []sample) {
				samples, err = load(t, round)
				return samples
			})
			if err = errors.Join(err, usedErr, ctx.Err()); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			sums[at].join(result)
		}
	}
	for i, t := range s.targets {
		s.bench.report.row(name, s.bench.latencyNow(s), clients, t.name, sums[i])
	}
	s.bench.report.compare(name, s.bench.latencyNow(s), clients)
	return nil
}

func (b *bench) latencyNow(s *stand) time.Duration { return time.Duration(s.network.delay.Load()) }

// with runs a scenario on a stand of its own.
func (b *bench) with(ctx context.Context, more string, run func(*stand) error) error {
	s, err := b.newStand(ctx, more)
	if err != nil {
		return err
	}
	return errors.Join(run(s), s.close())
}

// known publishes images and has every server admit a pod of them, so that all connections and memories are warm.
func (s *stand) known(ctx context.Context, tag string, clients int) (*workload, error) {
	list, err := s.fresh(ctx, tag, 1)
	if err != nil {
		return nil, err
	}
	for _, t := range s.targets {
		if got := t.admit(ctx, list[0], s.pods); got.outcome != allowed {
			return nil, fmt.Errorf("%s: a good pod was %s: %s", t.name, got.outcome, got.says)
		}
		s.pods++
		s.connect(ctx, t, list[0], clients)
	}
	return list[0], nil
}

// connect gives each client a connection, by a pod of each at the same time. There are ever more of them: so many
// handshakes at once would keep everybody from answering, the registry as well, which is this process.
func (s *stand) connect(ctx context.Context, t *target, w *workload, clients int) {
	for n := min(32, clients); ; n = min(2*n, clients) {
		var group sync.WaitGroup
		for i := range n {
			group.Go(func() { t.admit(ctx, w, s.pods+uint64(i)) })
		}
		group.Wait()
		s.pods += uint64(n)
		if n == clients || ctx.Err() != nil {
			return
		}
	}
}

func warm(ctx context.Context, b *bench) error {
	return b.with(ctx, "", func(s *stand) error {
		for _, clients := range b.concurrency {
			w, err := s.known(ctx, fmt.Sprintf("v1.%d.", clients), clients)
			if err != nil {
				return err
			}
			if err := s.turns(ctx, "warm", clients, func(t *target, _ int) ([]sample, error) {
				return s.clients(ctx, t, clients, during(b.round, w)), nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

func cold(ctx context.Context, b *bench) error {
	return b.with(ctx, "", func(s *stand) error {
		for _, clients := range b.concurrency {
			if _, err := s.known(ctx, fmt.Sprintf("v1.%d.", clients), clients); err != nil {
				return err
			}
			rounds := make([][]*workload, b.rounds)
			for round := range rounds {
				var err error
				if rounds[round], err = s.fresh(ctx, fmt.Sprintf("v2.%d.%d0000", clients, round+1), b.cold); err != nil {
					return err
				}
			}
			if err := s.turns(ctx, "cold", clients, func(t *target, round int) ([]sample, error) {
				return s.clients(ctx, t, clients, once(rounds[round])), nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// herd compares with what one pod costs the registry.
func herd(ctx context.Context, b *bench) error {
	const size = 500
	return b.with(ctx, "", func(s *stand) error {
		if _, err := s.known(ctx, "v1.0.", size); err != nil {
			return err
		}
		list, err := s.fresh(ctx, "v3.0.", b.rounds+1)
		if err != nil {
			return err
		}
		alone, err := s.measured(s.targets[0], func() []sample { return s.clients(ctx, s.targets[0], 1, once(list[:1])) })
		if err != nil {
			return err
		}
		b.report.note("herd: one pod alone makes %d requests to the registry, so %d herds should make %d", alone.requests, b.rounds, alone.requests*int64(b.rounds))
		return s.turns(ctx, "herd", size, func(t *target, round int) ([]sample, error) {
			return s.clients(ctx, t, size, func(i int) *workload {
				if i >= size {
					return nil
				}
				return list[round+1]
			}), nil
		})
	})
}
