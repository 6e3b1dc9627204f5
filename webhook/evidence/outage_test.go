package evidence_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/evidence"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

// TestHourOfOutage: two hundred images, and a registry that is gone for an hour of the injected clock. What was proved goes
// on, and is marked as stale; what was not is told that it could not be checked, at once; the dead registry is asked now and
// then and no more; and the memory is the same after the hour as before.
func TestHourOfOutage(t *testing.T) {
	const (
		images  = 200
		minutes = 60
	)
	r, err := registrytest.New(registrytest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	key, pem, err := registrytest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var refs []webhook.Reference
	for i := range images {
		repository := fmt.Sprintf("golden/ws%d", i)
		digest, err := r.PushImage(t.Context(), registrytest.Image{Repository: repository, Tag: "v1", User: "1000"})
		if err == nil {
			err = r.Sign(t.Context(), repository, digest, key, registrytest.SignOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		ref, err := webhook.ParseReference(r.Host() + "/" + repository + ":v1")
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}

	clock := &clock{now: time.Now()}
	asked := 0
	client, err := registry.New(registry.Config{
		Hosts: []registry.Host{{Host: r.Host(), CAPEM: r.CAPEM()}}, Now: clock.Now, Limits: registry.Limits{RequestsPerSecond: 100_000},
		// Called for one request at a time, as the test asks for one thing at a time.
		Observe: func(context.Context, string, string, int, time.Duration) { asked++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	store := evidence.NewStore(evidence.Limits{Bytes: 16 << 20}, nil)
	config := evidence.Config{TagTTL: time.Minute, StaleIfError: 24 * time.Hour, VerifiedTTL: 24 * time.Hour, Timeout: 5 * time.Second, Now: clock.Now}
	content := evidence.NewContent(store, config, client)
	trust, err := signature.NewTrust(t.Context(), signature.TrustConfig{
		Signers: map[string]signature.Signer{"ci": {KeyPEM: pem}}, Now: clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trust.Close)
	verifier := func(fetch signature.Fetcher) evidence.Proofs {
		v, err := signature.New(signature.Config{Trust: trust, Fetch: fetch})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	read := evidence.NewReader(store, config, registry.NewReader(content, registry.Limits{}))
	verify := evidence.NewVerifier(store, config, verifier(content), verifier(content.Known()))
	rules := []webhook.SignatureRule{{AnyOf: []string{"ci"}, Threshold: 1}}
	admit := func(ref webhook.Reference) (*webhook.Content, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		tag, err := read.ReadImage(ctx, ref, webhook.DigestOnly)
		if err != nil {
			return nil, err
		}
		pinned := ref.WithDigest(tag.Digest)
		if _, err := read.ReadImage(ctx, pinned, webhook.WithConfig); err != nil {
			return nil, err
		}
		found, err := verify.Verify(ctx, pinned, rules)
		if err == nil && !rules[0].Satisfied(found.Valid) {
			err = fmt.Errorf("found %+v", found)
		}
		return tag, err
	}
	for _, ref := range refs {
		if _, err := admit(ref); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	slowest := time.Duration(0)
	admissions := 0
	// In every minute all images are wanted again, and every two seconds some that were not proved.
	twoSeconds := func(all bool) {
		t.Helper()
		clock.add(2 * time.Second)
		for i, ref := range refs {
			if all {
				tag, err := admit(ref)
				admissions++
				if err != nil || tag.Stale.IsZero() {
					t.Fatalf("%s: %+v, %v; want the last answer, marked", ref, tag, err)
				}
			}
			if i%20 > 0 {
				continue
			}
			admissions++
			start := time.Now()
			_, err := admit(ref.WithTag(fmt.Sprintf("v%d", clock.Now().Unix())))
			slowest = max(slowest, time.Since(start))
			var failed *webhook.ReadError
			if !errors.As(err, &failed) || failed.Failure != webhook.Unavailable {
				t.Fatalf("an image that was not proved: %v, want that its registry is not available", err)
			}
		}
		store.Wait()
	}
	heap := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	minute := func() {
		t.Helper()
		for i := range 30 {
			twoSeconds(i == 29)
		}
	}
	clock.add(time.Minute) // what was read a moment ago is not stale yet
	minute()
	before, askedBefore := heap(), asked
	bytes := fmt.Sprint(store.Bytes())
	for range minutes - 1 {
		minute()
	}
	after := heap()
	t.Logf("heap %d KiB before and %d after; %d requests in an hour of %d admissions; the slowest failure took %v",
		before>>10, after>>10, asked-askedBefore, admissions, slowest)
	if after > before+2<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
	if now := fmt.Sprint(store.Bytes()); now != bytes {
		t.Errorf("the store grew from %s to %s", bytes, now)
	}
	if slowest > 2*time.Second {
		t.Errorf("a failure took %v", slowest)
	}
	// The gate lets one through every five seconds, and the clock goes by two.
	if n := asked - askedBefore; n < 100 || n > (minutes-1)*60/5+5 {
		t.Errorf("%d requests to a registry that is gone", n)
	}
}
