package signature

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"golang.org/x/sync/errgroup"

	"github.com/hallmark-admission/hallmark/webhook"
)

const (
	// parallelPayloads bounds how many payloads of one image are read at a time.
	parallelPayloads = 8
	// maxNamed bounds how many signatures by keys that were not asked for are held against the other keys, which only
	// serves the message.
	maxNamed = 8
)

// A request is for an image, and the keys of all signers that its rules name.
type request struct {
	ref   webhook.Reference
	rules []webhook.SignatureRule
	asked []key
}

// A search looks for the signers asked for among what is attached to one digest. Its goroutines end before it does.
type search struct {
	verifier *Verifier
	request
	hash   v1.Hash
	cancel context.CancelFunc

	mu       sync.Mutex
	valid    map[string]webhook.Signature
	rejected map[reason]int
	named    int
	unlooked error // the first failure that leaves open what a signature is
}

func (v *Verifier) search(ctx context.Context, r request, attached []attachment) (webhook.Signatures, error) {
	hash, err := v1.NewHash(r.ref.Digest)
	if err != nil {
		return webhook.Signatures{}, fmt.Errorf("signature: digest of %s: %w", r.ref, err)
	}
	searchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &search{
		verifier: v, request: r, hash: hash, cancel: cancel,
		valid: map[string]webhook.Signature{}, rejected: map[reason]int{},
	}
	// Signatures over the same payload share its layer's content; it is read once.
	var payloads []string
	byPayload := map[string][]attachment{}
	for _, a := range attached {
		switch {
		case a.broken != "":
			s.reject(a.broken, 1)
			continue
		case a.size > v.payloadBytes:
			s.reject(tooLarge, 1)
			continue
		case byPayload[a.payload] == nil:
			payloads = append(payloads, a.payload)
		}
		byPayload[a.payload] = append(byPayload[a.payload], a)
	}
	var group errgroup.Group
	group.SetLimit(parallelPayloads)
	for _, digest := range payloads {
		if searchCtx.Err() != nil {
			break
		}
		group.Go(func() error {
			s.try(searchCtx, digest, byPayload[digest])
			return nil
		})
	}
	_ = group.Wait() // try reports nothing that way
	return s.result(ctx, len(attached))
}

// result says what was found. Nobody is told that an image is unsigned when a signature could not be looked at.
func (s *search) result(ctx context.Context, found int) (webhook.Signatures, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	result := webhook.Signatures{Found: found}
	for _, name := range slices.Sorted(maps.Keys(s.valid)) {
		result.Valid = append(result.Valid, s.valid[name])
	}
	switch {
	case s.complete():
		// What else there is was not all looked at, and does not matter.
		return result, nil
	case ctx.Err() != nil:
		return webhook.Signatures{}, ctx.Err()
	case s.unlooked != nil:
		return webhook.Signatures{}, s.unlooked
	}
	result.Rejected = tell(s.rejected)
	return result, nil
}

// complete says whether every rule is satisfied.
func (s *search) complete() bool {
	found := slices.Collect(maps.Values(s.valid))
	return !slices.ContainsFunc(s.rules, func(rule webhook.SignatureRule) bool { return !rule.Satisfied(found) })
}

// try reads a payload and judges the signatures over it.
func (s *search) try(ctx context.Context, digest string, signatures []attachment) {
	body, err := s.verifier.fetch.Blob(ctx, s.ref, digest, s.verifier.payloadBytes)
	if err != nil {
		why, looked := unreadReason(err)
		s.reject(why, len(signatures))
		if !looked {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.unlooked == nil && ctx.Err() == nil {
				s.unlooked = err
			}
		}
		return
	}
	for _, signature := range signatures {
		if ctx.Err() != nil {
			return
		}
		s.judge(ctx, body, signature.base64)
	}
}

// unreadReason says why a payload is not there, and whether that is an answer: what is missing or broken will not
// become a signature, what could not be reached might be one.
func unreadReason(err error) (why reason, looked bool) {
	var read *webhook.ReadError
	if errors.As(err, &read) {
		switch read.Failure {
		case webhook.NotFound:
			return missing, true
		case webhook.Invalid:
			return tampered, true
		}
	}
	return unread, false
}

// judge holds one signature against the keys that were asked for.
func (s *search) judge(ctx context.Context, body []byte, base64 string) {
	for _, k := range s.asked {
		err := s.verify(ctx, k, body, base64)
		var claimed *claimError
		switch {
		case err == nil:
			s.accept(k)
			return
		case errors.As(err, &claimed):
			s.reject(claimed.reason, 1)
			return
		}
	}
	s.reject(s.nameOf(ctx, body, base64), 1)
}

// nameOf says whose signature it is that was not asked for.
func (s *search) nameOf(ctx context.Context, body []byte, base64 string) reason {
	s.mu.Lock()
	s.named++
	enough := s.named > maxNamed
	s.mu.Unlock()
	if enough {
		return unknownKey
	}
	for _, name := range slices.Sorted(maps.Keys(s.verifier.keys)) {
		if slices.ContainsFunc(s.asked, func(k key) bool { return k.name == name }) {
			continue
		}
		var claimed *claimError
		if err := s.verify(ctx, s.verifier.keys[name], body, base64); err == nil || errors.As(err, &claimed) {
			return by(name)
		}
	}
	return unknownKey
}

// verify checks one signature with one key, in each way in which cosign has signed with such a key.
func (s *search) verify(ctx context.Context, k key, body []byte, base64 string) (err error) {
	for _, with := range k.verifiers {
		if err = s.verifyWith(ctx, with, body, base64); err == nil {
			return nil
		}
		var claimed *claimError
		if errors.As(err, &claimed) {
			return err
		}
	}
	return err
}

// verifyWith leaves the verification to cosign, without any of the annotations that its parsers have panicked on. A
// panic is a signature that does not verify.
func (s *search) verifyWith(ctx context.Context, with sigstore.Verifier, body []byte, base64 string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("signature: cosign panicked: %T", p)
		}
	}()
	signature, err := static.NewSignature(body, base64)
	if err != nil {
		return err
	}
	_, err = cosign.VerifyImageSignature(ctx, signature, s.hash, &cosign.CheckOpts{
		SigVerifier:   with,
		ClaimVerifier: claimVerifier(s.ref, s.verifier.bindIdentity),
		IgnoreTlog:    true, // a static key is trusted without a transparency log
		Offline:       true,
	})
	return err
}

func (s *search) accept(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.valid[k.name] = webhook.Signature{Signer: k.name, Digest: s.ref.Digest}
	if s.complete() {
		s.cancel()
	}
}

func (s *search) reject(why reason, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejected[why] += n
}
