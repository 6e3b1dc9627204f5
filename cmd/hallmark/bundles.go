package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/policy"
	"github.com/hallmark-admission/hallmark/webhook/registry"
)

// A following is one configured bundle, which is read behind requests and outlives generations.
type following struct {
	name     string
	identity string // of all that it was made from: another one is another following
	follower *policy.Follower
	accepted *policy.Bundle // the last one that a generation could be made with; nil while there is none
	file     string         // where accepted is kept over a restart; "" is nowhere
	kept     string         // digest of what is there
	close    func()         // ends what start began, and connections
}

// followingConfig says what a following is made from.
type followingConfig struct {
	entry   config.Bundle
	config  *config.Config // that the entry is in
	outside outside
	before  []byte                       // archive of a following that it replaces; nil for none
	changed func()                       // there is another bundle; called by run
	failed  func(name string, err error) // it cannot be read in another way than those since the last success; likewise
}

// newFollowing makes one without starting it. What was accepted before counts at once, if it is signed as the entry now
// says.
func newFollowing(fc followingConfig) (*following, error) {
	f := &following{name: fc.entry.Name()}
	var err error
	if f.identity, err = bundleIdentity(fc.entry, fc.config, fc.outside); err != nil {
		return nil, err
	}
	reader, err := bundleReader(fc.entry, fc.outside)
	if err != nil {
		return nil, err
	}
	follow := policy.FollowConfig{
		Reader: reader, Every: time.Duration(fc.entry.Every), Changed: fc.changed,
		Report: func(err error) { fc.failed(f.name, err) },
	}
	if follow.Fetch, f.close, err = bundleFetch(fc); err != nil {
		return nil, err
	}
	if fc.before != nil {
		follow.Known = append(follow.Known, fc.before)
	}
	// What nobody has signed, nothing could prove when it is read again.
	if dir := fc.config.Cache.Dir; dir != "" && reader.Signed() {
		f.file = filepath.Join(dir, "bundles", bundleFile(f.name))
		if archive := readArchive(f.file); archive != nil {
			follow.Known = append(follow.Known, archive)
			f.kept = webhook.DigestOf(archive)
		}
	}
	f.follower = policy.NewFollower(follow)
	f.accepted = f.follower.Latest() // only what was accepted is kept
	return f, nil
}

// start reads behind requests until stop.
func (f *following) start(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.follower.Run(ctx)
	}()
	closeFetch := f.close
	f.close = func() { cancel(); <-done; closeFetch() }
}

// bundleFile is the name of the file that a bundle is kept in.
func bundleFile(name string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(name)))[:16] + ".tar.gz"
}

// bundleIdentity changes with everything that a following is made from.
func bundleIdentity(entry config.Bundle, c *config.Config, out outside) (string, error) {
	var signed config.BundleVerification
	if entry.Verification != nil {
		signed = *entry.Verification
	}
	plain := entry
	plain.Verification = nil
	text := fmt.Appendf(nil, "%+v %+v %s", plain, signed, c.Cache.Dir)
	files := []string{entry.CA, signed.KeyFile}
	if entry.OCI != "" {
		host := bundleHost(entry, c)
		text = fmt.Appendf(text, " %+v %+v", host, c.Limits)
		files = append(files, host.CA, host.Credentials)
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		content, err := out.read(file)
		if err != nil {
			return "", fmt.Errorf("bundle %s: %w", entry.Name(), err)
		}
		text = fmt.Appendf(text, "\x00%d ", len(content))
		text = append(text, content...)
	}
	return webhook.DigestOf(text), nil
}

func bundleReader(entry config.Bundle, out outside) (*policy.BundleReader, error) {
	rc := policy.BundleConfig{Name: entry.Name()}
	if v := entry.Verification; v != nil {
		key, err := out.read(v.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("bundle %s: %w", entry.Name(), err)
		}
		rc.KeyPEM, rc.KeyID, rc.Scope = key, v.KeyID, v.Scope
	}
	return policy.NewBundleReader(rc)
}

// bundleFetch gets the bundle from where it is, until close.
func bundleFetch(fc followingConfig) (fetch policy.Fetch, closeFetch func(), err error) {
	entry := fc.entry
	if entry.URL != "" {
		fetch, err = policy.NewHTTPFetch(policy.HTTPConfig{
			URL: entry.URL, CAFile: entry.CA, TokenFile: entry.Credentials, ReadFile: fc.outside.readFile,
		})
		return fetch, func() {}, err
	}
	ref, err := webhook.ParseReference(entry.OCI)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle %s: %w", entry.OCI, err)
	}
	rc := registryConfig(fc.config, fc.outside)
	rc.Hosts = slices.DeleteFunc(rc.Hosts, func(h registry.Host) bool { return h.Host != ref.Registry })
	rc.Limits.Timeout = bundleRequestTimeout
	client, err := registry.New(rc)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle %s: %w", entry.OCI, err)
	}
	source := &ociSource{client, ref}
	return source.fetch, client.Close, nil
}

// bundleRequestTimeout is longer than that of an admission, for which nobody waits here.
const bundleRequestTimeout = 10 * time.Second

// bundleHost is the registry of an entry by OCI, which the configuration was checked to have.
func bundleHost(entry config.Bundle, c *config.Config) config.Registry {
	ref, err := webhook.ParseReference(entry.OCI)
	i := slices.IndexFunc(c.Registries, func(r config.Registry) bool { return err == nil && r.Host == ref.Registry })
	if i < 0 {
		return config.Registry{}
	}
	return c.Registries[i]
}

// An ociSource is a bundle in a registry.
type ociSource struct {
	client *registry.Client
	ref    webhook.Reference
}

// fetch reads the manifest, whose digest is the version, and then its layer.
func (o *ociSource) fetch(ctx context.Context, version string) (archive []byte, newVersion string, err error) {
	manifest, err := o.client.Manifest(ctx, o.ref, 0)
	switch {
	case err != nil:
		return nil, "", withoutCause(err)
	case manifest.Digest == version:
		return nil, version, nil
	}
	layer, err := bundleLayer(manifest)
	if err != nil {
		return nil, "", err
	}
	archive, err = o.client.Blob(ctx, o.ref, layer, policy.MaxBundleBytes)
	return archive, manifest.Digest, withoutCause(err)
}

// bundleLayer gives the digest of the one layer that is a bundle, as oras and the policy command push it.
func bundleLayer(manifest webhook.Manifest) (string, error) {
	const layerType = "application/vnd.oci.image.layer.v1.tar+gzip"
	var m struct {
		Manifests []any `json:"manifests"`
		Layers    []struct {
			MediaType string `json:"mediaType"`
			Digest    string `json:"digest"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(manifest.Body, &m); err != nil {
		return "", errors.New("its manifest cannot be read")
	}
	var found []string
	for _, layer := range m.Layers {
		if layer.MediaType == layerType {
			found = append(found, layer.Digest)
		}
	}
	switch {
	case m.Manifests != nil:
		return "", errors.New("it names an index; name a manifest whose layer is the bundle")
	case len(found) != 1:
		return "", fmt.Errorf("its manifest has %d layers of type %s; want one, which is the bundle", len(found), layerType)
	}
	return found[0], nil
}

// withoutCause words an error of a registry the same way each time; the cause may hold the port of a connection.
func withoutCause(err error) error {
	if read, ok := errors.AsType[*webhook.ReadError](err); ok {
		return errors.New(read.Registry + " " + read.Reason)
	}
	return err
}

// readArchive gives what was kept, nil when it is not there or cannot be a bundle.
func readArchive(file string) []byte {
	info, err := os.Stat(file)
	if err != nil || info.Size() > policy.MaxBundleBytes {
		return nil
	}
	archive, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return archive
}

// keep writes the accepted bundle where it is found after a restart: whole or not at all.
func (f *following) keep() (err error) {
	if f.file == "" || f.kept == f.accepted.Digest {
		return nil
	}
	dir := filepath.Dir(f.file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(dir, "new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temporary.Name()))
		}
	}()
	_, err = temporary.Write(f.accepted.Archive)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	if err = os.Rename(temporary.Name(), f.file); err == nil {
		f.kept = f.accepted.Digest
	}
	return err
}

// addBundles reads each bundle once and now, and adds its rules to a source. It keeps nothing.
func addBundles(ctx context.Context, c *config.Config, source policy.Source) error {
	inMemory := *c
	inMemory.Cache.Dir = ""
	return readBundles(ctx, &inMemory, outside{now: time.Now}, source)
}

// readBundles reads each bundle once and now, keeps it where the configuration says, and adds its rules to a source.
func readBundles(ctx context.Context, c *config.Config, out outside, source policy.Source) error {
	var bundles []*policy.Bundle
	var errs []error
	for _, entry := range c.Policies.Bundles {
		f, err := newFollowing(followingConfig{entry: entry, config: c, outside: out})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_, err = f.follower.Read(ctx)
		if err == nil {
			f.accepted = f.follower.Latest()
			bundles = append(bundles, f.accepted)
			err = f.keep()
		}
		f.close()
		errs = append(errs, err)
	}
	return errors.Join(append(errs, source.AddBundles(bundles))...)
}
