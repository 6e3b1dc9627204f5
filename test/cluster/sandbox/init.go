package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/vishvananda/netlink"
)

// runInit is process 1 of the namespaces.
func runInit() (status int, err error) {
	dir := os.Getenv(dirVariable)
	if err := errors.Join(mounts(dir), network()); err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	child := again(stageInside)
	if err := child.Start(); err != nil {
		return 1, err
	}
	go func() {
		for s := range signals {
			_ = child.Process.Signal(s)
		}
	}()
	return reap(child.Process.Pid)
}

// reap waits for whatever ends, as orphans become children of process 1, until the one process does.
func reap(pid int) (status int, err error) {
	for {
		var state syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &state, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait: %w", err)
		case ended != pid:
		case state.Exited():
			return state.ExitStatus(), nil
		default:
			return 1, fmt.Errorf("the tests ended by signal %s", state.Signal())
		}
	}
}

// mounts makes the mounts that the package comment names. The first line keeps all of them inside; the last has what
// kubelet mounts for a pod appear in containerd's and the pods' own namespaces.
func mounts(dir string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	resolver, err := filepath.EvalSymlinks("/etc/resolv.conf") // which may be below /run
	if err != nil {
		return fmt.Errorf("find the resolver's file: %w", err)
	}
	for _, path := range []string{"/run", "/var/log", "/var/lib"} {
		if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount an empty %s: %w", path, err)
		}
	}
	if err := settings(filepath.Join(dir, "settings")); err != nil {
		return err
	}
	if err := cover(resolver, filepath.Join(dir, "resolv.conf"), "nameserver "+Address); err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make the mounts shared: %w", err)
	}
	return nil
}

// settings puts files in the place of those settings that are the whole machine's and that kubelet insists on.
func settings(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		place := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(place); errors.Is(err, os.ErrNotExist) {
			continue // this kernel does not have it
		}
		if err := cover(place, filepath.Join(dir, filepath.Base(name)), value); err != nil {
			return err
		}
	}
	return nil
}

// cover has a line stand in the place of a file, which is made if need be.
func cover(place, file, line string) error {
	if err := os.WriteFile(file, []byte(line+"\n"), 0o644); err != nil {
		return err
	}
	if _, err := os.Stat(place); errors.Is(err, os.ErrNotExist) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(place), 0o755), os.WriteFile(place, nil, 0o644)); err != nil {
			return err
		}
	}
	if err := syscall.Mount(file, place, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount a file over %s: %w", place, err)
	}
	return nil
}

// network brings loopback up, with Address on it, and lets packets through between pods.
func network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	address, err := netlink.ParseAddr(Address + "/32")
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, address)); err != nil {
		return fmt.Errorf("bring the loopback interface up: %w", err)
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600)
}
