package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// warm reads and proves the golden images by their default tags, a few at a time, so that the first workspace of the
// morning finds them known, and the log says in the evening which of them could not start.
func warm(ctx context.Context, g *generation, log *slog.Logger) {
	const together = 4
	start, failed, read := time.Now(), 0, 0
	_ = g.trust.Wait(ctx) // what could not be read is logged where it is read
	var mutex sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, together)
	for _, image := range defaultImages(g.config) {
		ref, err := webhook.ParseReference(image)
		if err != nil {
			continue // the configuration was checked
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		group.Go(func() {
			defer func() { <-slots }()
			bounded, cancel := context.WithTimeout(ctx, time.Duration(g.config.Limits.Deadline))
			defer cancel()
			warmed := g.reviewer.Warm(bounded, ref)
			mutex.Lock()
			defer mutex.Unlock()
			read++
			switch {
			case ctx.Err() != nil:
			case len(warmed.Unknown) > 0:
				failed++
				log.Warn("golden image could not be read", "image", ref.String(), "error", warmed.Unknown[0].Reason)
			case !warmed.Signed:
				failed++
				log.Warn("golden image is not signed as it must be", "image", ref.String())
			}
		})
	}
	group.Wait()
	if read > 0 && ctx.Err() == nil {
		log.Info("golden images read", "images", read, "failed", failed, "duration", time.Since(start))
	}
}
