// Image writes the container image of Hallmark as an OCI layout, without a container engine and without a network. The
// root filesystem is that of the Dockerfile: the static binary, the system's CA certificates, a user and /tmp.
//
//	go run ./test/image -binary bin/hallmark -out dist/image
//	go run ./test/image -binary hallmark-amd64 -binary hallmark-arm64 -out dist/image    one image index
//
// The same input gives the same digest, which it prints: nothing in the image depends on when, where or as whom it was
// made. The one date in it is SOURCE_DATE_EPOCH, or else that of the commit.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var c contents
	var binaries []string
	var dir, ca string
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.Func("binary", "static `file` for Linux; may be repeated, once a platform", func(name string) error {
		binaries = append(binaries, name)
		return nil
	})
	flags.StringVar(&ca, "ca", "/etc/ssl/certs/ca-certificates.crt", "`file` with the CA certificates, PEM")
	flags.StringVar(&dir, "out", "dist/image", "`directory` of the OCI layout")
	flags.StringVar(&c.version, "version", "dev", "`version` for the labels")
	flags.StringVar(&c.revision, "revision", "", "`commit` for the labels")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	var errs []error
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	if len(binaries) == 0 {
		errs = append(errs, errors.New("-binary is missing"))
	}
	for _, name := range binaries {
		b, err := readBinary(name)
		c.binaries, errs = append(c.binaries, b), append(errs, err)
	}
	var err error
	c.certificates, err = readCertificates(ca)
	errs = append(errs, err)
	c.created, err = sourceDate(ctx, os.Getenv("SOURCE_DATE_EPOCH"))
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	digest, err := write(dir, c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, digest)
	return err
}

// readCertificates reads a bundle and makes sure that it is one: an image without it cannot reach a registry.
func readCertificates(name string) ([]byte, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no CA certificates in %s: install the package ca-certificates, or name your bundle with -ca", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read CA certificates: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no CA certificate in PEM", name)
	}
	return text, nil
}

// sourceDate is the one date in the image (https://reproducible-builds.org/specs/source-date-epoch).
func sourceDate(ctx context.Context, epoch string) (time.Time, error) {
	if epoch == "" {
		out, err := exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("the date of the commit is not known: set SOURCE_DATE_EPOCH (git: %w)", err)
		}
		epoch = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds since 1970", epoch)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
