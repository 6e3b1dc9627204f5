package main

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// shortTags has tags looked up again all the time, so that what happens to the registry is felt.
const shortTags = "cache: {tagTTL: 1s}\n"

// some is the number of clients in scenarios that are not about it.
const some = 8

// move moves the tag after a third of a turn, and says how long the old digest was given out, and who was refused.
func move(ctx context.Context, b *bench) error {
	return b.with(ctx, shortTags, func(s *stand) error {
		w, err := s.known(ctx, "v4.0.", some)
		if err != nil {
			return err
		}
		moves := 0
		return s.turns(ctx, "move", some, func(t *target, round int) ([]sample, error) {
			moves++
			digests, err := s.publish(ctx, fmt.Sprintf("v5.0.%d", moves))
			if err != nil {
				return nil, err
			}
			var at time.Time
			moved := make(chan error, 1)
			timer := time.AfterFunc(b.round, func() {
				var err error
				for i, digest := range digests {
					if err == nil {
						err = s.Registry.Tag(ctx, repository(i), "v4.0.0", digest)
					}
				}
				at = time.Now()
				moved <- err
			})
			defer timer.Stop()
			samples := s.clients(ctx, t, some, during(3*b.round, w))
			if err := <-moved; err != nil {
				return nil, err
			}
			if old, fresh := when(samples, digests[0], at); fresh > 0 {
				b.report.note("move: %s gave out the new digest %s after the tag had moved, and the old one for the last time after %s",
					t.name, fresh.Round(time.Millisecond), old.Round(time.Millisecond))
			}
			return samples, nil
		})
	})
}

// when is when the old digest was given out last and the new one first, seen from the moment of the move.
func when(samples []sample, digest string, moved time.Time) (lastOld, firstNew time.Duration) {
	for _, one := range samples {
		after := one.start.Sub(moved)
		switch {
		case len(one.patch) == 0:
		case !bytes.Contains(one.patch, []byte(digest)):
			lastOld = max(lastOld, after)
		case firstNew == 0 || after < firstNew:
			firstNew = after
		}
	}
	return lastOld, firstNew
}

// down: what was known goes on, what is new is undecided, and both at once.
func down(ctx context.Context, b *bench) error {
	return b.failing(ctx, "down", func(s *stand) error { return s.Registry.Close() })
}

func throttled(ctx context.Context, b *bench) error {
	return b.failing(ctx, "429", func(s *stand) error {
		s.network.throttle.Store(2)
		return nil
	})
}

// failing sends pods of known and of new images to a registry that has ceased to answer as it should.
func (b *bench) failing(ctx context.Context, name string, fail func(*stand) error) error {
	return b.with(ctx, shortTags, func(s *stand) error {
		w, err := s.known(ctx, "v6.0.", some)
		if err != nil {
			return err
		}
		strangers, err := s.fresh(ctx, "v7.0.", b.cold)
		if err != nil {
			return err
		}
		if err := fail(s); err != nil {
			return err
		}
		select { // until what the tags named is out of date
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
		if err := s.turns(ctx, name+", known", some, func(t *target, _ int) ([]sample, error) {
			return s.clients(ctx, t, some, during(b.round, w)), nil
		}); err != nil {
			return err
		}
		return s.turns(ctx, name+", new", some, func(t *target, _ int) ([]sample, error) {
			return s.clients(ctx, t, some, once(strangers)), nil
		})
	})
}
