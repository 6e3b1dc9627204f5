package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hallmark-admission/hallmark/test/cluster/fixture"
)

// build compiles the product and the fixture into dir. They belong to the module around this one, whose versions of
// Kubernetes are others, so they are run and not imported.
func build(ctx context.Context, dir string) error {
	root, err := filepath.Abs(filepath.Join("..", "..", "..")) // go test runs in the directory of the package
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator),
		"./cmd/hallmark", "./test/harness/cmd/fixture")
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build hallmark and fixture in %s: %w\n%s", root, err, out)
	}
	return nil
}

// process is a program with its standard error in a file. It ends with the suite: asked to, or by the kernel's hand.
type process struct {
	command *exec.Cmd
	done    chan struct{} // closed when the process has ended and err is set
	err     error
}

func startProcess(dir, log string, command *exec.Cmd) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the child has its own descriptor
	command.Dir, command.Stderr = dir, file
	// No proxy variables: what the webhook reaches is the fixture's registry alone.
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command.Path, err)
	}
	p := &process{command: command, done: make(chan struct{})}
	go func() {
		p.err = command.Wait()
		close(p.done)
	}()
	return p, nil
}

// ended says how a process ended that is gone already, and "" of one that is not.
func (p *process) ended() string {
	select {
	case <-p.done:
		return p.command.ProcessState.String()
	default:
		return ""
	}
}

// stop asks the process to end and says how it did.
func (p *process) stop() error {
	if state := p.ended(); state != "" {
		return fmt.Errorf("%s ended unasked: %s", filepath.Base(p.command.Path), state)
	}
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(15 * time.Second):
		return errors.Join(errors.New("SIGTERM did not end it"), p.command.Process.Kill())
	}
}

// hallmark is a running "hallmark serve".
type hallmark struct {
	*process
	policy string // the revision in force
}

// startHallmark runs the webhook on an address with the files of the fixture, and returns when it has started.
func startHallmark(ctx context.Context, bin, log, listen string, f *fixture.Fixture) (*hallmark, error) {
	before, err := os.ReadFile(log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	h := &hallmark{}
	h.process, err = startProcess(filepath.Dir(log), log, exec.Command(filepath.Join(bin, "hallmark"), "serve",
		"--config", f.Config, "--listen", listen, "--metrics-listen", "", "--tls-cert", f.Cert, "--tls-key", f.Key,
		"--shutdown-delay", "0s"))
	if err != nil {
		return nil, err
	}
	err = poll(ctx, func() error {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		for _, line := range bytes.Split(text[len(before):], []byte("\n")) {
			var said struct{ Msg, Policy string }
			_ = json.Unmarshal(line, &said) // an error message is no JSON
			switch said.Msg {
			case "configuration and policies loaded":
				h.policy = said.Policy
			case "golden images read": // the last thing at its start, and the last that it asks the registry by itself
				return nil
			}
		}
		if state := h.ended(); state != "" {
			return &finalError{fmt.Errorf("hallmark ended: %s\n%s", state, text[len(before):])}
		}
		return errors.New("hallmark has not started yet")
	})
	return h, err
}

// finalError is one after which polling is useless.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// patience is how long a condition may take to come about: many times what it takes on a quiet machine.
const patience = 30 * time.Second

// poll repeats check until it succeeds, ctx ends or patience is exhausted.
func poll(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if final := (*finalError)(nil); err == nil || errors.As(err, &final) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (waited %s)", err, patience)
		}
	}
}
