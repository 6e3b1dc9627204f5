package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const maxImages = 5

// bench is one run of the program.
type bench struct {
	options
	dir      string
	progress io.Writer
	report   report
	stands   int
}

// A stand is a registry with signed images, and the servers that are measured against it.
type stand struct {
	*harness.Fixture
	bench   *bench
	network *network
	targets []*target // Hallmark first, the cheaper floor last
	pods    uint64
}

// newStand starts everything. More is added to the configuration.
func (b *bench) newStand(ctx context.Context, more string) (_ *stand, err error) {
	b.stands++
	s := &stand{bench: b, network: &network{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	dir := filepath.Join(b.dir, strconv.Itoa(b.stands))
	if err := os.MkdirAll(filepath.Join(dir, "policies"), 0o700); err != nil {
		return nil, err
	}
	s.Fixture, err = harness.NewFixture(ctx, dir, registrytest.Config{Intercept: s.network.between}, func(text string) string { return text })
	if err != nil {
		return nil, err
	}
	if err := s.Write("hallmark.yaml", []byte(s.Configuration()+b.configuration(s.Registry.Host())+more)); err != nil {
		return nil, err
	}
	for i := range b.rules {
		if err := s.Write(fmt.Sprintf("policies/extra%03d.rego", i), []byte(harness.ExtraRule(i))); err != nil {
			return nil, err
		}
	}
	s.network.delay.Store(int64(b.latency))
	return s, s.start(ctx)
}

// configuration goes on where the one of the harness ends: in its list of golden images.
func (b *bench) configuration(host string) string {
	var text strings.Builder
	for i := range b.catalogue {
		fmt.Fprintf(&text, "  - {name: image-%d, repository: %q, owner: devex, title: Image %d, signers: [ci]}\n", i, host+"/"+repository(i), i)
	}
	fmt.Fprintf(&text, "rules: {privileged: enforce}\nlimits: {requestsPerSecond: %d}\n", b.perSecond)
	if b.attest {
		fmt.Fprintf(&text, "attestations:\n  - {match: [\"%s/golden/bench/**\"], predicateType: %s, anyOf: [ci]}\n", host, provenance)
	}
	return text.String()
}

const provenance = "https://slsa.dev/provenance/v1"

// repository i of the pods' images: the i-th container of a pod has an image of the i-th.
func repository(i int) string { return fmt.Sprintf("golden/bench/image-%d", i) }

// publish pushes and signs what a pod with images of a tag needs. Images of one repository share their layer.
func (s *stand) publish(ctx context.Context, tag string) (digests []string, err error) {
	for i := range s.bench.images {
		digest, err := s.Registry.PushImage(ctx, registrytest.Image{
			Repository: repository(i), Tag: tag, User: "1000", Layers: []string{"base"}, Labels: map[string]string{"version": tag},
		})
		if err != nil {
			return nil, err
		}
		if err := s.Registry.Sign(ctx, repository(i), digest, s.Key, registrytest.SignOptions{}); err != nil {
			return nil, err
		}
		if s.bench.attest {
			if err := s.Registry.Attest(ctx, repository(i), digest, registrytest.AttestOptions{
				Signer: registrytest.Signer{Key: s.Key}, Statement: registrytest.Statement{PredicateType: provenance},
			}); err != nil {
				return nil, err
			}
		}
		digests = append(digests, digest)
	}
	return digests, nil
}

// workload is the pods whose images have a tag.
func (s *stand) workload(tag string) (*workload, error) {
	var images []string
	for i := range s.bench.images {
		images = append(images, s.Ref(repository(i)+":"+tag))
	}
	return newWorkload(images, s.bench.bytes)
}

// fresh publishes images under tags of their own, and gives the workloads that use them. They are unpublished never: a
// stand ends with its scenario.
func (s *stand) fresh(ctx context.Context, tag string, n int) ([]*workload, error) {
	list := make([]*workload, n)
	for i := range list {
		tag := fmt.Sprintf("%s%d", tag, i)
		if _, err := s.publish(ctx, tag); err != nil {
			return nil, err
		}
		var err error
		if list[i], err = s.workload(tag); err != nil {
			return nil, err
		}
	}
	s.Registry.Reset()
	return list, nil
}

func (s *stand) close() error {
	var errs []error
	for _, t := range s.targets {
		errs = append(errs, t.stop())
	}
	if s.Fixture != nil {
		errs = append(errs, s.Registry.Close(), os.RemoveAll(s.Dir))
	}
	return errors.Join(errs...)
}

// A network is what lies between webhook and registry.
type network struct {
	delay    atomic.Int64 // of every answer
	throttle atomic.Int64 // seconds that a 429 asks for; 0 is no 429
	requests atomic.Int64
}

func (n *network) between(registry http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.requests.Add(1)
		if delay := time.Duration(n.delay.Load()); delay > 0 {
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
		if seconds := n.throttle.Load(); seconds > 0 {
			w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
			http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS"}]}`, http.StatusTooManyRequests)
			return
		}
		registry.ServeHTTP(w, r)
	})
}
