package signature_test

import (
	"context"
	"sync"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

// A keptFetcher asks the registry for each thing once, so that what is measured is verification.
type keptFetcher struct {
	signature.Fetcher
	kept sync.Map
}

type answer struct {
	manifest webhook.Manifest
	blob     []byte
	err      error
}

func (f *keptFetcher) keep(key string, ask func() answer) answer {
	if known, ok := f.kept.Load(key); ok {
		if a, ok := known.(answer); ok {
			return a
		}
	}
	a := ask()
	f.kept.Store(key, a)
	return a
}

func (f *keptFetcher) Manifest(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error) {
	a := f.keep("manifest "+ref.String(), func() (a answer) {
		a.manifest, a.err = f.Fetcher.Manifest(ctx, ref, maxBytes)
		return a
	})
	return a.manifest, a.err
}

func (f *keptFetcher) Referrers(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error) {
	a := f.keep("referrers "+ref.String(), func() (a answer) {
		a.manifest, a.err = f.Fetcher.Referrers(ctx, ref, maxBytes)
		return a
	})
	return a.manifest, a.err
}

func (f *keptFetcher) Blob(ctx context.Context, ref webhook.Reference, digest string, maxBytes int64) ([]byte, error) {
	a := f.keep("blob "+digest, func() (a answer) {
		a.blob, a.err = f.Fetcher.Blob(ctx, ref, digest, maxBytes)
		return a
	})
	return a.blob, a.err
}

// BenchmarkVerify is the CPU of one verification that is not remembered, without the registry.
func BenchmarkVerify(b *testing.B) {
	for _, layout := range []string{"attached", "bundle"} {
		for _, who := range []string{"key", "key-logged", "identity", "identity-stamped"} {
			b.Run(layout+"/"+who, func(b *testing.B) {
				w := newKeylessWorld(b, registrytest.SigstoreConfig{})
				w.replaceRegistry(registrytest.Config{Referrers: true})
				witness := registrytest.Witness{At: w.now}
				signer := "devex-ci"
				switch who {
				case "key-logged":
					witness.Log = w.authority
					s := w.trust.Signers[signer]
					s.Log, s.TrustedRoot = signature.Required, w.signer.TrustedRoot
					w.trust.Signers[signer] = s
				case "identity-stamped":
					witness.Timestamp = w.authority
					w.signer.Timestamp = signature.Required
				}
				switch {
				case who == "identity" || who == "identity-stamped":
					signer = "release"
					w.trust.Signers[signer] = w.signer
					w.signAs(layout, certificate(), witness)
				case layout == "attached":
					w.sign(w.ci, registrytest.SignOptions{Witness: witness})
				default:
					w.bundle(w.ci, registrytest.BundleOptions{Witness: witness})
				}
				w.config.Fetch = &keptFetcher{Fetcher: w.client}
				v, rules := w.verifier(), w.allOf([]string{signer})
				b.ReportAllocs()
				for b.Loop() {
					if got, err := v.Verify(b.Context(), w.ref, rules); err != nil || len(got.Valid) != 1 {
						b.Fatalf("got %+v, %v", got, err)
					}
				}
			})
		}
	}
}
