// Release makes what users of Hallmark download, of what `make release` has built: programs, an image layout and a chart.
//
//	release -binary dist/hallmark-linux-amd64 … -image dist/image -chart charts/hallmark -key cosign.key -out dist/release
//	release push -layout dist/release/hallmark-image.tar ghcr.io/hallmark-admission/hallmark
//
// Beside them it writes bills of materials (SPDX 2.3) of the programs and the image, SHA256SUMS, and the provenance of all
// (SLSA v1); with a key it signs them, and the image in both layouts in which cosign looks for signatures. SECURITY.md says how
// each is verified.
//
// The same input gives the same bytes. SHA256SUMS covers what does not depend on who makes the release, so anybody can make it
// again and compare: the image stands in it by its manifest, whose hash is the image's digest.
//
// It is a module of its own: what makes a release is not part of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	run := runMake
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "push" {
		run, args = runPush, args[1:]
	}
	err := run(ctx, args, os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// options are what a release is made of.
type options struct {
	binaries                         []string
	image, chart, out, module        string
	key, public                      string
	version, revision, repositoryArg string
	repository                       name.Repository
}

func runMake(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.Func("binary", "`file` built by go build from the commit; may be repeated, once a platform", func(name string) error {
		o.binaries = append(o.binaries, name)
		return nil
	})
	flags.StringVar(&o.image, "image", "", "`directory` with the image's OCI layout, as test/image writes it")
	flags.StringVar(&o.chart, "chart", "", "`directory` of the chart; none when empty")
	flags.StringVar(&o.out, "out", "", "`directory` to write, made anew")
	flags.StringVar(&o.module, "module", "../..", "`directory` of the module that the binaries are built from")
	flags.StringVar(&o.key, "key", "", "`file` with the private key to sign with; its password in "+passwordVariable+"; unsigned when empty")
	flags.StringVar(&o.public, "public", "", "`file` with the public key that users know, which has to be that of -key")
	flags.StringVar(&o.version, "version", "", "`version`, the tag of the commit")
	flags.StringVar(&o.revision, "revision", "", "`commit`, whole")
	flags.StringVar(&o.repositoryArg, "repository", "ghcr.io/hallmark-admission/hallmark", "`repository` that the image is published in")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := o.check(flags.Args()); err != nil {
		return err
	}
	r, err := newRelease(o)
	if err != nil {
		return err
	}
	return r.write(ctx, out)
}

var (
	wholeCommit = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
	imageTag    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

// check reports everything that is wrong with the flags at once.
func (o *options) check(rest []string) (err error) {
	wrong := func(format string, args ...any) { err = errors.Join(err, fmt.Errorf(format, args...)) }
	if len(rest) > 0 {
		wrong("unexpected argument %q", rest[0])
	}
	if len(o.binaries) == 0 {
		wrong("-binary is missing")
	}
	for flag, value := range map[string]string{"-image": o.image, "-out": o.out} {
		if value == "" {
			wrong("%s is missing", flag)
		}
	}
	if !wholeCommit.MatchString(o.revision) {
		wrong("-revision: %q is not a whole commit; make release needs a git checkout", o.revision)
	}
	if !imageTag.MatchString(o.version) {
		wrong("-version: %q cannot be the tag of an image", o.version)
	}
	if o.public != "" && o.key == "" {
		wrong("-public says whose key it has to be, and there is no -key")
	}
	var bad error
	if o.repository, bad = name.NewRepository(o.repositoryArg, name.StrictValidation); bad != nil {
		wrong("-repository: %w", bad)
	}
	return err
}

func runPush(ctx context.Context, args []string, out io.Writer) error {
	var from string
	flags := flag.NewFlagSet("push", flag.ContinueOnError)
	flags.StringVar(&from, "layout", "", "`file` hallmark-image.tar of a release, or a directory with an OCI layout")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if from == "" || flags.NArg() != 1 {
		return errors.New("usage: release push -layout FILE REPOSITORY")
	}
	if strings.HasSuffix(from, ".tar") {
		dir, err := os.MkdirTemp("", "hallmark-image-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := unpackTar(from, dir); err != nil {
			return fmt.Errorf("unpack %s: %w", from, err)
		}
		from = dir
	}
	return push(ctx, from, flags.Arg(0), out)
}
