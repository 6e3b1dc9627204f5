package sandbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/cluster/sandbox"
)

// roleVariable has this test binary be what runs in a sandbox: "ends" or "stays".
const roleVariable = "HALLMARK_SANDBOX_TEST"

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	os.Exit(sandbox.Run(sandbox.Config{
		Prepare: func(_ context.Context, dir string) error {
			return os.WriteFile(filepath.Join(dir, "prepared"), nil, 0o600)
		},
		Main: func(dir string) int { return inside(role, dir) },
	}))
}

// inside prints what it sees, one line each, and a process that stays behind it.
func inside(role, dir string) int {
	_, err := os.Stat(filepath.Join(dir, "prepared"))
	fmt.Println("prepared", err == nil)
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		if i.Flags&net.FlagUp != 0 {
			addresses, _ := i.Addrs()
			fmt.Println("network", i.Name, addresses)
		}
	}
	entries, _ := os.ReadDir("/var/lib")
	fmt.Println("state", len(entries))
	resolver, _ := os.ReadFile("/etc/resolv.conf")
	fmt.Println("resolver", strings.TrimSpace(string(resolver)))
	before, _ := os.ReadFile("/proc/sys/kernel/panic")
	err = os.WriteFile("/proc/sys/kernel/panic", []byte("7\n"), 0o600)
	fmt.Println("setting", strings.TrimSpace(string(before)), err)
	// An orphan of an orphan, in a session of its own, whom no parent takes along.
	err = exec.Command("setsid", "sh", "-c", "sleep 1000.5 & exit 0").Run()
	fmt.Println("orphan", err)
	if role == "stays" {
		fmt.Println("stays", os.Getpid())
		time.Sleep(time.Minute)
	}
	return 5
}

// run starts this binary in a role.
func run(t *testing.T, role string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	if err := sandbox.Check(); err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestInside: nothing but loopback, none of the machine's state, the status of what ran, and nothing left.
func TestInside(t *testing.T) {
	panicSetting, err := os.ReadFile("/proc/sys/kernel/panic")
	if err != nil {
		t.Fatal(err)
	}
	cmd, lines := run(t, "ends")
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
	}
	want := []string{
		"prepared true",
		"network lo [127.0.0.1/8 " + sandbox.Address + "/32 ::1/128]",
		"state 0",
		"resolver nameserver " + sandbox.Address,
		"setting 10 <nil>",
		"orphan <nil>",
	}
	if got, want := strings.Join(said, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("inside:\n got %s\nwant %s", got, want)
	}
	if exit := (*exec.ExitError)(nil); !errors.As(cmd.Wait(), &exit) || exit.ExitCode() != 5 {
		t.Errorf("status: got %v, want 5", exit)
	}
	if now, _ := os.ReadFile("/proc/sys/kernel/panic"); string(now) != string(panicSetting) {
		t.Errorf("kernel.panic of the machine: got %s, want %s", now, panicSetting)
	}
	if left := orphans(t); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

// TestKilled: everything ends with the test binary even when that is killed, and the next run removes its files.
func TestKilled(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // apart from other runs
	cmd, lines := run(t, "stays")
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "stays") {
		continue
	}
	if len(orphans(t)) == 0 {
		t.Fatal("nothing runs")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	deadline := time.Now().Add(10 * time.Second)
	for len(orphans(t)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("processes left: %v", orphans(t))
		}
	}
	before := leftovers(t, os.TempDir())
	if len(before) == 0 {
		t.Error("a killed run leaves nothing behind, so what follows shows nothing")
	}
	next, lines := run(t, "ends")
	for lines.Scan() {
		continue
	}
	_ = next.Wait() // with 5, as TestInside shows
	for _, path := range before {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left behind: %s", path)
		}
	}
}

// leftovers gives the directories of sandboxes in a directory for temporary files, and their cgroups.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "hallmark-node-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, sandbox := range found {
		cgroups, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", "*", filepath.Base(sandbox)))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, cgroups...)
	}
	return found
}

// orphans gives the processes that inside has started, wherever they are.
func orphans(t *testing.T) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, file := range files {
		command, err := os.ReadFile(file)
		if err != nil || string(command) != "sleep\x001000.5\x00" {
			continue // or it has just ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && syscall.Kill(pid, 0) == nil {
			found = append(found, pid)
		}
	}
	return found
}
