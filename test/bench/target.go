package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// A target is a server process that is measured. It writes its log to a file, as a container does.
type target struct {
	name    string
	client  *servertest.Client
	metrics string // base URL, "" for none

	command *exec.Cmd
	exited  chan error
	log     string
}

// prepare builds the binary that is measured as it is shipped, unless one was given.
func (b *bench) prepare(ctx context.Context) error {
	if b.binary == "" {
		b.binary = filepath.Join(b.dir, "hallmark")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.binary,
			"github.com/hallmark-admission/hallmark/cmd/hallmark")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build hallmark: %w\n%s", err, out)
		}
	}
	var err error
	b.report.Machine, err = describe(b.binary)
	return err
}

// start starts Hallmark, the other Hallmark if there is one, and the floors.
func (s *stand) start(ctx context.Context) error {
	if err := s.startHallmark(ctx); err != nil {
		return err
	}
	if s.bench.against != "" {
		if err := s.run(ctx, "against", s.bench.against, s.serveArgs()); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, decode := range []string{"typed", "lean"} {
		args := []string{"floor", "-tls-cert", s.file("tls.crt"), "-tls-key", s.file("tls.key"), "-decode", decode}
		if err := s.run(ctx, "floor, "+decode, self, args); err != nil {
			return err
		}
	}
	return nil
}

func (s *stand) startHallmark(ctx context.Context) error {
	return s.run(ctx, "hallmark", s.bench.binary, s.serveArgs())
}

func (s *stand) file(name string) string { return filepath.Join(s.Dir, name) }

func (s *stand) serveArgs() []string {
	return append([]string{
		"serve", "--config", s.file("hallmark.yaml"), "--policies", s.file("policies"), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
		"--tls-cert", s.file("tls.crt"), "--tls-key", s.file("tls.key"), "--shutdown-delay", "0s",
	}, s.bench.serve...)
}

func (s *stand) run(ctx context.Context, name, binary string, args []string) error {
	t, err := startTarget(ctx, name, s.Dir, exec.CommandContext(ctx, binary, args...))
	if err != nil {
		return err
	}
	s.targets = append(s.targets, t)
	return nil
}

// startTarget starts a server and waits until it listens and, with a metrics port, is ready.
func startTarget(ctx context.Context, name, dir string, command *exec.Cmd) (*target, error) {
	logs := filepath.Join(dir, "logs") // a directory of its own: hallmark watches that of its configuration
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, err
	}
	log, err := os.CreateTemp(logs, "*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	t := &target{name: name, command: command, log: log.Name(), exited: make(chan error, 1)}
	command.Stdout, command.Stderr = log, log
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 20 * time.Second
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { t.exited <- command.Wait() }()
	url, err := t.listening(ctx)
	if err == nil {
		err = t.ready(ctx)
	}
	if err == nil {
		var authority []byte
		if authority, err = os.ReadFile(filepath.Join(dir, "tls.crt")); err == nil {
			t.client, err = servertest.NewClient(url, authority)
		}
	}
	if err != nil {
		text, _ := os.ReadFile(t.log)
		return nil, fmt.Errorf("start %s: %w\n%s", name, errors.Join(err, command.Process.Kill()), text)
	}
	return t, nil
}

// listening looks every millisecond whether the log says where the server listens.
func (t *target) listening(ctx context.Context) (url string, err error) {
	for {
		text, err := os.ReadFile(t.log)
		if err != nil {
			return "", err
		}
		for _, line := range bytes.Split(text, []byte("\n")) {
			var said struct{ Msg, Address, Metrics string }
			if json.Unmarshal(line, &said) == nil && said.Msg == "serving" {
				if said.Metrics != "" {
					t.metrics = "http://" + said.Metrics
				}
				return "https://" + said.Address, nil
			}
		}
		select {
		case err := <-t.exited:
			t.exited <- err
			return "", errors.Join(errors.New("it ended before it listened"), err)
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// ready asks until /readyz is 200.
func (t *target) ready(ctx context.Context) error {
	if t.metrics == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.metrics+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func (t *target) stop() error {
	if t.client != nil {
		t.client.Close()
	}
	if err := t.command.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("%s ended before it was told to: %w", t.name, err)
	}
	err := <-t.exited
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == -1 {
		return nil // by the signal
	}
	return err
}

// usage is what a process has taken so far.
type usage struct {
	cpu       time.Duration
	rss, peak int64 // bytes resident, now and at most
}

// used reads it from /proc (proc(5)): the kernel counts CPU time exactly and tells it in ticks of 10 ms, which is little
// beside the seconds of a run.
func (t *target) used() (u usage, err error) {
	dir := fmt.Sprintf("/proc/%d/", t.command.Process.Pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return u, fmt.Errorf("read what %s has used (it needs Linux): %w", t.name, err)
	}
	// After the name, which may hold anything and ends with the last parenthesis, utime and stime are the 12th and 13th.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return u, fmt.Errorf("%sstat has only %d fields", dir, len(fields))
	}
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return u, fmt.Errorf("%sstat: %w", dir, err)
		}
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		for key, into := range map[string]*int64{"VmRSS": &u.rss, "VmHWM": &u.peak} {
			if name == key {
				if _, err := fmt.Sscanf(strings.TrimSpace(value), "%d kB", into); err != nil {
					return u, fmt.Errorf("%sstatus: %s: %w", dir, name, err)
				}
				*into <<= 10
			}
		}
	}
	return u, nil
}
