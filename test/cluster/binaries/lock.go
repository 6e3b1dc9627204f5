package binaries

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// lockInterval is how often a waiting run looks whether the lock is free.
const lockInterval = 500 * time.Millisecond

// lock takes the exclusive lock on path and returns the function that gives it back. The kernel releases it too when
// the holder dies, so a killed build blocks nobody. It polls, as a blocking flock cannot be stopped by a context.
func lock(ctx context.Context, path string, progress io.Writer) (unlock func() error, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the build lock: %w", err)
	}
	tick := time.NewTicker(lockInterval)
	defer tick.Stop()
	for told := false; ; {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file.Close, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
		if !told {
			fmt.Fprintf(progress, "wait for another build, which holds %s\n", path)
			told = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for the build lock %s: %w", path, context.Cause(ctx)), file.Close())
		}
	}
}
