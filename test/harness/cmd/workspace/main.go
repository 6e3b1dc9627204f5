// Workspace is what runs in the containers of a test: it does nothing until it is asked to end, which it does at once.
// As the first process of a pod it also waits for orphans, which is all that a pause container does.
package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			os.Exit(0)
		}
		for {
			ended, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if ended <= 0 && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
	}
}
