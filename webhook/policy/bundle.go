package policy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
)

// MaxBundleBytes bounds an archive. Rules are text of some kilobytes, so this and the next two are far above real ones.
const MaxBundleBytes = 4 << 20

const (
	maxUnpacked    = 16 << 20 // bytes of all files of a bundle together
	maxBundleFiles = 2000
)

// A Bundle is what Hallmark takes from an OPA bundle. It never changes.
type Bundle struct {
	Source   Source   // its rules without their tests; the names begin with the bundle's
	Revision string   // as its manifest says; "" when it says none
	Roots    []string // paths of packages that are its own, without slashes at the ends; "" is all
	Digest   string   // "sha256:…" of Archive
	Archive  []byte   // as it was read
}

// BundleConfig says who signs the bundles of one place.
type BundleConfig struct {
	Name   string // of the bundle, in messages: its URL or its reference
	KeyPEM []byte // public key that signs it: ECDSA, or RSA for RS256; nil for bundles that nobody signs
	KeyID  string // name of the key that a signature has to give; "" is any
	Scope  string // that a signature has to have; "" is none
}

// A BundleReader reads the bundles of one place. It is safe for concurrent use.
type BundleReader struct {
	name         string
	verification *bundle.VerificationConfig // nil for bundles that nobody signs
}

// NewBundleReader checks the key.
func NewBundleReader(config BundleConfig) (*BundleReader, error) {
	r := &BundleReader{name: config.Name}
	if config.KeyPEM == nil {
		if config.KeyID != "" || config.Scope != "" {
			return nil, fmt.Errorf("bundle %s: a key id or a scope is given, and no key", config.Name)
		}
		return r, nil
	}
	key, err := verificationKey(config.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", config.Name, err)
	}
	// OPA looks the key up by the id that is configured, or else by the one in the signature, which it then has to have.
	const only = "key"
	if config.KeyID != "" {
		r.verification = bundle.NewVerificationConfig(map[string]*bundle.KeyConfig{config.KeyID: key}, "", config.Scope, nil)
	} else {
		r.verification = bundle.NewVerificationConfig(map[string]*bundle.KeyConfig{only: key}, only, config.Scope, nil)
	}
	return r, nil
}

// Signed says whether bundles are held against a key.
func (r *BundleReader) Signed() bool { return r.verification != nil }

// Read unpacks an archive and holds it against the key before anything in it is interpreted. Rules are parsed, not
// compiled. A bundle with data, WebAssembly or nothing is refused: leaving out a part could admit what it would deny.
func (r *BundleReader) Read(archive []byte) (read *Bundle, err error) {
	defer func() {
		// It comes from outside, and OPA's code is large.
		if p := recover(); p != nil {
			read, err = nil, fmt.Errorf("panic over the bundle: %T", p)
		}
		if err != nil {
			err = fmt.Errorf("read bundle %s: %w", r.name, err)
		}
	}()
	if len(archive) > MaxBundleBytes {
		return nil, fmt.Errorf("it has more than %d MiB", MaxBundleBytes>>20)
	}
	if err := checkArchive(archive); err != nil {
		return nil, err
	}
	reader := bundle.NewReader(bytes.NewReader(archive)).WithCapabilities(Capabilities()).WithRegoVersion(ast.RegoV1).
		WithSizeLimitBytes(maxUnpacked + 1)
	if r.verification != nil {
		reader = reader.WithBundleVerificationConfig(r.verification)
	} else {
		reader = reader.WithSkipBundleVerification(true)
	}
	b, err := reader.Read()
	if err != nil {
		return nil, err
	}
	source, err := r.rules(&b)
	if err != nil {
		return nil, err
	}
	return &Bundle{
		Source: source, Revision: b.Manifest.Revision, Roots: *b.Manifest.Roots,
		Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(archive)), Archive: archive,
	}, nil
}

// rules takes the rules out, and nothing else.
func (r *BundleReader) rules(b *bundle.Bundle) (Source, error) {
	switch {
	case b.Type() != bundle.SnapshotBundleType:
		return nil, errors.New("it is a delta bundle, and only whole ones are read")
	case len(b.Data) > 0:
		return nil, fmt.Errorf("it has data (%s), and only rules are read: write it into a rule",
			strings.Join(slices.Sorted(maps.Keys(b.Data)), ", "))
	case len(b.WasmModules)+len(b.PlanModules) > 0:
		return nil, errors.New("it has compiled rules; build it with opa build --target rego")
	}
	source := Source{}
	for _, module := range b.Modules {
		path := strings.TrimPrefix(module.RelativePath, "/")
		name := r.name + "/" + path
		if source[name] != nil {
			return nil, fmt.Errorf("it has %s twice", path)
		}
		if isRule(path) {
			source[name] = module.Raw
		}
	}
	if len(source) == 0 {
		return nil, errors.New("it has no rules")
	}
	return source, nil
}

// checkArchive bounds what unpacking takes: OPA's reader bounds one file, and keeps all of them in memory.
func checkArchive(archive []byte) error {
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return fmt.Errorf("it is not a gzipped archive: %w", err)
	}
	large := fmt.Errorf("it unpacks to more than %d MiB", maxUnpacked>>20)
	stream := &io.LimitedReader{R: unzipped, N: 2 * maxUnpacked} // with the headers of its files
	files := tar.NewReader(stream)
	left := int64(maxUnpacked)
	for count := 1; ; count++ {
		header, err := files.Next()
		switch {
		case stream.N <= 0:
			return large
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("it is not a tar archive: %w", err)
		case header.Size > left: // of a sparse file, what it would become
			return large
		case count > maxBundleFiles:
			return fmt.Errorf("it has more than %d files", maxBundleFiles)
		}
		left -= header.Size
	}
}

// AddBundles adds the rules of bundles. As in OPA no two may claim the same packages: who signs one cannot change the
// rules of the other.
func (s Source) AddBundles(bundles []*Bundle) error {
	for i, b := range bundles {
		for _, other := range bundles[:i] {
			for _, root := range b.Roots {
				if slices.ContainsFunc(other.Roots, func(o string) bool { return bundle.RootPathsOverlap(o, root) }) {
					return fmt.Errorf("two bundles claim the same packages (roots %q and %q): give each its own roots in .manifest",
						other.Roots, b.Roots)
				}
			}
		}
		maps.Copy(s, b.Source)
	}
	return nil
}
