package harness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// Build compiles the hallmark binary into dir and gives its path. It must be called somewhere inside the module.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "hallmark")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/hallmark-admission/hallmark/cmd/hallmark")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build hallmark: %w\n%s", err, out)
	}
	return binary, nil
}

// A Webhook is a running "hallmark serve".
type Webhook struct {
	URL        string
	MetricsURL string
	CAPEM      []byte
	Client     *servertest.Client

	command *exec.Cmd
	exited  chan error
	mutex   sync.Mutex
	log     bytes.Buffer
}

// Serve starts the binary with the files of a fixture, and waits until it listens.
func Serve(ctx context.Context, binary string, f *Fixture, args ...string) (*Webhook, error) {
	w := &Webhook{exited: make(chan error, 1)}
	args = append([]string{
		"serve", "--config", filepath.Join(f.Dir, "hallmark.yaml"), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
		"--tls-cert", filepath.Join(f.Dir, "tls.crt"), "--tls-key", filepath.Join(f.Dir, "tls.key"), "--shutdown-delay", "0s",
	}, args...)
	w.command = exec.CommandContext(ctx, binary, args...)
	w.command.Cancel = func() error { return w.command.Process.Signal(syscall.SIGTERM) }
	w.command.WaitDelay = 20 * time.Second
	stderr, err := w.command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := w.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	listening := make(chan struct{ Address, Metrics string }, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			w.mutex.Lock()
			w.log.Write(append(lines.Bytes(), '\n'))
			w.mutex.Unlock()
			var line struct{ Msg, Address, Metrics string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				listening <- struct{ Address, Metrics string }{line.Address, line.Metrics}
			}
		}
		w.exited <- w.command.Wait()
	}()
	select {
	case at := <-listening:
		w.URL, w.MetricsURL = "https://"+at.Address, "http://"+at.Metrics
	case err := <-w.exited:
		return nil, fmt.Errorf("serve did not start: %w\n%s", errors.Join(err, errors.New("see its output")), w.Log())
	}
	if w.CAPEM, err = os.ReadFile(filepath.Join(f.Dir, "tls.crt")); err != nil {
		return nil, err
	}
	w.Client, err = servertest.NewClient(w.URL, w.CAPEM)
	return w, err
}

// Log is what the process has written so far.
func (w *Webhook) Log() string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.log.String()
}

// PID is the number of the process.
func (w *Webhook) PID() int { return w.command.Process.Pid }

// Kill ends the process as a crash would.
func (w *Webhook) Kill() {
	w.Client.Close()
	_ = w.command.Process.Kill()
	<-w.exited
}

// Stop asks the process to end and waits for it.
func (w *Webhook) Stop() error {
	w.Client.Close()
	if err := w.Terminate(); err != nil {
		return err
	}
	return w.Wait()
}

// Terminate asks the process to end.
func (w *Webhook) Terminate() error { return w.command.Process.Signal(syscall.SIGTERM) }

// Wait waits for the end of the process.
func (w *Webhook) Wait() error { return <-w.exited }
