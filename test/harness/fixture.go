// Package harness runs the hallmark binary against a real registry on loopback, with the images and the configuration
// that the suites of attacks and the end-to-end suite share.
package harness

import (
	"context"
	"crypto"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// A Fixture is a registry with signed and unsigned images, and a directory with the files that serve needs.
type Fixture struct {
	Dir      string
	Registry *registrytest.Registry
	Digests  map[string]string // by "golden/ws:v1.0.0"
	Key      crypto.Signer     // signs as ci
	OtherKey crypto.Signer     // signs, but nobody trusts it
	KeyPEM   string
}

// Images of the fixture: whose user they run as, and whether they are signed.
type image struct {
	repository, tag, user string
	unsigned              bool
}

// images: golden/ws is the good one. Every other has one thing about it.
func images() []image {
	return []image{
		{"golden/ws", "v1.0.0", "1000", false}, {"golden/ws", "v1.0.1", "1000", false}, {"golden/ws", "latest", "1000", false},
		{"golden/ws", "v9.9.9", "1000", true},
		{"golden/tools", "v1.0.0", "1000", false},
		{"golden/root", "v1.0.0", "0", false}, {"golden/nouser", "v1.0.0", "", false}, {"golden/named", "v1.0.0", "app", false},
		{"golden/data", "v1.0.0", "", false}, {"golden/envbox", "v1.0.0", "1000", false},
		{"golden/coder", "v1.0.0", "coder", false},
		{"golden/old", "v1.0.0", "1000", false},
		{"sandbox/evil", "v1.0.0", "1000", true}, {"golden-evil/ws", "v1.0.0", "1000", false},
	}
}

// NewFixture fills a registry and writes the files into dir. Change may alter the text of the configuration.
func NewFixture(ctx context.Context, dir string, config registrytest.Config, change func(text string) string) (*Fixture, error) {
	registry, err := registrytest.New(config)
	if err != nil {
		return nil, err
	}
	f := &Fixture{Dir: dir, Registry: registry, Digests: map[string]string{}}
	if f.Key, f.KeyPEM, err = registrytest.NewKey(); err != nil {
		return nil, err
	}
	if f.OtherKey, _, err = registrytest.NewKey(); err != nil {
		return nil, err
	}
	for _, i := range images() {
		if err := f.push(ctx, i); err != nil {
			return nil, err
		}
	}
	if err := f.pushIndex(ctx); err != nil {
		return nil, err
	}
	registry.Reset()
	text := f.Configuration()
	if change != nil {
		text = change(text)
	}
	cert, key, err := servertest.Certificate(time.Now(), "127.0.0.1", "localhost")
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"hallmark.yaml": []byte(text), "registry-ca.crt": registry.CAPEM(), "tls.crt": cert, "tls.key": key,
	} {
		if err := f.Write(name, content); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *Fixture) push(ctx context.Context, i image) error {
	digest, err := f.Registry.PushImage(ctx, registrytest.Image{
		Repository: i.repository, Tag: i.tag, User: i.user, Labels: map[string]string{"version": i.tag},
	})
	if err != nil {
		return err
	}
	f.Digests[i.repository+":"+i.tag] = digest
	if i.unsigned {
		return nil
	}
	return f.Registry.Sign(ctx, i.repository, digest, f.Key, registrytest.SignOptions{})
}

// pushIndex makes an image for two platforms that runs as root on one of them, and one that does not.
func (f *Fixture) pushIndex(ctx context.Context) error {
	for repository, users := range map[string][2]string{"golden/multi": {"1000", "1000"}, "golden/multiroot": {"1000", "0"}} {
		digest, err := f.Registry.PushIndex(ctx, repository, "v1.0.0",
			registrytest.Image{User: users[0], OS: "linux", Arch: "amd64"},
			registrytest.Image{User: users[1], OS: "linux", Arch: "arm64"})
		if err != nil {
			return err
		}
		f.Digests[repository+":v1.0.0"] = digest
		if err := f.Registry.Sign(ctx, repository, digest, f.Key, registrytest.SignOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// Write puts a file into the fixture's directory, whole or not at all.
func (f *Fixture) Write(name string, content []byte) error {
	path := filepath.Join(f.Dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Configuration is the text of the configuration file.
func (f *Fixture) Configuration() string {
	host := f.Registry.Host()
	golden := func(name, more string) string {
		return fmt.Sprintf("  - {name: %s, repository: %q, owner: devex, signers: [ci]%s}\n",
			name, host+"/golden/"+name, more)
	}
	transport := "plainHTTP: true"
	if len(f.Registry.CAPEM()) > 0 {
		transport = fmt.Sprintf("ca: %q", filepath.Join(f.Dir, "registry-ca.crt"))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: hallmark.dev/v1alpha1
kind: Configuration
mode: enforce
namespaces:
  - {match: ["audit-*"], mode: audit}
  - {match: ["warn-*"], mode: warn}
registries:
  - host: %q
    %s
    repositories: ["golden/**", "sandbox/**"]
tags:
  allow: [exact]
  repositories:
    - {match: ["%s/golden/old"], allow: [digest, exact]}
signers:
  ci:
    key: |
      %s
signatures:
  - {match: ["%s/**"], anyOf: [ci]}
goldenImages:
`, host, transport, host,
		strings.ReplaceAll(strings.TrimSpace(f.KeyPEM), "\n", "\n      "), host)
	for _, name := range []string{"ws", "tools", "root", "nouser", "named", "multi", "multiroot", "old"} {
		b.WriteString(golden(name, ""))
	}
	b.WriteString(golden("data", ", roles: [volume]"))
	b.WriteString(golden("envbox", ", roles: [builder]"))
	b.WriteString(golden("coder", ", uid: 1000"))
	return b.String()
}

// Ref is an image of the fixture as it is written in a pod: Ref("golden/ws:v1.0.0").
func (f *Fixture) Ref(image string) string { return f.Registry.Host() + "/" + image }

// Pinned is the same with its digest.
func (f *Fixture) Pinned(image string) string { return f.Ref(image) + "@" + f.Digests[image] }
