// Stand is what the tests of the cosign programs need of the product's module: a registry to sign in, services for keyless
// signatures, and what the product says of an image in any registry. It is built from these files with the product's
// module, prints where they are as one line of JSON, and then answers every line on standard input with one.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

func main() {
	var config registrytest.Config
	flag.BoolVar(&config.Referrers, "referrers", false, "serve the referrers API")
	flag.BoolVar(&config.PlainHTTP, "plain", false, "serve HTTP without TLS")
	flag.Parse()
	if err := run(config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// An order is to push an image, to ask for the signatures or the attestations of one, or for the platforms of an index.
type order struct {
	Push      *push
	Ask       *question
	Platforms *manifest
}

type manifest struct{ Repository, Digest string }

type push struct {
	Repository, Tag string
	Index           bool // of two platforms
}

// A question is about an image in a registry; without rules for signatures it is about attestations.
type question struct {
	Image        string // with its digest
	CA           []byte
	PlainHTTP    bool
	Signers      map[string]signature.Signer
	Signatures   []webhook.SignatureRule
	Attestations []webhook.AttestationRule
}

type answer struct {
	Digest       string
	Platforms    []string // digests
	Signatures   webhook.Signatures
	Attestations webhook.Attestations
	Error        string
}

func run(config registrytest.Config) error {
	ctx := context.Background()
	served, err := registrytest.New(config)
	if err != nil {
		return err
	}
	defer served.Close()
	out := json.NewEncoder(os.Stdout)
	vouches, err := newSigstore()
	if err != nil {
		return err
	}
	server := httptest.NewServer(vouches.handler())
	defer server.Close()
	trusted, err := vouches.trustedRoot()
	if err != nil {
		return err
	}
	where := struct {
		Host            string
		CA, TrustedRoot []byte
		Sigstore        string
	}{served.Host(), served.CAPEM(), trusted, server.URL}
	if err := out.Encode(where); err != nil {
		return err
	}
	orders := json.NewDecoder(os.Stdin)
	for {
		var o order
		if err := orders.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		got, err := do(ctx, served, o)
		if err != nil {
			got.Error = err.Error()
		}
		if err := out.Encode(got); err != nil {
			return err
		}
	}
}

func do(ctx context.Context, served *registrytest.Registry, o order) (got answer, err error) {
	switch {
	case o.Push != nil && o.Push.Index:
		got.Digest, err = served.PushIndex(ctx, o.Push.Repository, o.Push.Tag,
			registrytest.Image{Arch: "amd64", User: "1000"}, registrytest.Image{Arch: "arm64", User: "1000"})
	case o.Push != nil:
		image := registrytest.Image{Repository: o.Push.Repository, Tag: o.Push.Tag, User: "1000"}
		got.Digest, err = served.PushImage(ctx, image)
	case o.Platforms != nil:
		got.Platforms, err = platforms(ctx, served, *o.Platforms)
	case o.Ask != nil:
		got.Signatures, got.Attestations, err = ask(ctx, *o.Ask)
	}
	return got, err
}

func platforms(ctx context.Context, served *registrytest.Registry, of manifest) ([]string, error) {
	stored, err := served.Manifest(ctx, of.Repository, of.Digest)
	if err != nil {
		return nil, err
	}
	var index struct{ Manifests []struct{ Digest string } }
	if err := json.Unmarshal(stored.Body, &index); err != nil {
		return nil, err
	}
	var digests []string
	for _, platform := range index.Manifests {
		digests = append(digests, platform.Digest)
	}
	return digests, nil
}

// ask has the product read and verify over HTTP.
func ask(ctx context.Context, q question) (signatures webhook.Signatures, attestations webhook.Attestations, err error) {
	ref, err := webhook.ParseReference(q.Image)
	if err != nil {
		return signatures, attestations, err
	}
	client, err := registry.New(registry.Config{
		Hosts: []registry.Host{{Host: ref.Registry, CAPEM: q.CA, PlainHTTP: q.PlainHTTP}},
	})
	if err != nil {
		return signatures, attestations, err
	}
	defer client.Close()
	trust, err := signature.NewTrust(ctx, signature.TrustConfig{Signers: q.Signers, Now: time.Now})
	if err != nil {
		return signatures, attestations, err
	}
	defer trust.Close()
	verifier, err := signature.New(signature.Config{Trust: trust, Fetch: client})
	if err != nil {
		return signatures, attestations, err
	}
	if q.Signatures != nil {
		signatures, err = verifier.Verify(ctx, ref, q.Signatures)
		return signatures, attestations, err
	}
	attestations, err = verifier.Attest(ctx, ref, q.Attestations)
	return signatures, attestations, err
}
