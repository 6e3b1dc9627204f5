package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Content is what a registry holds under one digest: an image, or an index with an image for each platform.
type Content struct {
	Digest    string     // "sha256:…" of the manifest or index that was asked for
	MediaType string     // as in the manifest itself, or as served when the manifest has none
	Platforms []Platform // one for a plain image; empty when only the digest was asked for
	Before    string     // what the tag named until a moment ago, which still counts; "" for nothing else
	Stale     time.Time  // when the tag named the digest, if its registry fails and this is the last answer; else zero
}

// A Platform is one runnable image.
type Platform struct {
	OS, Architecture, Variant string
	Digest                    string            // of this platform's manifest
	User                      string            // config.User as written: "", "1000", "1000:1000", "coder"
	Labels                    map[string]string // config.Labels
	EnvNames                  []string          // names of config.Env, sorted; never the values
	Created                   time.Time         // zero when the image does not say
	Layers                    []string          // diff IDs, the base first
	BaseDigest                string            // of the image that it says it is built on (org.opencontainers.image.base.digest); "" for none
}

// Name is "linux/amd64" or "linux/arm/v7".
func (p Platform) Name() string {
	if p.Variant == "" {
		return p.OS + "/" + p.Architecture
	}
	return p.OS + "/" + p.Architecture + "/" + p.Variant
}

// Depth says how much of an image is to be read.
type Depth int

const (
	DigestOnly Depth = iota // the manifest alone: one request
	WithConfig              // the manifests and configs of all platforms too
)

// An ImageReader reads an image from its registry: by digest when the reference has one, else by tag. Every byte is
// checked against its digest. Errors are *ReadError, or those of ctx.
type ImageReader interface {
	ReadImage(ctx context.Context, ref Reference, depth Depth) (*Content, error)
}

// ImageReaderFunc is a function as an ImageReader.
type ImageReaderFunc func(ctx context.Context, ref Reference, depth Depth) (*Content, error)

// ReadImage calls f.
func (f ImageReaderFunc) ReadImage(ctx context.Context, ref Reference, depth Depth) (*Content, error) {
	return f(ctx, ref, depth)
}

// A Manifest is a manifest as a registry holds it; Digest is proved by Body.
type Manifest struct {
	Digest    string
	MediaType string
	Body      []byte
	Stale     time.Time // as of Content
}

// ReadFailure classifies why something could not be read.
type ReadFailure int

const (
	Unavailable  ReadFailure = iota // no answer, 5xx, 429: trying again may help
	NotFound                        // the registry says that it has no such thing
	Unauthorized                    // 401 or 403
	Invalid                         // what came is broken, too large, or not what was asked for
	NotAllowed                      // the configuration does not allow contacting it
)

// A ReadError says why an image, a config or a signature could not be read.
type ReadError struct {
	Failure  ReadFailure
	Registry string // the host
	Reason   string // for a developer, continues the host: "did not answer within 3s", "has no such tag"
	Err      error  // the cause, for the log; may be nil
}

// Error gives host and reason, and the cause.
func (e *ReadError) Error() string {
	if e.Err == nil {
		return e.Registry + " " + e.Reason
	}
	return fmt.Sprintf("%s %s: %v", e.Registry, e.Reason, e.Err)
}

// Unwrap gives the cause.
func (e *ReadError) Unwrap() error { return e.Err }

// unknownOf words an error of a reader, a verifier or a puller as a fact that is unknown.
func unknownOf(fact Fact, ref Reference, err error) Unknown {
	var read *ReadError
	var pull *PullError
	switch {
	case errors.As(err, &pull):
		return Unknown{Fact: fact, Reason: pull.Reason, Retry: pull.Retry}
	case errors.As(err, &read):
		return Unknown{
			Fact: fact, Reason: read.Registry + " " + read.Reason,
			Retry: read.Failure == Unavailable, Missing: read.Failure == NotFound,
		}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Unknown{Fact: fact, Reason: ref.Registry + " did not answer in time", Retry: true}
	default:
		return Unknown{Fact: fact, Reason: "internal error", Retry: true}
	}
}
