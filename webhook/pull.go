package webhook

import (
	"context"
	"errors"
	"sync"
)

// A Pull is what an object says of the credentials that its images are pulled with.
type Pull struct {
	Namespace      string   // of the request, whatever the object says
	ServiceAccount string   // "" is "default"
	Secrets        []string // names in spec.imagePullSecrets, "" among them when written so
}

// A Puller says by whom the images of one object are read and verified, when its own credentials count. It is asked once
// a request, and only when an image has to be fetched. Errors are *PullError, or those of ctx.
type Puller interface {
	Sources(ctx context.Context, pull Pull) (Sources, error)
}

// PullerFunc is a function as a Puller.
type PullerFunc func(ctx context.Context, pull Pull) (Sources, error)

// Sources calls f.
func (f PullerFunc) Sources(ctx context.Context, pull Pull) (Sources, error) {
	return f(ctx, pull)
}

// Sources are by whom images are read and verified.
type Sources struct {
	Reader   ImageReader
	Verifier Verifier
	Attester Attester
}

// A PullError says why the credentials of an object are not known.
type PullError struct {
	Reason string // a whole sentence for a developer: `the pull secret "corp" could not be read: …`
	Retry  bool   // trying again may help
	Err    error  // the cause, for the log; may be nil
}

// Error gives the reason, and the cause.
func (e *PullError) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *PullError) Unwrap() error { return e.Err }

// sources are found out once a request.
type sources struct {
	Sources
	once sync.Once
	err  error
}

// readImage reads as the object may.
func (v *review) readImage(ctx context.Context, ref Reference, depth Depth) (*Content, error) {
	s := v.asked(ctx)
	if s.err != nil {
		return nil, s.err
	}
	return s.Reader.ReadImage(ctx, ref, depth)
}

// verify verifies as the object may.
func (v *review) verify(ctx context.Context, ref Reference, rules []SignatureRule) (Signatures, error) {
	s := v.asked(ctx)
	if s.err != nil {
		return Signatures{}, s.err
	}
	return s.Verifier.Verify(ctx, ref, rules)
}

// attest looks for attestations as the object may.
func (v *review) attest(ctx context.Context, ref Reference, rules []AttestationRule) (Attestations, error) {
	s := v.asked(ctx)
	if s.err != nil {
		return Attestations{}, s.err
	}
	return s.Attester.Attest(ctx, ref, rules)
}

// asked gives the sources, which are found out for the first image that needs them. What is in no namespace has no
// credentials of its own.
func (v *review) asked(ctx context.Context) *sources {
	s := &v.sources
	s.once.Do(func() {
		if v.Puller == nil || v.request.Namespace == "" {
			s.Sources = Sources{v.Reader, v.Verifier, v.Attester}
			return
		}
		s.err = errors.New("the sources are not known") // should the puller panic
		s.Sources, s.err = v.Puller.Sources(ctx, v.object.spec.pull(v.request.Namespace))
	})
	return s
}

// pull: where serviceAccountName is empty, the older name of the field counts (k8s.io/kubernetes/pkg/apis/core/v1,
// Convert_v1_PodSpec_To_core_PodSpec).
func (s *podSpec) pull(namespace string) Pull {
	return Pull{
		Namespace: namespace, Secrets: s.pullSecrets, ServiceAccount: firstOf(s.serviceAccountName, s.serviceAccount),
	}
}
