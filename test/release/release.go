package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
)

// A release is everything that it is made of, read and checked.
type release struct {
	options
	programs []binary
	contents image
	created  time.Time
	signer   *key // nil signs nothing
	licenses *licenses
	sums     []file // what SHA256SUMS covers
}

func newRelease(o options) (*release, error) {
	r := &release{options: o}
	var errs []error
	for _, path := range o.binaries {
		b, err := readBinary(path)
		if err == nil {
			err = b.checkCommit(o.revision)
		}
		errs = append(errs, err)
		r.programs = append(r.programs, b)
	}
	var err error
	if r.contents, err = readImage(o.image); err == nil {
		r.created, err = r.contents.check(o.version, o.revision)
	}
	errs = append(errs, err)
	if o.key != "" {
		r.signer, err = readKey(o.key)
		if err == nil && o.public != "" {
			err = r.signer.mustBe(o.public)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(r.programs, func(a, b binary) int { return strings.Compare(a.name, b.name) })
	r.licenses, err = newLicenses(o.module)
	return r, err
}

// write makes the directory anew, and says what stands in it.
func (r *release) write(ctx context.Context, out io.Writer) error {
	if err := replaceRelease(r.out); err != nil {
		return err
	}
	bills, err := r.writeArtifacts(ctx)
	if err != nil {
		return err
	}
	sums := sumsOf(r.sums)
	provenance, err := r.provenance()
	if err != nil {
		return err
	}
	err = errors.Join(r.put("SHA256SUMS", sums), r.put("provenance.json", provenance))
	if err != nil {
		return err
	}
	if err := r.writeSigned(ctx, sums, provenance, bills); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s%s %s:%s\n", sums, r.contents.top.Digest, r.repository, r.version)
	if r.signer == nil && err == nil {
		_, err = fmt.Fprintln(out, "NOT SIGNED: there is no key")
	}
	return err
}

// writeArtifacts writes what SHA256SUMS covers, and gives the bills of materials of the image's digests.
func (r *release) writeArtifacts(ctx context.Context) (map[v1.Hash][]byte, error) {
	for _, b := range r.programs {
		if err := r.licenses.read(ctx, b.info.Deps); err != nil {
			return nil, err
		}
		bill, err := billOfBinary(r.licenses, b, r.version, r.created)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(r.release(file{b.name, b.content}), r.release(file{b.name + ".spdx.json", bill})); err != nil {
			return nil, err
		}
	}
	if r.chart != "" {
		packed, err := packChart(r.chart, stamp{r.version, r.repository.Name(), r.contents.top.Digest.String(), r.created})
		if err != nil {
			return nil, err
		}
		if err := r.release(packed); err != nil {
			return nil, err
		}
	}
	bills := map[v1.Hash][]byte{}
	for _, p := range r.contents.platforms {
		err := r.licenses.read(ctx, p.binary.info.Deps)
		if err != nil {
			return nil, err
		}
		if bills[p.digest], err = billOfPlatform(r.licenses, p, r.version, r.repository.Name(), r.created); err != nil {
			return nil, err
		}
	}
	whole, err := billOfImage(r.licenses, r.contents, r.version, r.repository.Name(), r.created)
	if err != nil {
		return nil, err
	}
	bills[r.contents.top.Digest] = whole
	return bills, errors.Join(r.release(file{"hallmark-image.json", r.contents.manifest}), r.release(file{"hallmark-image.spdx.json", whole}))
}

// provenance is one statement about all files and all digests of the image.
func (r *release) provenance() ([]byte, error) {
	made := build{version: r.version, commit: r.revision, binaries: r.programs}
	for _, p := range r.contents.platforms {
		for _, f := range p.files {
			if strings.HasSuffix(f.name, "ca-certificates.crt") {
				made.certificates = f
			}
		}
	}
	var subjects []subject
	for _, d := range r.contents.digests() {
		subjects = append(subjects, subject{r.repository.Name(), map[string]string{"sha256": d.Digest.Hex}})
	}
	for _, f := range r.sums {
		subjects = append(subjects, subject{f.name, map[string]string{"sha256": sha256Hex(f.content)}})
	}
	return made.statement(subjects)
}

// writeSigned writes the image and, with a key, all that is signed. None of it is in SHA256SUMS.
func (r *release) writeSigned(ctx context.Context, sums, provenance []byte, bills map[v1.Hash][]byte) error {
	dir, err := os.MkdirTemp("", "hallmark-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	signed, err := newSignedLayout(filepath.Join(dir, "image"), r.contents, r.version)
	if err != nil {
		return err
	}
	if r.signer != nil {
		signed.key, signed.repository, signed.created = r.signer, r.repository, r.created
		for _, of := range r.contents.digests() {
			bill, err := newStatement(spdxPredicate, bills[of.Digest], subject{r.repository.Name(), map[string]string{"sha256": of.Digest.Hex}})
			if err != nil {
				return err
			}
			said := []attestation{{spdxPredicate, bill}, {provenancePredicate, provenance}}
			if err := signed.add(ctx, of, of.Digest == r.contents.top.Digest, said); err != nil {
				return fmt.Errorf("sign %s: %w", of.Digest, err)
			}
		}
		if err := r.signFiles(ctx, sums, provenance); err != nil {
			return err
		}
	}
	files, err := readTree(filepath.Join(dir, "image"))
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := writeTar(&archive, files, r.created); err != nil {
		return err
	}
	return r.put("hallmark-image.tar", archive.Bytes())
}

// signFiles signs SHA256SUMS for openssl and for cosign, and the provenance.
func (r *release) signFiles(ctx context.Context, sums, provenance []byte) error {
	signature, err := r.signer.sign(sums)
	if err != nil {
		return err
	}
	bundle, err := r.signer.bundle(ctx, &sign.PlainData{Data: sums})
	if err != nil {
		return err
	}
	attested, err := r.signer.bundle(ctx, &sign.DSSEData{Data: provenance, PayloadType: inTotoPayload})
	return errors.Join(err,
		r.put("SHA256SUMS.sig", []byte(base64.StdEncoding.EncodeToString(signature)+"\n")),
		r.put("SHA256SUMS.sigstore.json", bundle), r.put("provenance.sigstore.json", attested), r.put("hallmark.pub", r.signer.public))
}

// release writes a file that SHA256SUMS covers.
func (r *release) release(f file) error {
	r.sums = append(r.sums, f)
	return r.put(f.name, f.content)
}

func (r *release) put(name string, content []byte) error {
	mode := os.FileMode(0o644)
	if slices.ContainsFunc(r.programs, func(b binary) bool { return b.name == name }) {
		mode = 0o755
	}
	return os.WriteFile(filepath.Join(r.out, name), content, mode)
}

// sumsOf writes hashes as sha256sum does.
func sumsOf(files []file) []byte {
	files = slices.SortedFunc(slices.Values(files), func(a, b file) int { return strings.Compare(a.name, b.name) })
	var text bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&text, "%s  %s\n", sha256Hex(f.content), f.name)
	}
	return text.Bytes()
}

// replaceRelease removes an older release, and nothing else.
func replaceRelease(dir string) error {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, "SHA256SUMS")); err != nil {
			return fmt.Errorf("%s holds something other than a release; empty it, or choose another with -out", dir)
		}
		err = os.RemoveAll(dir)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}
