package main

import (
	"context"
	"crypto"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/server"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

//go:embed demo/*.yaml
var demoFiles embed.FS

// demoRegistry is the name that images have in the demo. It leads to the registry in memory.
const demoRegistry = "registry.corp.example:5000"

func newDemo(io streams) *cobra.Command {
	keep := false
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: a registry, signed images, the webhook and real workspaces, all in memory",
		Long: `Demo starts an in-memory registry with golden images that it signs with a throw-away key, serves the webhook on
loopback, and sends it real workspaces as a Kubernetes API server would: to /mutate, then, with the patch applied, to
/validate, over TLS. It prints what a developer sees of each. It needs no cluster and no network.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := os.MkdirTemp("", "hallmark-demo-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			d := &demo{out: io.out, dir: dir}
			return d.run(cmd.Context(), keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the webhook running and print how to send it more")
	return cmd
}

// demo is one run.
type demo struct {
	out      io.Writer
	dir      string // for certificate and configuration
	registry *registrytest.Registry
	client   *servertest.Client
	counts   map[string]int
}

func (d *demo) run(ctx context.Context, keep bool) error {
	start := time.Now()
	d.counts = map[string]int{}
	stop, address, err := d.start(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "Registry %s with signed golden images, in memory; webhook https://%s; policy and configuration of the demo.\n",
		demoRegistry, address)
	cases, err := demoCases()
	if err != nil {
		return err
	}
	if keep { // the registry has to stay
		cases = slices.DeleteFunc(cases, func(c demoCase) bool { return c.RegistryDown })
	}
	for i, c := range cases {
		if err := d.show(ctx, i+1, c); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "\n%d workspaces in %.1fs: %d admitted, %d of them pinned to digests; %d rejected; %d could not be checked.\n",
		len(cases), time.Since(start).Seconds(), d.counts["admitted"], d.counts["pinned"], d.counts["denied"], d.counts["undecided"])
	if keep {
		if err := d.waitWith(ctx, cases[1], address); err != nil {
			return errors.Join(err, stop())
		}
	}
	return stop()
}

// waitWith keeps the webhook running until ctx ends, and says how to send it more.
func (d *demo) waitWith(ctx context.Context, example demoCase, address string) error {
	object, err := json.Marshal(example.Object)
	if err != nil {
		return err
	}
	review, err := servertest.NewReview("00000000-0000-4000-8000-000000000000", servertest.Object{JSON: object})
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(review, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.dir, "review.json"), text, 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.out, `
The webhook keeps running until you press Ctrl-C. Send it a review with

  curl --cacert %[1]s/tls.crt -H 'Content-Type: application/json' --data @%[1]s/review.json https://%[2]s/mutate

or to /validate, and change %[1]s/hallmark.yaml to see it reload.
`, d.dir, address)
	<-ctx.Done()
	return err
}

// start brings up registry and webhook. stop ends the webhook.
func (d *demo) start(ctx context.Context) (stop func() error, address string, err error) {
	host, _, _ := strings.Cut(demoRegistry, ":")
	if d.registry, err = registrytest.New(registrytest.Config{DNSNames: []string{host}}); err != nil {
		return nil, "", err
	}
	key, publicPEM, err := registrytest.NewKey()
	if err != nil {
		return nil, "", err
	}
	if err := d.pushImages(ctx, key); err != nil {
		return nil, "", err
	}
	trustedRoot, err := d.pushBuilt(ctx)
	if err != nil {
		return nil, "", err
	}
	if err := d.writeFiles(publicPEM, trustedRoot); err != nil {
		return nil, "", err
	}
	metrics := server.NewMetrics()
	log := slog.New(slog.DiscardHandler)
	l := &loader{
		configFile: filepath.Join(d.dir, "hallmark.yaml"), metrics: metrics, log: log,
		outside: outside{now: time.Now, request: metrics.RegistryRequest, cached: metrics.Cached, dial: d.dial},
	}
	if err := l.load(ctx); err != nil {
		return nil, "", err
	}
	s, err := server.New(server.Config{
		Listen: "127.0.0.1:0", CertFile: filepath.Join(d.dir, "tls.crt"), KeyFile: filepath.Join(d.dir, "tls.key"),
		Current: l.current, Deadline: l.deadline, Log: log, Metrics: metrics,
	})
	if err != nil {
		return nil, "", err
	}
	cert, err := os.ReadFile(filepath.Join(d.dir, "tls.crt"))
	if err != nil {
		return nil, "", err
	}
	if d.client, err = servertest.NewClient("https://"+s.Addr().String(), cert); err != nil {
		return nil, "", err
	}
	serving, cancel := context.WithCancel(ctx)
	done := make(chan error, 2)
	go func() { done <- s.Run(serving) }()
	go func() { done <- l.watch(serving) }()
	return func() error {
		d.client.Close()
		cancel()
		return errors.Join(<-done, <-done, l.close(), d.registry.Close())
	}, s.Addr().String(), nil
}

// dial leads the demo's registry name to the registry in memory, and nothing else anywhere.
func (d *demo) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if address != demoRegistry {
		return nil, fmt.Errorf("the demo has no network: %s is not reached", address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, d.registry.Host())
}

// pushImages fills the registry. All but base:v3.3.0 are signed.
func (d *demo) pushImages(ctx context.Context, key crypto.Signer) error {
	for _, image := range []struct{ repository, tag, user string }{
		{"golden/base", "v3.1.0", "root"}, {"golden/base", "v3.2.1", "1000"}, {"golden/base", "v3.3.0", "1000"},
		{"golden/base", "v3.2.2", "1000"}, {"golden/enterprise-base", "v2.0.0", "coder"}, {"golden/envbox", "v0.6.3", ""},
		{"golden/universal-developer-image", "v9.1.0", "10001"}, {"golden/singleuser", "v4.3.1", "jovyan"},
		{"devex/models", "v1.0.0", ""}, {"devex/debug", "v1.0.0", "1000"},
	} {
		digest, err := d.registry.PushImage(ctx, registrytest.Image{
			Repository: image.repository, Tag: image.tag, User: image.user, Labels: map[string]string{"version": image.tag},
		})
		if err != nil {
			return err
		}
		if image.tag == "v3.3.0" {
			continue
		}
		options := registrytest.SignOptions{DockerReference: demoRegistry + "/" + image.repository}
		if err := d.registry.Sign(ctx, image.repository, digest, key, options); err != nil {
			return err
		}
	}
	return nil
}

// pushBuilt adds an image that workflows have built: one of ours, with its provenance, and one of somebody else. It gives
// the trusted root of the authority that issued their certificates.
func (d *demo) pushBuilt(ctx context.Context) (trustedRoot []byte, err error) {
	authority, err := registrytest.NewSigstore(registrytest.SigstoreConfig{})
	if err != nil {
		return nil, err
	}
	const repository = "golden/universal"
	for tag, workflow := range map[string]string{
		"v5.0.0": "https://github.com/corp/images/.github/workflows/build.yml@refs/heads/main",
		"v5.1.0": "https://github.com/somebody/fork/.github/workflows/build.yml@refs/heads/main",
	} {
		digest, err := d.registry.PushImage(ctx, registrytest.Image{Repository: repository, Tag: tag, User: "1000"})
		if err != nil {
			return nil, err
		}
		by := registrytest.Signer{Keyless: authority, Certificate: registrytest.Certificate{
			Identity: workflow, Issuer: "https://token.actions.githubusercontent.com",
		}}
		if err := d.registry.SignBundle(ctx, repository, digest, registrytest.BundleOptions{Signer: by}); err != nil {
			return nil, err
		}
		provenance := registrytest.Statement{
			PredicateType: "https://slsa.dev/provenance/v1",
			Predicate:     map[string]any{"runDetails": map[string]any{"builder": map[string]any{"id": workflow}}},
		}
		attest := registrytest.AttestOptions{Signer: by, Bundle: true, Statement: provenance}
		if err := d.registry.Attest(ctx, repository, digest, attest); err != nil {
			return nil, err
		}
	}
	return authority.TrustedRootJSON()
}

// writeFiles writes the files that a mounted Secret and ConfigMap would hold.
func (d *demo) writeFiles(publicPEM string, trustedRoot []byte) error {
	text, err := demoFiles.ReadFile("demo/hallmark.yaml")
	if err != nil {
		return err
	}
	indented := "      " + strings.ReplaceAll(strings.TrimSpace(publicPEM), "\n", "\n      ")
	config := strings.Replace(string(text), "\nKEY\n", "\n"+indented+"\n", 1)
	config = strings.Replace(config, "ca: CA", "ca: "+filepath.Join(d.dir, "registry-ca.crt"), 1)
	config = strings.Replace(config, "trustedRoot: ROOT", "trustedRoot: "+filepath.Join(d.dir, "trusted_root.json"), 1)
	cert, key, err := servertest.Certificate(time.Now(), "127.0.0.1", "localhost")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"hallmark.yaml": []byte(config), "registry-ca.crt": d.registry.CAPEM(), "tls.crt": cert, "tls.key": key,
		"trusted_root.json": trustedRoot,
	} {
		if err := os.WriteFile(filepath.Join(d.dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
