package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/pullsecrets"
	"github.com/hallmark-admission/hallmark/webhook/registry"
)

// maxViews bounds the credentials of pods for which connections are kept, of all registries together.
const maxViews = 128

// A puller reads the images of a pod with the pod's own credentials where it has some, and with those of the
// configuration where it has none. What was read with credentials is remembered for whoever has the same ones, and for
// nobody else. Registries that fail or refuse do so for one set of credentials.
type puller struct {
	read   secretReader
	shared *view
	hosts  map[string]viewMaker

	closing sync.WaitGroup // of views that were dropped
	mutex   sync.Mutex
	views   *simplelru.LRU[string, *view] // by registry and hash of credentials; nil when closed
}

// A secretReader gives what a pod may show to registries: (*pullsecrets.Client).Read.
type secretReader func(ctx context.Context, pull webhook.Pull) (pullsecrets.Found, error)

// reporting tells the log what a developer is not told: the cause of a failure, and what was passed over in an image that
// could be read all the same.
func reporting(read secretReader, log *slog.Logger) secretReader {
	if log == nil {
		return read
	}
	return func(ctx context.Context, pull webhook.Pull) (pullsecrets.Found, error) {
		found, err := read(ctx, pull)
		if err != nil {
			log.WarnContext(ctx, "pull secrets could not be read", "namespace", pull.Namespace, "error", err)
		}
		for _, note := range found.Notes {
			log.WarnContext(ctx, "pull secret passed over", "namespace", pull.Namespace, "error", note)
		}
		return found, err
	}
}

// A viewMaker makes the view of one registry with credentials, whose hash is its scope.
type viewMaker func(hash string, credentials []byte) (*view, error)

func newPuller(read secretReader, shared *view, hosts map[string]viewMaker) *puller {
	p := &puller{read: read, shared: shared, hosts: hosts}
	views, err := simplelru.NewLRU(maxViews, func(_ string, dropped *view) { p.closing.Go(dropped.close) })
	if err != nil {
		panic(err) // only for a size below 1
	}
	p.views = views
	return p
}

// Sources implements webhook.Puller.
func (p *puller) Sources(ctx context.Context, pull webhook.Pull) (webhook.Sources, error) {
	found, err := p.read(ctx, pull)
	if err != nil {
		return webhook.Sources{}, err
	}
	s := &pulled{shared: p.shared, notes: found.Notes, own: map[string]*view{}}
	for host := range p.hosts {
		credentials, err := registry.PullCredentials(host, found.Configs)
		if err != nil {
			return webhook.Sources{}, &webhook.PullError{Reason: "a pull secret could not be used: " + err.Error()}
		}
		if credentials == nil {
			continue
		}
		if s.own[host], err = p.view(host, credentials); err != nil {
			return webhook.Sources{}, &webhook.PullError{Reason: "the pull secrets for " + host + " could not be used", Retry: true, Err: err}
		}
	}
	return webhook.Sources{Reader: s, Verifier: s, Attester: s}, nil
}

// view gives the view of a registry with credentials. Once the puller is closed, views are no longer kept, and their
// connections end by themselves.
func (p *puller) view(host string, credentials []byte) (*view, error) {
	sum := sha256.Sum256(credentials)
	hash := hex.EncodeToString(sum[:])
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.views == nil {
		return p.hosts[host](hash, credentials)
	}
	if known, ok := p.views.Get(host + " " + hash); ok {
		return known, nil
	}
	made, err := p.hosts[host](hash, credentials)
	if err == nil {
		p.views.Add(host+" "+hash, made)
	}
	return made, err
}

// close ends the connections with the credentials of pods.
func (p *puller) close() {
	p.mutex.Lock()
	if p.views != nil {
		p.views.Purge()
		p.views = nil
	}
	p.mutex.Unlock()
	p.closing.Wait()
}

// pulled reads and verifies for one pod.
type pulled struct {
	shared *view
	own    map[string]*view // by registry
	notes  []string         // on secrets that were passed over
}

func (p *pulled) view(ref webhook.Reference) *view {
	if own := p.own[ref.Registry]; own != nil {
		return own
	}
	return p.shared
}

// ReadImage implements webhook.ImageReader.
func (p *pulled) ReadImage(ctx context.Context, ref webhook.Reference, depth webhook.Depth) (*webhook.Content, error) {
	content, err := p.view(ref).reader.ReadImage(ctx, ref, depth)
	return content, p.explain(err)
}

// Verify implements webhook.Verifier.
func (p *pulled) Verify(
	ctx context.Context, ref webhook.Reference, rules []webhook.SignatureRule,
) (webhook.Signatures, error) {
	signatures, err := p.view(ref).verifier.Verify(ctx, ref, rules)
	return signatures, p.explain(err)
}

// Attest implements webhook.Attester.
func (p *pulled) Attest(
	ctx context.Context, ref webhook.Reference, rules []webhook.AttestationRule,
) (webhook.Attestations, error) {
	attestations, err := p.view(ref).verifier.Attest(ctx, ref, rules)
	return attestations, p.explain(err)
}

// explain adds to a refusal which secrets were passed over.
func (p *pulled) explain(err error) error {
	var read *webhook.ReadError
	if len(p.notes) == 0 || !errors.As(err, &read) || read.Failure != webhook.Unauthorized {
		return err
	}
	explained := *read
	explained.Reason = fmt.Sprintf("%s; %s", read.Reason, strings.Join(p.notes, "; "))
	return &explained
}
