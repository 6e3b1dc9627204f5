package server

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
)

// A room bounds the memory that large bodies take, before they are read. Small ones, which is nearly all, never wait for
// it: the number of connections bounds them, and nobody who sends large ones keeps them away.
type room struct {
	bytes    int64
	free     *semaphore.Weighted
	patience time.Duration
}

const (
	smallBody    = 64 << 10        // the review of a pod has 5 to 20 KiB, with the old object twice as much
	minRoom      = 2 * maxBody     // so that a large body does not have to wait for the end of another
	defaultRoom  = 64 << 20        // when nothing is known about the memory
	roomPatience = 1 * time.Second // for other large bodies to go
)

func newRoom(bytes int64) *room {
	if bytes <= 0 {
		bytes = defaultRoom
	}
	bytes = max(bytes, minRoom)
	return &room{bytes: bytes, free: semaphore.NewWeighted(bytes), patience: roomPatience}
}

// enter takes room for a body that was announced, and gives how much of it leave has to give back; a body of unknown
// length needs as much as the largest.
func (r *room) enter(request *http.Request) (taken int64, ok bool) {
	announced := request.ContentLength
	switch {
	case announced > maxBody:
		return 0, true // is refused unread
	case announced < 0:
		announced = maxBody
	case announced <= smallBody:
		return 0, true
	}
	if r.free.TryAcquire(announced) {
		return announced, true
	}
	ctx, cancel := context.WithTimeout(request.Context(), r.patience)
	defer cancel()
	if r.free.Acquire(ctx, announced) != nil {
		return 0, false
	}
	return announced, true
}

func (r *room) leave(taken int64) {
	if taken > 0 {
		r.free.Release(taken)
	}
}
