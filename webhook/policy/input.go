package policy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/hallmark-admission/hallmark/webhook"
)

// knownTerms are of texts that stand in nearly every input: names of members, and values of which there are few. Each is
// made once and used by all evaluations, which never change a term.
var knownTerms = termsOf(
	"CREATE", "CronJob", "DaemonSet", "Deployment", "Job", "Pod", "ReplicaSet", "StatefulSet", "UPDATE", "active",
	"allow", "anyOf", "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.index.v1+json",
	"application/vnd.oci.image.manifest.v1+json", "attestations", "attestationsFound", "attestationsRejected",
	"attested", "attestedBy", "branch", "builder", "catalogue", "changed", "class", "container", "created", "dated",
	"decommissioned", "defaultTag", "denyDeprecated", "deprecated", "derivable", "derivedFrom", "derivedUnsigned",
	"digest", "digests", "distro", "docker.io", "dryRun", "effective", "env_names", "ephemeral", "error", "exact",
	"exemptions", "fact", "golden", "groups", "host", "identity", "image", "images", "init", "inner", "issuer", "kind",
	"labels", "layers", "linux/amd64", "linux/arm64", "major", "match", "mediaType", "minor", "name", "named",
	"namespace", "object", "old", "operation", "owner", "patch", "path", "pattern", "platform", "platforms", "pod",
	"pointer", "predicate", "predicateType", "privileged", "product", "reason", "ref", "registry", "registryEntry",
	"repository", "request", "role", "roleAllowed", "roles", "rolling", "root", "rules", "scope", "sha", "sidecar",
	"signatures", "signaturesFound", "signaturesRejected", "signed", "signedAt", "signedBy", "signer", "source",
	"status", "subresource", "successor", "tag", "tagClass", "tagDigest", "tagRule", "template", "threshold", "time",
	"title", "uid", "unknown", "untagged", "user", "verifiable", "version", "volume", "where", "windows", "workspace",
)

func termsOf(words ...string) map[string]*ast.Term {
	terms := make(map[string]*ast.Term, len(words))
	for _, word := range words {
		terms[word] = ast.StringTerm(word)
	}
	return terms
}

// input writes the document that rules see; policies/schema/input.json describes it. What no rule reads is left out, as
// far as it costs something or differs from one workspace to the next.
func (d *document) input(in *webhook.Input, some reads) error {
	d.mark(markObject)
	d.request(in, some)
	d.object("workspace")
	if some.workspace {
		d.optional("product", in.Workspace.Product)
		d.optional("owner", in.Workspace.Owner)
		d.optional("name", in.Workspace.Name)
		d.optional("template", in.Workspace.Template)
	}
	d.end()
	d.array("images")
	for _, image := range in.Images {
		d.element()
		if err := d.image(image, some); err != nil {
			return err
		}
		d.end()
	}
	d.end()
	if some.object {
		for _, part := range []struct {
			name string
			json []byte
		}{{"object", in.Request.Object}, {"old", in.Request.OldObject}} {
			if len(part.json) == 0 {
				continue
			}
			if !jsontext.Value(part.json).IsValid() {
				return fmt.Errorf("convert input.%s: a name stands twice in an object", part.name)
			}
			value, err := ast.ValueFromReader(bytes.NewReader(part.json))
			if err != nil {
				return fmt.Errorf("convert input.%s: %w", part.name, err)
			}
			d.term(part.name, sha256.Sum256(part.json), ast.NewTerm(value))
		}
	}
	d.end()
	return nil
}

func (d *document) request(in *webhook.Input, some reads) {
	r := in.Request
	d.object("request")
	for _, member := range []struct{ name, value string }{
		{"uid", r.UID}, {"operation", string(r.Operation)}, {"namespace", r.Namespace}, {"name", r.Name}, {"kind", r.Kind},
		{"subresource", r.SubResource},
	} {
		if some.request[member.name] {
			d.string(member.name, member.value)
		}
	}
	if some.request["time"] {
		d.string("time", in.Time.UTC().Format(time.RFC3339))
	}
	if some.request["dryRun"] {
		d.bool("dryRun", r.DryRun)
	}
	if some.request["user"] {
		d.object("user")
		d.string("name", r.User.Name)
		d.strings("groups", r.User.Groups)
		d.end()
	}
	d.end()
}

func (d *document) image(image *webhook.Image, some reads) error {
	d.string("where", image.Where)
	d.string("pointer", image.Pointer)
	d.string("role", string(image.Role))
	d.bool("changed", image.Changed)
	d.bool("privileged", image.Privileged())
	if image.User.Known && image.User.Applies {
		d.user(image.User)
	}
	if image.Error != "" {
		d.string("error", image.Error)
		return nil
	}
	ref := image.Ref
	d.string("ref", ref.String())
	d.string("registry", ref.Registry)
	d.string("repository", ref.Repository)
	d.string("name", path.Base(ref.Repository))
	d.optional("tag", ref.Tag)
	d.optional("digest", ref.Digest)
	d.entry(&image.Entry)
	d.demands(image)
	return d.facts(image, some)
}

// demands are what must be signed and attested, and by whom it is as far as that was looked for.
func (d *document) demands(image *webhook.Image) {
	d.array("signedBy")
	for _, rule := range image.Entry.Signed {
		d.element()
		d.strings("anyOf", rule.AnyOf)
		d.int("threshold", rule.Threshold)
		if image.Signatures != nil {
			d.strings("signed", rule.SignedBy(image.Signatures.Valid))
		}
		d.end()
	}
	d.end()
	d.array("attestedBy")
	for _, rule := range image.Entry.Attested {
		d.element()
		d.string("predicateType", rule.PredicateType)
		d.strings("anyOf", rule.AnyOf)
		if image.Attested != nil {
			d.bool("attested", rule.Satisfied(image.Attested.Valid))
		}
		d.end()
	}
	d.end()
}

// entry is what the configuration says of the image.
func (d *document) entry(entry *webhook.CatalogueEntry) {
	if entry.Path != nil {
		d.texts("path", entry.Path)
	}
	d.string("tagClass", entry.TagClass)
	if len(entry.Version) > 0 {
		d.object("version")
		for i, name := range [...]string{"major", "minor", "patch"} {
			if i < len(entry.Version) {
				d.int(name, entry.Version[i])
			}
		}
		d.end()
	}
	d.object("registryEntry")
	d.bool("host", entry.Registry.Host)
	d.bool("repository", entry.Registry.Repository)
	d.end()
	d.tagRule(entry.Tags)
	d.golden(entry.Golden)
	d.bool("derivable", len(entry.Bases) > 0)
	d.array("exemptions")
	for _, e := range entry.Exemptions {
		d.element()
		d.string("name", e.Name)
		d.strings("rules", e.Rules)
		d.end()
	}
	d.end()
}

// texts writes a map in the order of its keys, so that the same map is always the same bytes.
func (d *document) texts(name string, m map[string]string) {
	d.object(name)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		d.string(k, m[k])
	}
	d.end()
}

func (d *document) tagRule(rule *webhook.TagRule) {
	if rule == nil {
		d.null("tagRule")
		return
	}
	d.object("tagRule")
	d.strings("allow", rule.Allow)
	d.string("pattern", rule.Pattern)
	d.bool("class", rule.Class)
	d.bool("match", rule.Match)
	d.bool("digest", rule.Digest)
	d.end()
}

func (d *document) golden(golden *webhook.Golden) {
	if golden == nil {
		d.null("golden")
		return
	}
	d.object("golden")
	d.string("name", golden.Name)
	d.string("repository", golden.Repository)
	d.optional("title", golden.Title)
	d.optional("owner", golden.Owner)
	d.string("status", golden.Status)
	d.bool("denyDeprecated", golden.DenyDeprecated)
	d.optional("scope", golden.Scope)
	d.optional("successor", golden.Successor)
	d.optional("defaultTag", golden.DefaultTag)
	if golden.Follow == "locked" {
		d.strings("digests", golden.Digests)
	}
	if golden.UID != nil {
		d.int("uid", int(*golden.UID))
	}
	d.strings("roles", golden.Roles)
	d.bool("roleAllowed", golden.Role)
	d.end()
}

// derived is the golden image that an image is built on, with its digest, or null.
func (d *document) derived(derived *webhook.Derived) {
	if derived.From == nil {
		d.null("derivedFrom")
		return
	}
	d.object("derivedFrom")
	d.string("name", derived.From.Name)
	d.string("repository", derived.From.Repository)
	d.string("digest", derived.Digest)
	d.string("status", derived.From.Status)
	d.bool("denyDeprecated", derived.From.DenyDeprecated)
	d.optional("successor", derived.From.Successor)
	d.bool("roleAllowed", derived.From.Role)
	d.end()
}

func (d *document) user(user webhook.User) {
	d.object("user")
	d.string("effective", user.Effective)
	d.string("source", user.Source)
	d.optional("platform", user.Platform)
	d.bool("root", user.Root)
	d.bool("verifiable", user.Verifiable)
	d.bool("windows", user.Windows)
	d.end()
}

// facts are what was fetched.
func (d *document) facts(image *webhook.Image, some reads) error {
	d.optional("tagDigest", image.TagDigest)
	if image.Content != nil && some.image {
		d.content(image.Content)
	}
	if s := image.Signatures; s != nil {
		d.array("signatures")
		for _, signature := range s.Valid {
			d.element()
			d.string("signer", signature.Signer)
			d.string("digest", signature.Digest)
			d.optional("identity", signature.Identity)
			d.optional("issuer", signature.Issuer)
			d.moment("signedAt", signature.At)
			d.end()
		}
		d.end()
		d.int("signaturesFound", s.Found)
		d.strings("signaturesRejected", s.Rejected)
	}
	if derived := image.Derived; derived != nil {
		d.derived(derived)
		d.optional("derivedUnsigned", derived.Unsigned)
	}
	if err := d.attestations(image.Attested); err != nil {
		return err
	}
	d.array("unknown")
	for _, u := range image.Unknown {
		d.element()
		d.string("fact", u.Fact.String())
		d.string("reason", u.Reason)
		d.end()
	}
	d.end()
	return nil
}

// predicate is one that was converted, and what tells it from others.
type predicate struct {
	term     *ast.Term
	identity [sha256.Size]byte
}

func convertPredicate(json []byte) (any, error) {
	if len(json) == 0 {
		return predicate{term: ast.InternedNullTerm}, nil
	}
	value, err := ast.ValueFromReader(bytes.NewReader(json))
	return predicate{ast.NewTerm(value), sha256.Sum256(json)}, err
}

// attestations are what is attested. A predicate is converted once, however many requests read it.
func (d *document) attestations(attested *webhook.Attestations) error {
	if attested == nil {
		return nil
	}
	d.array("attestations")
	for _, attestation := range attested.Valid {
		d.element()
		d.string("predicateType", attestation.PredicateType)
		d.string("signer", attestation.Signer)
		d.string("digest", attestation.Digest)
		d.optional("identity", attestation.Identity)
		d.optional("issuer", attestation.Issuer)
		d.moment("signedAt", attestation.At)
		converted, err := attestation.Predicate.Converted(convertPredicate)
		if err != nil {
			return fmt.Errorf("convert the predicate %s by %s: %w", attestation.PredicateType, attestation.Signer, err)
		}
		predicate, ok := converted.(predicate)
		if !ok {
			return fmt.Errorf("the predicate %s was converted for something else", attestation.PredicateType)
		}
		d.term("predicate", predicate.identity, predicate.term)
		d.end()
	}
	d.end()
	d.int("attestationsFound", attested.Found)
	d.strings("attestationsRejected", attested.Rejected)
	return nil
}

func (d *document) content(content *webhook.Content) {
	d.object("image")
	d.string("digest", content.Digest)
	d.string("mediaType", content.MediaType)
	if len(content.Platforms) > 0 {
		first := content.Platforms[0]
		d.array("platforms")
		for _, platform := range content.Platforms {
			d.text(platform.Name())
		}
		d.end()
		d.string("user", first.User)
		d.texts("labels", first.Labels)
		d.strings("env_names", first.EnvNames)
		d.moment("created", first.Created)
		d.strings("layers", first.Layers)
	}
	d.end()
}
