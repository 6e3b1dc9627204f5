package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// stopGrace is how long a process may take to end by itself. Its state is thrown away, so there is nothing to save.
	stopGrace = 3 * time.Second
	// logTail is how many lines of a log an error quotes.
	logTail = 15
)

// process is one running server and its log. The goroutine that waits for it ends with it, and stop waits for both.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when the process has ended and err is set
	err  error
}

// startProcess runs a program in a directory, with its output in dir/<name>.log.
//
// The process leads its own group, so that an interrupt at the terminal reaches the test alone, which then stops its
// servers in order. Should the test die, the kernel kills them (Pdeathsig). The kernel takes "the parent" to be the
// thread that forked; Go ends a thread only when a goroutine locked to it returns, so Start must not be called from
// such a goroutine.
func startProcess(dir, name string, cmd *exec.Cmd) (*process, error) {
	path := filepath.Join(dir, name+".log")
	log, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() // the child has its own descriptor

	cmd.Dir = dir
	if cmd.Env == nil {
		cmd.Env = environment(dir)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: path, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// environment keeps what is around the test away from the programs: above all proxy variables, by which the API server
// would call webhooks through a proxy, and the caller's own kubectl configuration in HOME.
func environment(dir string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}
}

// ended tells whether the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// failure describes a process that ended although nobody stopped it.
func (p *process) failure() error {
	state := "exit status 0"
	if p.err != nil {
		state = p.err.Error()
	}
	return fmt.Errorf("%s ended unasked: %s\n%s", p.name, state, p.tail())
}

// tail quotes the end of the log.
func (p *process) tail() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Sprintf("(its log cannot be read: %v)", err)
	}
	lines := strings.Split(string(bytes.TrimSpace(content)), "\n")
	lines = lines[max(0, len(lines)-logTail):]
	return fmt.Sprintf("%s ends with:\n  %s", p.log, strings.Join(lines, "\n  "))
}

// stop ends the process and its group, at first politely, and returns when it is gone. The group is signalled only while
// its leader has not been waited for, so that the number cannot belong to somebody else by then.
func (p *process) stop() {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if p.ended() {
			return
		}
		_ = syscall.Kill(-p.cmd.Process.Pid, signal) // fails only when the group has just ended
		select {
		case <-p.done:
		case <-time.After(stopGrace):
		}
	}
	<-p.done
}
