package policy

import (
	"bytes"
	"fmt"
	"path"
	"time"

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

func stringTerm(text string) *ast.Term {
	if term := knownTerms[text]; term != nil {
		return term
	}
	return ast.InternedTerm(text)
}

// fields collects the members of an object of the input.
type fields struct {
	terms [][2]*ast.Term
}

// room makes fields for about n members.
func room(n int) fields { return fields{make([][2]*ast.Term, 0, n)} }

func (f *fields) term(name string, value *ast.Term) {
	f.terms = append(f.terms, [2]*ast.Term{stringTerm(name), value})
}

func (f *fields) string(name, value string) { f.term(name, stringTerm(value)) }

// optional leaves out what is empty.
func (f *fields) optional(name, value string) {
	if value != "" {
		f.string(name, value)
	}
}

// moment leaves out what is not known.
func (f *fields) moment(name string, t time.Time) {
	if !t.IsZero() {
		f.string(name, t.UTC().Format(time.RFC3339))
	}
}

func (f *fields) bool(name string, value bool) { f.term(name, ast.InternedTerm(value)) }

func (f *fields) int(name string, value int) { f.term(name, ast.InternedTerm(value)) }

func (f *fields) strings(name string, values []string) {
	terms := make([]*ast.Term, len(values))
	for i, v := range values {
		terms[i] = stringTerm(v)
	}
	f.term(name, ast.ArrayTerm(terms...))
}

func (f *fields) object() *ast.Term { return ast.ObjectTerm(f.terms...) }

func mapTerm(m map[string]string) *ast.Term {
	f := room(len(m))
	for k, v := range m {
		f.terms = append(f.terms, [2]*ast.Term{ast.StringTerm(k), ast.StringTerm(v)})
	}
	return f.object()
}

// reads is what is converted only when some rule reads it.
type reads struct {
	object bool // input.object and input.old
	time   bool // input.request.time, without which the same request always has the same input
}

// inputOf builds the document that rules see; policies/schema/input.json describes it.
func inputOf(in *webhook.Input, some reads) (ast.Value, error) {
	root := room(5)
	root.term("request", requestTerm(in, some))
	workspace := room(4)
	workspace.optional("product", in.Workspace.Product)
	workspace.optional("owner", in.Workspace.Owner)
	workspace.optional("name", in.Workspace.Name)
	workspace.optional("template", in.Workspace.Template)
	root.term("workspace", workspace.object())
	images := make([]*ast.Term, len(in.Images))
	for i, image := range in.Images {
		var err error
		if images[i], err = imageTerm(image); err != nil {
			return nil, err
		}
	}
	root.term("images", ast.ArrayTerm(images...))
	if some.object {
		for _, part := range []struct {
			name string
			json []byte
		}{{"object", in.Request.Object}, {"old", in.Request.OldObject}} {
			if len(part.json) == 0 {
				continue
			}
			value, err := ast.ValueFromReader(bytes.NewReader(part.json))
			if err != nil {
				return nil, fmt.Errorf("convert input.%s: %w", part.name, err)
			}
			root.term(part.name, ast.NewTerm(value))
		}
	}
	return root.object().Value, nil
}

func requestTerm(in *webhook.Input, some reads) *ast.Term {
	r := in.Request
	user, request := room(2), room(9)
	if some.time {
		request.string("time", in.Time.UTC().Format(time.RFC3339))
	}
	user.string("name", r.User.Name)
	user.strings("groups", r.User.Groups)
	request.string("uid", r.UID)
	request.string("operation", string(r.Operation))
	request.string("namespace", r.Namespace)
	request.string("name", r.Name)
	request.string("kind", r.Kind)
	request.string("subresource", r.SubResource)
	request.bool("dryRun", r.DryRun)
	request.term("user", user.object())
	return request.object()
}

func imageTerm(image *webhook.Image) (*ast.Term, error) {
	f := room(32)
	f.string("where", image.Where)
	f.string("pointer", image.Pointer)
	f.string("role", string(image.Role))
	f.bool("changed", image.Changed)
	f.bool("privileged", image.Privileged())
	if image.User.Known && image.User.Applies {
		f.term("user", userTerm(image.User))
	}
	if image.Error != "" {
		f.string("error", image.Error)
		return f.object(), nil
	}
	ref := image.Ref
	f.string("ref", ref.String())
	f.string("registry", ref.Registry)
	f.string("repository", ref.Repository)
	f.string("name", path.Base(ref.Repository))
	f.optional("tag", ref.Tag)
	f.optional("digest", ref.Digest)
	entryTerms(&f, &image.Entry)
	ruleTerms(&f, image)
	if err := factTerms(&f, image); err != nil {
		return nil, err
	}
	return f.object(), nil
}

// ruleTerms adds what must be signed and attested, and by whom it is as far as that was looked for.
func ruleTerms(f *fields, image *webhook.Image) {
	signedBy := make([]*ast.Term, len(image.Entry.Signed))
	for i, rule := range image.Entry.Signed {
		signed := room(3)
		signed.strings("anyOf", rule.AnyOf)
		signed.int("threshold", rule.Threshold)
		if image.Signatures != nil {
			signed.strings("signed", rule.SignedBy(image.Signatures.Valid))
		}
		signedBy[i] = signed.object()
	}
	f.term("signedBy", ast.ArrayTerm(signedBy...))
	attestedBy := make([]*ast.Term, len(image.Entry.Attested))
	for i, rule := range image.Entry.Attested {
		attested := room(3)
		attested.string("predicateType", rule.PredicateType)
		attested.strings("anyOf", rule.AnyOf)
		if image.Attested != nil {
			attested.bool("attested", rule.Satisfied(image.Attested.Valid))
		}
		attestedBy[i] = attested.object()
	}
	f.term("attestedBy", ast.ArrayTerm(attestedBy...))
}

// entryTerms adds what the configuration says of the image.
func entryTerms(f *fields, entry *webhook.CatalogueEntry) {
	if entry.Path != nil {
		f.term("path", mapTerm(entry.Path))
	}
	f.string("tagClass", entry.TagClass)
	if len(entry.Version) > 0 {
		version := room(3)
		for i, name := range [...]string{"major", "minor", "patch"} {
			if i < len(entry.Version) {
				version.int(name, entry.Version[i])
			}
		}
		f.term("version", version.object())
	}
	registry := room(2)
	registry.bool("host", entry.Registry.Host)
	registry.bool("repository", entry.Registry.Repository)
	f.term("registryEntry", registry.object())
	f.term("tagRule", tagRuleTerm(entry.Tags))
	f.term("golden", goldenTerm(entry.Golden))
	f.bool("derivable", len(entry.Bases) > 0)
	exemptions := make([]*ast.Term, len(entry.Exemptions))
	for i, e := range entry.Exemptions {
		exemption := room(2)
		exemption.string("name", e.Name)
		exemption.strings("rules", e.Rules)
		exemptions[i] = exemption.object()
	}
	f.term("exemptions", ast.ArrayTerm(exemptions...))
}

func tagRuleTerm(rule *webhook.TagRule) *ast.Term {
	if rule == nil {
		return ast.InternedNullTerm
	}
	f := room(5)
	f.strings("allow", rule.Allow)
	f.string("pattern", rule.Pattern)
	f.bool("class", rule.Class)
	f.bool("match", rule.Match)
	f.bool("digest", rule.Digest)
	return f.object()
}

func goldenTerm(golden *webhook.Golden) *ast.Term {
	if golden == nil {
		return ast.InternedNullTerm
	}
	f := room(13)
	f.string("name", golden.Name)
	f.string("repository", golden.Repository)
	f.optional("title", golden.Title)
	f.optional("owner", golden.Owner)
	f.string("status", golden.Status)
	f.bool("denyDeprecated", golden.DenyDeprecated)
	f.optional("scope", golden.Scope)
	f.optional("successor", golden.Successor)
	f.optional("defaultTag", golden.DefaultTag)
	if golden.Follow == "locked" {
		f.strings("digests", golden.Digests)
	}
	if golden.UID != nil {
		f.int("uid", int(*golden.UID))
	}
	f.strings("roles", golden.Roles)
	f.bool("roleAllowed", golden.Role)
	return f.object()
}

// derivedTerm is the golden image that an image is built on, with its digest, or null.
func derivedTerm(derived *webhook.Derived) *ast.Term {
	if derived.From == nil {
		return ast.InternedNullTerm
	}
	f := room(7)
	f.string("name", derived.From.Name)
	f.string("repository", derived.From.Repository)
	f.string("digest", derived.Digest)
	f.string("status", derived.From.Status)
	f.bool("denyDeprecated", derived.From.DenyDeprecated)
	f.optional("successor", derived.From.Successor)
	f.bool("roleAllowed", derived.From.Role)
	return f.object()
}

func userTerm(user webhook.User) *ast.Term {
	f := room(6)
	f.string("effective", user.Effective)
	f.string("source", user.Source)
	f.optional("platform", user.Platform)
	f.bool("root", user.Root)
	f.bool("verifiable", user.Verifiable)
	f.bool("windows", user.Windows)
	return f.object()
}

// factTerms adds what was fetched.
func factTerms(f *fields, image *webhook.Image) error {
	f.optional("tagDigest", image.TagDigest)
	if image.Content != nil {
		f.term("image", contentTerm(image.Content))
	}
	if s := image.Signatures; s != nil {
		valid := make([]*ast.Term, len(s.Valid))
		for i, signature := range s.Valid {
			v := room(5)
			v.string("signer", signature.Signer)
			v.string("digest", signature.Digest)
			v.optional("identity", signature.Identity)
			v.optional("issuer", signature.Issuer)
			v.moment("signedAt", signature.At)
			valid[i] = v.object()
		}
		f.term("signatures", ast.ArrayTerm(valid...))
		f.int("signaturesFound", s.Found)
		f.strings("signaturesRejected", s.Rejected)
	}
	if d := image.Derived; d != nil {
		f.term("derivedFrom", derivedTerm(d))
		f.optional("derivedUnsigned", d.Unsigned)
	}
	if err := attestationTerms(f, image.Attested); err != nil {
		return err
	}
	unknown := make([]*ast.Term, len(image.Unknown))
	for i, u := range image.Unknown {
		entry := room(2)
		entry.string("fact", u.Fact.String())
		entry.string("reason", u.Reason)
		unknown[i] = entry.object()
	}
	f.term("unknown", ast.ArrayTerm(unknown...))
	return nil
}

// attestationTerms adds what is attested. A predicate is converted once, however many requests read it.
func attestationTerms(f *fields, attested *webhook.Attestations) error {
	if attested == nil {
		return nil
	}
	valid := make([]*ast.Term, len(attested.Valid))
	for i, attestation := range attested.Valid {
		v := room(7)
		v.string("predicateType", attestation.PredicateType)
		v.string("signer", attestation.Signer)
		v.string("digest", attestation.Digest)
		v.optional("identity", attestation.Identity)
		v.optional("issuer", attestation.Issuer)
		v.moment("signedAt", attestation.At)
		converted, err := attestation.Predicate.Converted(func(json []byte) (any, error) {
			if len(json) == 0 {
				return ast.InternedNullTerm, nil
			}
			value, err := ast.ValueFromReader(bytes.NewReader(json))
			return ast.NewTerm(value), err
		})
		if err != nil {
			return fmt.Errorf("convert the predicate %s by %s: %w", attestation.PredicateType, attestation.Signer, err)
		}
		predicate, ok := converted.(*ast.Term)
		if !ok {
			return fmt.Errorf("the predicate %s was converted for something else", attestation.PredicateType)
		}
		v.term("predicate", predicate)
		valid[i] = v.object()
	}
	f.term("attestations", ast.ArrayTerm(valid...))
	f.int("attestationsFound", attested.Found)
	f.strings("attestationsRejected", attested.Rejected)
	return nil
}

func contentTerm(content *webhook.Content) *ast.Term {
	f := room(8)
	f.string("digest", content.Digest)
	f.string("mediaType", content.MediaType)
	if len(content.Platforms) > 0 {
		names := make([]string, len(content.Platforms))
		for i, platform := range content.Platforms {
			names[i] = platform.Name()
		}
		first := content.Platforms[0]
		f.strings("platforms", names)
		f.string("user", first.User)
		f.term("labels", mapTerm(first.Labels))
		f.strings("env_names", first.EnvNames)
		if !first.Created.IsZero() {
			f.string("created", first.Created.UTC().Format(time.RFC3339))
		}
		f.strings("layers", first.Layers)
	}
	return f.object()
}
