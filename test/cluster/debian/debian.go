// Package debian fetches the programs of a node that are no Go modules (containerd, runc, CNI plugins, nft) as packages
// of the machine's own Debian or Ubuntu, and unpacks them into a cache. Nothing is installed: the machine stays as it is.
//
// apt checks the packages as always. Its lists and what it downloads are kept apart from the machine's.
package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hallmark-admission/hallmark/test/cluster/binaries"
)

// CacheVariable names the environment variable that moves the cache.
const CacheVariable = "HALLMARK_NODE_CACHE"

// recipe is part of the key. Raise it when what is kept changes.
const recipe = "1"

// packages, and what each depends on that the machine does not have.
func packages() []string {
	return []string{"containerd", "runc", "containernetworking-plugins", "nftables"}
}

// programs are what the packages are for.
func programs() []string { return []string{"containerd", "containerd-shim-runc-v2", "runc", "nft"} }

// Root is where the packages are unpacked.
type Root struct{ dir string }

// At is the root in a directory that Dir named, or a link to it.
func At(dir string) Root { return Root{dir} }

// Dir is the directory.
func (r Root) Dir() string { return r.dir }

// Ensure gives the packages, after downloading them if they are not in the cache.
func Ensure(ctx context.Context, progress io.Writer) (Root, error) {
	cache, err := binaries.CacheDir(CacheVariable, "node")
	if err != nil {
		return Root{}, err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return Root{}, fmt.Errorf("find out which Debian this is: %w", err)
	}
	architecture, err := output(ctx, "dpkg", "--print-architecture")
	if err != nil {
		return Root{}, fmt.Errorf("this is no Debian: %w", err)
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%s", recipe, release, architecture, packages()))
	root := Root{filepath.Join(cache, hex.EncodeToString(key[:8]))}
	if _, err := os.Stat(root.dir); err == nil {
		return root, root.check()
	}
	fmt.Fprintf(progress, "download %s into %s\n", strings.Join(packages(), ", "), root.dir)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Root{}, err
	}
	temporary, err := os.MkdirTemp(cache, ".download-")
	if err != nil {
		return Root{}, err
	}
	defer os.RemoveAll(temporary)
	if err := download(ctx, temporary); err != nil {
		return Root{}, err
	}
	unpacked := Root{filepath.Join(temporary, "root")}
	if err := unpack(ctx, filepath.Join(temporary, "archives"), unpacked.dir); err != nil {
		return Root{}, err
	}
	if err := unpacked.check(); err != nil {
		return Root{}, err
	}
	if err := os.Rename(unpacked.dir, root.dir); err != nil && !errors.Is(err, os.ErrExist) { // or another run was faster
		return Root{}, err
	}
	return root, root.check()
}

// download leaves the packages in dir/archives.
func download(ctx context.Context, dir string) error {
	for _, name := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	apt := []string{
		"-q", "-o", "Dir::State::lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache::archives=" + filepath.Join(dir, "archives"),
		"-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-o", "Debug::NoLocking=1",
		"-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3",
	}
	if _, err := output(ctx, "apt-get", append(slices.Clone(apt), "update")...); err != nil {
		return err
	}
	install := slices.Concat(apt, []string{"install", "--yes", "--no-install-recommends", "--download-only"}, packages())
	_, err := output(ctx, "apt-get", install...)
	return err
}

func unpack(ctx context.Context, archives, root string) error {
	files, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return err
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		if _, err := output(ctx, "dpkg-deb", "--extract", file, root); err != nil {
			return err
		}
	}
	return nil
}

// check finds what is neither among the packages nor on the machine.
func (r Root) check() error {
	var errs []error
	for _, name := range programs() {
		if _, err := r.Program(name); err != nil {
			errs = append(errs, err)
		}
	}
	_, err := r.CNI()
	return errors.Join(append(errs, err)...)
}

// Path is the PATH with the programs, the machine's behind them.
func (r Root) Path() string {
	return strings.Join([]string{r.join("usr/sbin"), r.join("usr/bin"), r.join("sbin"), r.join("bin"), os.Getenv("PATH")}, ":")
}

// LibraryPath is the LD_LIBRARY_PATH that the programs need.
func (r Root) LibraryPath() string {
	var dirs []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		found, _ := filepath.Glob(r.join(pattern)) // the pattern is well formed
		dirs = append(dirs, found...)
	}
	return strings.Join(dirs, ":")
}

// Program is the path of a program.
func (r Root) Program(name string) (string, error) {
	for _, dir := range filepath.SplitList(r.Path()) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is neither on this machine nor in %s", name, r.dir)
}

// CNI is the directory of the CNI plugins.
func (r Root) CNI() (string, error) {
	for _, dir := range []string{r.join("usr/lib/cni"), "/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("CNI plugins are neither on this machine nor in %s", r.dir)
}

func (r Root) join(path string) string { return filepath.Join(r.dir, path) }

// output runs a command and says, if it fails, what it said.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, args[len(args)-1], err, out, said.String())
	}
	return strings.TrimSpace(string(out)), nil
}
