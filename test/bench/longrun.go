package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// start starts the binary several times beside a registry that is there.
func start(ctx context.Context, b *bench) error {
	const times = 10
	return b.with(ctx, "", func(s *stand) error {
		var took []time.Duration
		var rss []int64
		for range times {
			one := &stand{Fixture: s.Fixture, bench: b}
			began := time.Now()
			if err := one.startHallmark(ctx); err != nil {
				return err
			}
			took = append(took, time.Since(began))
			used, err := one.targets[0].used()
			if err != nil {
				return err
			}
			rss = append(rss, used.rss)
			if err := one.targets[0].stop(); err != nil {
				return err
			}
		}
		slices.Sort(took)
		slices.Sort(rss)
		b.report.note("start: ready %s after exec (median of %d; %s to %s), with %s resident", round(took[times/2]), times, round(took[0]), round(took[times-1]), mib(rss[times/2]))
		return nil
	})
}

// memory has every server see so many different images, and then waits until the heap has been given back.
func memory(ctx context.Context, b *bench) error {
	return b.with(ctx, "", func(s *stand) error {
		if _, err := s.known(ctx, "v1.0.", some); err != nil {
			return err
		}
		t := s.targets[0]
		empty, err := t.used()
		if err != nil {
			return err
		}
		const batch = 500
		var sum turn
		for done := 0; done < b.memory; done += batch {
			list, err := s.fresh(ctx, fmt.Sprintf("v2.%d.", done), min(batch, b.memory-done))
			if err != nil {
				return err
			}
			result, err := s.measured(t, func() []sample { return s.clients(ctx, t, some, once(list)) })
			if err != nil {
				return err
			}
			sum.join(result)
		}
		b.report.row("memory", b.latencyNow(s), some, t.name, sum)
		select {
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		rested, err := t.used()
		if err != nil {
			return err
		}
		b.report.note("memory: %s resident before, %s after %d different images, %s ten seconds later, at most %s",
			mib(empty.rss), mib(sum.now.rss), b.memory, mib(rested.rss), mib(rested.peak))
		return nil
	})
}

// day sends pods of many tags, at a steady pace; every second the tags are looked up again and one of them has moved.
func day(ctx context.Context, b *bench) error {
	const tags, pace = 200, 5 * time.Millisecond
	return b.with(ctx, shortTags, func(s *stand) error {
		list, err := s.fresh(ctx, "v1.0.", tags)
		if err != nil {
			return err
		}
		t := s.targets[0]
		var sum turn
		var resident []int64
		began := time.Now()
		for second := 1; time.Since(began) < b.length; second++ {
			digests, err := s.publish(ctx, fmt.Sprintf("v9.0.%d", second))
			if err != nil {
				return err
			}
			for i, digest := range digests {
				if err := s.Registry.Tag(ctx, repository(i), fmt.Sprintf("v1.0.%d", second%tags), digest); err != nil {
					return err
				}
			}
			s.Registry.Reset()
			next := time.Now()
			end := next.Add(time.Second)
			var mutex sync.Mutex
			result, err := s.measured(t, func() []sample {
				return s.clients(ctx, t, some, func(int) *workload {
					mutex.Lock()
					at := next
					next = next.Add(pace)
					mutex.Unlock()
					if at.After(end) {
						return nil
					}
					time.Sleep(time.Until(at))
					return list[rand.IntN(tags)]
				})
			})
			if err != nil {
				return err
			}
			sum.join(result)
			resident = append(resident, result.now.rss)
		}
		b.report.row("day", b.latencyNow(s), some, t.name, sum)
		b.report.note("day: %d pods of %d tags, each looked up every second, one of them moved every second, during %s", len(sum.took), tags, round(time.Since(began)))
		for i := range 6 {
			at := i * (len(resident) - 1) / 5
			b.report.note("day: after %3d s %s resident", at+1, mib(resident[at]))
		}
		if half := len(resident) / 2; half > 0 {
			b.report.note("day: on average %s in the third quarter and %s in the last", mib(mean(resident[half:half+half/2])), mib(mean(resident[half+half/2:])))
		}
		return nil
	})
}

func mean(list []int64) int64 {
	var sum int64
	for _, n := range list {
		sum += n
	}
	return sum / int64(max(1, len(list)))
}

// morning starts workspaces as they come: bursts at random moments (a compound Poisson process), each pod at one of the
// replicas, as a Service spreads connections.
func morning(ctx context.Context, b *bench) error {
	const tags = 30
	return b.with(ctx, "", func(s *stand) error {
		list, err := s.fresh(ctx, "v1.0.", tags)
		if err != nil {
			return err
		}
		replicas := []*target{s.targets[0]}
		for i := 1; i < b.replicas; i++ {
			one := &stand{Fixture: s.Fixture, bench: b}
			if err := one.startHallmark(ctx); err != nil {
				return err
			}
			replicas = append(replicas, one.targets[0])
			s.targets = append(s.targets, one.targets[0])
		}
		before := make([]usage, len(replicas))
		for i, t := range replicas {
			if before[i], err = t.used(); err != nil {
				return err
			}
		}
		asked, began := s.network.requests.Load(), time.Now()
		samples := s.arrivals(ctx, replicas, list)
		length := time.Since(began)
		sum := turn{wall: length, requests: s.network.requests.Load() - asked}
		for _, one := range samples {
			sum.add(one)
		}
		for i, t := range replicas {
			now, err := t.used()
			if err != nil {
				return err
			}
			sum.cpu += now.cpu - before[i].cpu
			sum.now.rss, sum.now.peak = max(sum.now.rss, now.rss), max(sum.now.peak, now.peak)
			b.report.note("morning: replica %d used %.1f thousandths of a processor, %s resident, at most %s",
				i+1, 1000*(now.cpu-before[i].cpu).Seconds()/length.Seconds(), mib(now.rss), mib(now.peak))
		}
		b.report.row("morning", b.latencyNow(s), b.replicas, "hallmark", sum)
		b.report.note("morning: %d pods in %s, %.1f a second in bursts of %.0f on average; %.2f requests a second to the registry",
			len(samples), round(length), float64(len(samples))/length.Seconds(), b.bursts, float64(sum.requests)/length.Seconds())
		return nil
	})
}

func (s *stand) arrivals(ctx context.Context, replicas []*target, list []*workload) []sample {
	var mutex sync.Mutex
	var samples []sample
	var group sync.WaitGroup
	end := time.Now().Add(s.bench.length)
	for next := time.Now(); next.Before(end) && ctx.Err() == nil; {
		time.Sleep(time.Until(next))
		// A geometric number of pods with the mean that was asked for.
		for n := 1; n == 1 || rand.Float64() > 1/s.bench.bursts; n++ {
			number := s.pods
			s.pods++
			group.Go(func() {
				one := replicas[rand.IntN(len(replicas))].admit(ctx, list[rand.IntN(len(list))], number)
				mutex.Lock()
				defer mutex.Unlock()
				samples = append(samples, one)
			})
		}
		next = next.Add(time.Duration(rand.ExpFloat64() * float64(time.Second) * s.bench.bursts / s.bench.rate))
	}
	group.Wait()
	return samples
}

func size(path string) (int64, error) {
	info, err := os.Stat(filepath.Clean(path))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
