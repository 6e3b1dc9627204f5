package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hallmark-admission/hallmark/policies"
	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/catalog"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/evidence"
	"github.com/hallmark-admission/hallmark/webhook/policy"
	"github.com/hallmark-admission/hallmark/webhook/pullsecrets"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/signature"
	"github.com/hallmark-admission/hallmark/webhook/trace"
)

// A generation is everything that one configuration and one set of policies make: what a decision is made under.
type generation struct {
	reviewer *webhook.Reviewer
	config   *config.Config
	trust    *signature.Trust
	close    func()
}

// outside is what a generation needs from the outside of the process, so that demo and tests can bring their own.
type outside struct {
	now     func() time.Time
	dial    func(ctx context.Context, network, address string) (net.Conn, error) // nil: the network
	request func(ctx context.Context, registry, operation string, code int, elapsed time.Duration)
	cached  func(cache, result string)
	store   *evidence.Store  // outlives generations
	trust   *signature.Trust // of the generation before; nil at first
	budget  registry.Budget  // of all clients together; nil is one for each

	cacheBytes int64 // most that the cache may have of the memory, whatever the configuration says; 0 is no bound

	readFile func(name string) ([]byte, error) // reads what the configuration names; nil is os.ReadFile

	kubernetes pullsecrets.Config // where pull secrets are read; zero is what a pod is given
	log        *slog.Logger       // told of what could not be read from outside; nil tells nobody
	tracer     *trace.Tracer      // nil traces nothing
}

func (out outside) read(name string) ([]byte, error) {
	if out.readFile == nil {
		return os.ReadFile(name)
	}
	return out.readFile(name)
}

// newGeneration connects the packages. It reports every mistake of configuration and policies.
func newGeneration(ctx context.Context, c *config.Config, source policy.Source, out outside) (*generation, error) {
	rc, rulesErr := reviewing(ctx, c, source, out.now)
	client, clientErr := registry.New(registryConfig(c, out))
	if err := errors.Join(rulesErr, clientErr); err != nil {
		return nil, err
	}
	trust, err := signature.NewTrust(ctx, trustConfig(c, out))
	if err != nil {
		client.Close()
		return nil, err
	}
	memory, err := evidenceConfig(c, out, trust)
	if err != nil {
		client.Close()
		trust.Close()
		return nil, err
	}
	shared, err := newView(c, out, memory, origin{client, trust})
	if err != nil {
		trust.Close()
		return nil, err
	}
	pull, closePull, err := pulling(c, out, memory, shared)
	if err != nil {
		shared.close()
		trust.Close()
		return nil, err
	}
	closeAll := func() { closePull(); shared.close(); trust.Close() }
	rc.Reader, rc.Verifier, rc.Attester, rc.Puller = shared.reader, shared.verifier, shared.verifier, pull
	if out.tracer != nil {
		rc = traced(rc, out.tracer)
	}
	reviewer, err := webhook.New(rc)
	if err != nil {
		closeAll()
		return nil, err
	}
	if out.log != nil {
		for _, doubt := range lintCatalogue(rc) {
			out.log.Warn("catalogue", "problem", doubt)
		}
	}
	return &generation{reviewer: reviewer, config: c, trust: trust, close: closeAll}, nil
}

// traced has everything that a review waits for traced.
func traced(rc webhook.Config, t *trace.Tracer) webhook.Config {
	sources := t.Sources(webhook.Sources{Reader: rc.Reader, Verifier: rc.Verifier, Attester: rc.Attester})
	rc.Reader, rc.Verifier, rc.Attester = sources.Reader, sources.Verifier, sources.Attester
	rc.Judge = t.Judge(rc.Judge)
	if rc.Puller != nil {
		rc.Puller = t.Puller(rc.Puller)
	}
	return rc
}

// lintCatalogue says what is doubtful about the golden images of a configuration.
func lintCatalogue(rc webhook.Config) []string {
	if c, ok := rc.Suggest.(*catalog.Catalogue); ok {
		return c.Lint()
	}
	return nil
}

// reviewing is a reviewer's configuration as far as it comes from files alone: rules, catalogue and settings.
func reviewing(ctx context.Context, c *config.Config, source policy.Source, now func() time.Time) (webhook.Config, error) {
	schema, err := fs.ReadFile(policies.Files(), "schema/input.json")
	if err != nil {
		return webhook.Config{}, err
	}
	data, err := c.Data()
	if err != nil {
		return webhook.Config{}, err
	}
	engine, policyErr := policy.New(ctx, policy.Config{
		Source: source, Schema: schema, Data: data, Off: rulesOff(c), On: slices.Sorted(maps.Keys(c.Rules)),
	})
	if policyErr == nil {
		policyErr = checkRuleNames(c, engine.Rules())
	}
	catalogue, catalogErr := newCatalogue(c, now)
	if err := errors.Join(policyErr, catalogErr); err != nil {
		return webhook.Config{}, err
	}
	return webhook.Config{
		Revision: source.Revision(c.Text), Rules: engine.Rules(), Modes: c, Judge: engine,
		Catalogue: catalogue, Suggest: catalogue, Rewrite: catalogue,
		Env:        webhook.EnvImages{Names: c.Workspaces.ImageEnv, AllowUnresolved: c.Workspaces.UnresolvableEnv == "allow"},
		BreakGlass: c.BreakGlass.Groups, Pin: c.Pin.Pods, SetUser: c.User.SetFromCatalogue, HelpURL: c.Message.HelpURL, Now: now,
	}, nil
}

// A view is by whom images are read and verified, under one way of being known to registries.
type view struct {
	reader   webhook.ImageReader
	verifier evidence.Proofs
	trust    *signature.Trust
	close    func()
}

// An origin is where a view reads, and whom it believes.
type origin struct {
	client *registry.Client
	trust  *signature.Trust
}

// newView puts memory and verification around a client, which is closed with the view, or at once when there is none.
func newView(c *config.Config, out outside, memory evidence.Config, from origin) (*view, error) {
	content := evidence.NewContent(out.store, memory, from.client)
	limits := signature.Limits{
		Signatures: c.Limits.Signatures, SignatureBytes: int64(c.Limits.SignatureBytes), Platforms: c.Limits.IndexChildren,
		Attestations: c.Limits.Attestations, AttestationBytes: int64(c.Limits.AttestationBytes),
	}
	verifier, err := signature.New(signature.Config{Trust: from.trust, Fetch: content, Limits: limits})
	if err != nil {
		from.client.Close()
		return nil, err
	}
	known, err := signature.New(signature.Config{Trust: from.trust, Fetch: content.Known(), Limits: limits})
	if err != nil {
		from.client.Close()
		return nil, err
	}
	return &view{
		reader:   evidence.NewReader(out.store, memory, registry.NewReader(content, registryLimits(c))),
		verifier: evidence.NewVerifier(out.store, memory, verifier, known), trust: from.trust, close: from.client.Close,
	}, nil
}

// pulling makes what reads images with the credentials of their pods; nil when the configuration does not switch it on.
func pulling(c *config.Config, out outside, memory evidence.Config, shared *view) (webhook.Puller, func(), error) {
	if !c.PullSecrets.Enabled {
		return nil, func() {}, nil
	}
	kubernetes := out.kubernetes
	kubernetes.CacheTTL, kubernetes.Now = time.Duration(c.PullSecrets.CacheTTL), out.now
	client, err := pullsecrets.New(kubernetes)
	if err != nil {
		return nil, nil, err
	}
	all := registryConfig(c, out)
	hosts := map[string]viewMaker{}
	for _, host := range all.Hosts {
		hosts[host.Host] = func(hash string, credentials []byte) (*view, error) {
			one := all
			host.Credentials = credentials
			one.Hosts = []registry.Host{host}
			client, err := registry.New(one)
			if err != nil {
				return nil, err
			}
			own := memory
			own.Private = true
			own.Scope = func(registry string) string { return memory.Scope(registry) + " " + hash }
			return newView(c, out, own, origin{client, shared.trust})
		}
	}
	p := newPuller(reporting(client.Read, out.log), shared, hosts)
	return p, func() { p.close(); client.Close() }, nil
}

// evidenceConfig names the views under which evidence is kept: how a registry is seen depends on its entry and the files
// that it names, and whom signatures are believed depends on the keys.
func evidenceConfig(c *config.Config, out outside, trust *signature.Trust) (evidence.Config, error) {
	var errs []error
	hash := func(parts any, files ...string) string {
		h := sha256.New()
		fmt.Fprintf(h, "%+v", parts)
		for _, file := range files {
			if file == "" {
				continue
			}
			text, err := out.read(file)
			errs = append(errs, err)
			fmt.Fprintf(h, "\x00%d ", len(text))
			h.Write(text)
		}
		return fmt.Sprintf("%x", h.Sum(nil))[:16]
	}
	scopes := map[string]string{}
	for _, r := range c.Registries {
		scopes[r.Host] = hash([]any{r.Host, r.PlainHTTP, r.CA, r.Credentials}, r.CA, r.Credentials)
	}
	return evidence.Config{
		TagTTL: time.Duration(c.Cache.TagTTL), StaleIfError: time.Duration(c.Cache.StaleIfError),
		VerifiedTTL: time.Duration(c.Cache.VerifiedTTL), Timeout: time.Duration(c.Limits.Deadline), Now: out.now,
		Scope: func(registry string) string { return scopes[registry] }, Trust: trust.Hash, Observe: out.cached,
	}, errors.Join(errs...)
}

// rulesOff lists the rules that no namespace can switch on.
func rulesOff(c *config.Config) []string {
	var off []string
	for name, mode := range c.Rules {
		if mode == webhook.Off {
			off = append(off, name)
		}
	}
	if len(c.GoldenImages) == 0 {
		off = append(off, "golden")
	}
	return off
}

// checkRuleNames refuses a mode or an exemption for a rule that does not exist: it is a typo, and what it meant to
// enforce would not be.
func checkRuleNames(c *config.Config, rules []webhook.Rule) error {
	known := func(name string) bool {
		return slices.ContainsFunc(rules, func(r webhook.Rule) bool { return r.Name == name })
	}
	names := make([]string, len(rules))
	for i, r := range rules {
		names[i] = r.Name
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.Rules)) {
		if !known(name) {
			errs = append(errs, fmt.Errorf("rules: there is no rule %q; the rules are %q", name, names))
		}
	}
	for _, e := range c.Exemptions {
		for _, name := range e.Rules {
			if !known(name) {
				errs = append(errs, fmt.Errorf("exemption %s: there is no rule %q; the rules are %q", e.Name, name, names))
			}
		}
	}
	return errors.Join(errs...)
}

func registryConfig(c *config.Config, out outside) registry.Config {
	rc := registry.Config{
		Limits: registryLimits(c), Observe: out.request, DialContext: out.dial, Now: out.now, Budget: out.budget,
		ReadFile: out.readFile,
	}
	for _, r := range c.Registries {
		rc.Hosts = append(rc.Hosts, registry.Host{
			Host: r.Host, CAFile: r.CA, CredentialsFile: r.Credentials, PlainHTTP: r.PlainHTTP,
			TokenHosts: r.TokenHosts, BlobHosts: r.BlobHosts,
		})
	}
	return rc
}

func registryLimits(c *config.Config) registry.Limits {
	return registry.Limits{
		ManifestBytes: int64(c.Limits.ManifestBytes), ConfigBytes: int64(c.Limits.ConfigBytes),
		IndexChildren: c.Limits.IndexChildren, RequestsPerSecond: c.Limits.RequestsPerSecond,
	}
}

func trustConfig(c *config.Config, out outside) signature.TrustConfig {
	tc := signature.TrustConfig{
		Signers: map[string]signature.Signer{}, Now: out.now, Before: out.trust, ReadFile: out.readFile, TUF: signature.TUF{URL: c.TUF.URL, RootFile: c.TUF.Root},
		Report: func(what string, err error) {
			if out.log != nil {
				out.log.Warn("trust material could not be read from outside", "what", what, "error", err)
			}
		},
	}
	if c.Cache.Dir != "" {
		tc.TUF.Dir = filepath.Join(c.Cache.Dir, "tuf")
	}
	for name, s := range c.Signers {
		signer := signature.Signer{
			KeyPEM: s.Key, KeyFile: s.KeyFile, KMS: s.KMS, TrustedRoot: s.TrustedRoot,
			NotBefore: s.NotBefore.Time, NotAfter: s.NotAfter.Time,
			Log: signature.Demand(s.TransparencyLog), Timestamp: signature.Demand(s.Timestamp), SCT: signature.Demand(s.SCT),
		}
		if k := s.Keyless; k != nil {
			signer.Keyless = &signature.Identity{Issuer: k.Issuer, Subject: k.Subject, SubjectPattern: k.SubjectPattern}
		}
		tc.Signers[name] = signer
	}
	return tc
}

// newCatalogue turns the file's lists into the catalogue's. Patterns were checked when the file was loaded.
func newCatalogue(c *config.Config, now func() time.Time) (*catalog.Catalogue, error) {
	cc := catalog.Config{Path: c.Tags.Path, Now: now}
	var errs []error
	patterns := func(list []string) (parsed []webhook.Pattern) {
		for _, s := range list {
			p, err := webhook.ParsePattern(s)
			errs = append(errs, err)
			parsed = append(parsed, p)
		}
		return parsed
	}
	for _, r := range c.Registries {
		cc.Registries = append(cc.Registries, catalog.Registry{Host: r.Host, Repositories: patterns(r.Repositories)})
	}
	for _, t := range c.Tags.Repositories {
		cc.Tags = append(cc.Tags, catalog.TagRule{Match: patterns(t.Match), Allow: t.Allow, Pattern: t.Pattern})
	}
	cc.Tags = append(cc.Tags, catalog.TagRule{Allow: c.Tags.Allow})
	for _, t := range c.Tags.Classes {
		cc.Classes = append(cc.Classes, catalog.TagClass{Match: patterns(t.Match), Pattern: t.Pattern, Class: t.Class})
	}
	for _, s := range c.Signatures {
		cc.Signed = append(cc.Signed, catalog.SignedImages{Match: patterns(s.Match), SignatureRule: webhook.SignatureRule{
			AnyOf: s.AnyOf, Threshold: s.Threshold, Repository: s.Repository, Platforms: s.Platforms,
		}})
	}
	for _, a := range c.Attestations {
		cc.Attested = append(cc.Attested, catalog.AttestedImages{
			Match: patterns(a.Match), AttestationRule: webhook.AttestationRule{PredicateType: a.PredicateType, AnyOf: a.AnyOf},
		})
	}
	for _, g := range c.GoldenImages {
		cc.Golden = append(cc.Golden, catalog.Golden{Signers: g.Signers, AllowDerived: g.AllowDerived, DerivedSigners: g.DerivedSigners, Golden: webhook.Golden{
			Name: g.Name, Repository: g.Repository, Title: g.Title, Owner: g.Owner, Scope: g.Scope, Status: g.Status,
			DenyDeprecated: g.Deprecated == "deny",
			Successor:      g.Successor, DefaultTag: g.DefaultTag, Follow: g.Follow, Digests: g.Digests, UID: g.UID, Roles: g.Roles,
		}})
	}
	for _, r := range c.Rewrites {
		cc.Rewrites = append(cc.Rewrites, catalog.Rewrite{From: r.From, To: r.To})
	}
	for _, e := range c.Exemptions {
		end, err := e.End()
		errs = append(errs, err)
		cc.Exemptions = append(cc.Exemptions, catalog.Exemption{
			Name: e.Name, Namespaces: e.Namespaces, Images: patterns(e.Images), Rules: e.Rules, Owner: e.Owner, Expires: end,
		})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return catalog.New(cc)
}

// shippedPolicies are the embedded rules and those of directories.
func shippedPolicies(dirs []string) (policy.Source, error) {
	source := policy.Source{}
	if err := source.ReadFS(policies.Files()); err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		if err := source.ReadDir(dir); err != nil {
			return nil, err
		}
	}
	return source, nil
}
