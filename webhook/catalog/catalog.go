package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Config is the part of the configuration that a catalogue is made of. Patterns are those of webhook.Pattern.
type Config struct {
	Registries []Registry
	Tags       []TagRule // first match wins; the last one usually matches everything
	Classes    []TagClass
	Path       string // template of repository paths, such as "{company}/{department}/{software}"; "" for none
	Signed     []SignedImages
	Attested   []AttestedImages
	Golden     []Golden
	Exemptions []Exemption
	Rewrites   []Rewrite
	Now        func() time.Time
}

// Registry is a host that may be contacted, and the repositories on it; none means all.
type Registry struct {
	Host         string
	Repositories []webhook.Pattern
}

// TagRule says which tags the images that it matches may have; no Match is every image.
type TagRule struct {
	Match   []webhook.Pattern
	Allow   []string
	Pattern string // regular expression over the whole tag; "" for none
}

// TagClass gives tags of the images that it matches another class than their spelling has; the first match wins.
type TagClass struct {
	Match   []webhook.Pattern
	Pattern string // regular expression over the whole tag; "" for all
	Class   string
}

// SignedImages says who must have signed the images that it matches.
type SignedImages struct {
	Match []webhook.Pattern
	webhook.SignatureRule
}

// AttestedImages says what must be attested of the images that it matches.
type AttestedImages struct {
	Match []webhook.Pattern
	webhook.AttestationRule
}

// Golden is an approved image.
type Golden struct {
	webhook.Golden
	Signers []string // any of them must have signed it; none leaves that to SignedImages

	AllowDerived   bool     // images that are built on it are as good
	DerivedSigners []string // … when any of these has signed them; none are Signers
}

// Exemption takes rules away from images in namespaces until a time.
type Exemption struct {
	Name       string
	Namespaces []string // names, * stands for any run of characters
	Images     []webhook.Pattern
	Rules      []string
	Owner      string
	Expires    time.Time // the end of the last day
}

// A Catalogue answers for one configuration. It is safe for concurrent use.
type Catalogue struct {
	registries map[string][]webhook.Pattern
	tags       []tagRule
	classes    []tagClass
	path       []string
	signed     []SignedImages
	attested   []AttestedImages
	golden     map[string]*Golden // by repository, with its registry
	bases      []*Golden          // those that others may be built on
	names      []*Golden          // sorted by name, to suggest from
	exemptions []Exemption
	rewrites   []Rewrite
	now        func() time.Time
}

type tagClass struct {
	TagClass
	pattern *regexp.Regexp
}

type tagRule struct {
	TagRule
	pattern *regexp.Regexp
}

// New checks and compiles a catalogue, and reports every mistake.
func New(config Config) (*Catalogue, error) {
	c := &Catalogue{
		registries: make(map[string][]webhook.Pattern, len(config.Registries)),
		golden:     make(map[string]*Golden, len(config.Golden)),
		signed:     config.Signed, attested: config.Attested, exemptions: narrowestFirst(config.Exemptions), rewrites: newRewrites(config.Rewrites), now: config.Now,
	}
	var errs []error
	for _, r := range config.Registries {
		c.registries[canonicalHost(r.Host)] = r.Repositories
	}
	for i, rule := range config.Tags {
		compiled := tagRule{TagRule: rule}
		if rule.Pattern != "" {
			var err error
			if compiled.pattern, err = webhook.CompileWhole(rule.Pattern); err != nil {
				errs = append(errs, fmt.Errorf("tag rule %d: %w", i, err))
			}
		}
		c.tags = append(c.tags, compiled)
	}
	for i, class := range config.Classes {
		compiled := tagClass{TagClass: class}
		if class.Pattern != "" {
			var err error
			if compiled.pattern, err = webhook.CompileWhole(class.Pattern); err != nil {
				errs = append(errs, fmt.Errorf("tag class %d: %w", i, err))
			}
		}
		c.classes = append(c.classes, compiled)
	}
	if config.Path != "" {
		var err error
		if c.path, err = ParsePath(config.Path); err != nil {
			errs = append(errs, err)
		}
	}
	for i := range config.Golden {
		golden := &config.Golden[i]
		ref, err := webhook.ParseReference(golden.Repository)
		if err != nil || ref.Tag != "" || ref.Digest != "" {
			errs = append(errs, fmt.Errorf("golden image %s: repository %q is not a repository", golden.Name, golden.Repository))
			continue
		}
		c.golden[ref.Name()] = golden
		c.names = append(c.names, golden)
		if golden.AllowDerived {
			c.bases = append(c.bases, golden)
		}
	}
	slices.SortFunc(c.names, func(a, b *Golden) int { return strings.Compare(a.Name, b.Name) })
	return c, errors.Join(errs...)
}

// canonicalHost gives Docker Hub its one name.
func canonicalHost(host string) string {
	ref, err := webhook.ParseReference(host + "/library/x")
	if err != nil {
		return host
	}
	return ref.Registry
}

// Catalogue fills in what the configuration says of an image.
func (c *Catalogue) Catalogue(request *webhook.Request, image *webhook.Image) {
	ref := image.Ref
	name := ref.Name()
	entry := &image.Entry
	entry.Registry = c.registry(ref)
	tag := c.classify(ref)
	entry.TagClass, entry.Version = tag.Class, tag.Version
	entry.Path = matchPath(c.path, ref.Repository)
	entry.Tags = c.tagRule(name, ref.Tag, tag.Class)
	if golden := c.golden[name]; golden != nil {
		found := golden.Golden
		found.Role = len(found.Roles) == 0 || slices.Contains(found.Roles, string(image.Role))
		entry.Golden = &found
		if len(golden.Signers) > 0 {
			rule := webhook.SignatureRule{AnyOf: golden.Signers, Threshold: 1, Names: c.sources(name)}
			entry.Signed = append(entry.Signed, rule)
		}
	}
	if entry.Golden == nil {
		entry.Bases = c.basesFor(image)
	}
	for _, s := range c.signed {
		if matchAny(s.Match, name) {
			rule := s.SignatureRule
			rule.Names = c.sources(name)
			entry.Signed = append(entry.Signed, rule)
		}
	}
	for _, a := range c.attested {
		if matchAny(a.Match, name) {
			entry.Attested = append(entry.Attested, a.AttestationRule)
		}
	}
	c.exempt(request.Namespace, name, entry)
}

// basesFor are the golden images that an image may be built on.
func (c *Catalogue) basesFor(image *webhook.Image) []webhook.Base {
	var bases []webhook.Base
	for _, golden := range c.bases {
		base := webhook.Base{Golden: golden.Golden, Signers: golden.Signers, DerivedSigners: golden.DerivedSigners}
		base.Role = len(base.Roles) == 0 || slices.Contains(base.Roles, string(image.Role))
		if len(base.DerivedSigners) == 0 {
			base.DerivedSigners = golden.Signers
		}
		bases = append(bases, base)
	}
	return bases
}

// classify gives a tag the class that the configuration says, else that of its spelling.
func (c *Catalogue) classify(ref webhook.Reference) Tag {
	tag := ClassifyTag(ref.Tag, ref.Digest != "")
	if ref.Tag == "" {
		return tag
	}
	for _, class := range c.classes {
		if matchAny(class.Match, ref.Name()) && (class.pattern == nil || class.pattern.MatchString(ref.Tag)) {
			tag.Class = class.Class
			break
		}
	}
	return tag
}

func (c *Catalogue) registry(ref webhook.Reference) webhook.RegistryMatch {
	repositories, configured := c.registries[ref.Registry]
	return webhook.RegistryMatch{
		Host:       configured,
		Repository: configured && (len(repositories) == 0 || matchAny(repositories, ref.Repository)),
	}
}

// tagRule is nil when no rule covers the image, which rule "tag" refuses.
func (c *Catalogue) tagRule(name, tag, class string) *webhook.TagRule {
	for _, rule := range c.tags {
		if len(rule.Match) > 0 && !matchAny(rule.Match, name) {
			continue
		}
		return &webhook.TagRule{
			Allow: rule.Allow, Pattern: rule.TagRule.Pattern,
			Class:  slices.Contains(rule.Allow, class),
			Match:  rule.pattern == nil || tag == "" || rule.pattern.MatchString(tag),
			Digest: slices.Contains(rule.Allow, Digest),
		}
	}
	return nil
}

func (c *Catalogue) exempt(namespace, name string, entry *webhook.CatalogueEntry) {
	for _, e := range c.exemptions {
		if !matchAny(e.Images, name) || !matchGlobs(e.Namespaces, namespace) {
			continue
		}
		covers := webhook.Exemption{Name: e.Name, Rules: e.Rules, Owner: e.Owner, Ends: e.Expires}
		if c.now().Before(e.Expires) {
			entry.Exemptions = append(entry.Exemptions, covers)
		} else {
			entry.Lapsed = append(entry.Lapsed, covers)
		}
	}
}

// narrowestFirst sorts exemptions by how little they cover, so that the one that is meant for an image is named: fewer and
// more literal patterns, then fewer and more literal namespaces, then fewer rules.
func narrowestFirst(exemptions []Exemption) []Exemption {
	width := func(e Exemption) (images, namespaces int) {
		for _, pattern := range e.Images {
			images += 1 + 10*strings.Count(pattern.String(), "*")
		}
		for _, namespace := range e.Namespaces {
			namespaces += 1 + 10*strings.Count(namespace, "*")
		}
		return images, namespaces
	}
	sorted := slices.Clone(exemptions)
	slices.SortStableFunc(sorted, func(a, b Exemption) int {
		imagesA, namespacesA := width(a)
		imagesB, namespacesB := width(b)
		return cmp.Or(cmp.Compare(imagesA, imagesB), cmp.Compare(namespacesA, namespacesB), cmp.Compare(len(a.Rules), len(b.Rules)))
	})
	return sorted
}

func matchAny(patterns []webhook.Pattern, name string) bool {
	for _, p := range patterns {
		if p.Match(name) {
			return true
		}
	}
	return false
}

func matchGlobs(globs []string, name string) bool {
	for _, glob := range globs {
		if webhook.MatchName(glob, name) {
			return true
		}
	}
	return false
}
