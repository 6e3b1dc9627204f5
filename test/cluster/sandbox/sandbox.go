package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

const (
	// Address is the address of the sandbox, on its loopback interface, for those to whom 127.0.0.1 is themselves: pods.
	Address = "10.77.0.2"

	stageVariable = "HALLMARK_SANDBOX_STAGE"
	dirVariable   = "HALLMARK_SANDBOX_DIR"
	stageInit     = "init"
	stageInside   = "inside"
)

// Config is what runs outside and inside.
type Config struct {
	// Prepare is called outside, where the network is, with an empty directory. Its context ends with an interrupt.
	Prepare func(ctx context.Context, dir string) error
	// Main is called inside, with the same directory. Its result is that of Run.
	Main func(dir string) int
}

// Run does all that the package says and returns an exit status. The directory is removed; but after a failure the logs
// in it are kept, and their place printed.
func Run(config Config) int {
	switch os.Getenv(stageVariable) {
	case stageInit:
		status, err := runInit()
		return report("init", status, err)
	case stageInside:
		return config.Main(os.Getenv(dirVariable))
	}
	status, err := runOutside(config)
	return report("outside", status, err)
}

func report(stage string, status int, err error) int {
	if err == nil {
		return status
	}
	fmt.Fprintf(os.Stderr, "sandbox: %s: %v\n", stage, err)
	return max(status, 1)
}

// Check says why this machine cannot make a sandbox, or nil. It makes one, in which nothing runs.
func Check() error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces with a node in them need root")
	}
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if out, err := probe.CombinedOutput(); err != nil {
		return fmt.Errorf("new namespaces are not allowed here: %w %s", err, out)
	}
	if _, err := os.Stat(cgroupRoot); err != nil {
		return fmt.Errorf("cgroups are not mounted: %w", err)
	}
	return nil
}

const namespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS

func runOutside(config Config) (status int, err error) {
	if err := Check(); err != nil {
		return 1, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := removeStale(); err != nil {
		return 1, fmt.Errorf("remove what a killed run left: %w", err)
	}
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return 1, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return 1, err
	}
	defer unlock()
	defer func() {
		err = errors.Join(err, removeCgroups(CgroupParent(dir)), clean(dir, status != 0 || err != nil))
	}()
	if err := config.Prepare(ctx, dir); err != nil {
		return 1, fmt.Errorf("prepare: %w", err)
	}
	if err := createCgroups(CgroupParent(dir)); err != nil {
		return 1, err
	}
	// The kernel takes the thread for the parent on whose death the child dies, so it must live as long as this.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child := again(stageInit)
	child.Env = append(child.Env, dirVariable+"="+dir)
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		return 1, fmt.Errorf("start in new namespaces: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done(): // an interrupt at a terminal reaches all by itself; any other has to be handed on
			_ = child.Process.Signal(syscall.SIGTERM)
		case <-ended:
		}
	}()
	err = child.Wait()
	close(ended)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if exit.Exited() {
			return exit.ExitCode(), nil
		}
		return 1, fmt.Errorf("what ran in the namespaces: %w", err)
	}
	return 0, err
}

const (
	prefix   = "hallmark-node-"
	lockName = "lock"
)

// lock marks a directory as in use until unlock, or the end of this process. It fails when somebody else does.
func lock(dir string) (unlock func(), err error) {
	file, err := os.Create(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// removeStale removes directories and cgroups of runs that were killed. Logs that were kept on purpose have no lock.
func removeStale() error {
	locks, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*", lockName))
	errs := []error{err}
	for _, path := range locks {
		dir := filepath.Dir(path)
		unlock, err := lock(dir)
		if err != nil {
			continue // it is in use
		}
		errs = append(errs, removeCgroups(CgroupParent(dir)), os.RemoveAll(dir))
		unlock()
	}
	return errors.Join(errs...)
}

// again is this program once more, for another stage.
func again(stage string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), stageVariable+"="+stage)
	return c
}

// LogDir is the part of a directory that is kept after a failure.
func LogDir(dir string) string { return filepath.Join(dir, "logs") }

// clean removes the directory, all of it or all but the logs.
func clean(dir string, keepLogs bool) error {
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if keepLogs && path == LogDir(dir) {
			fmt.Fprintf(os.Stderr, "sandbox: logs are kept in %s\n", path)
			continue
		}
		errs = append(errs, os.RemoveAll(path))
	}
	if err := os.Remove(dir); err != nil && !keepLogs {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
