package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hallmark-admission/hallmark/webhook"
)

// A validator checks a file and gathers problems.
type validator struct {
	root     *yaml.Node
	problems []Problem
	now      time.Time
}

func (v *validator) add(p Problem) { v.problems = append(v.problems, p) }

// bad records a mistake at a path.
func (v *validator) bad(path, format string, args ...any) {
	v.add(Problem{Line: v.line(path), Path: path, Message: fmt.Sprintf(format, args...)})
}

// doubt records a warning at a path.
func (v *validator) doubt(path, format string, args ...any) {
	v.add(Problem{Line: v.line(path), Path: path, Message: fmt.Sprintf(format, args...), Warning: true})
}

// line finds the line of "registries[0].host", or of the nearest place around it.
func (v *validator) line(path string) int {
	node := v.root
	if node == nil || len(node.Content) == 0 {
		return 0
	}
	node = node.Content[0]
	line := 0
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		next := (*yaml.Node)(nil)
		switch node.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(node.Content); i += 2 {
				if node.Content[i].Value == step {
					next, line = node.Content[i+1], node.Content[i].Line
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(step); err == nil && i < len(node.Content) {
				next = node.Content[i]
				line = next.Line
			}
		}
		if next == nil {
			return line
		}
		node = next
	}
	return line
}

// file checks everything.
func (v *validator) file(f *File) {
	if f.APIVersion != APIVersion || f.Kind != Kind {
		v.bad("apiVersion", "want apiVersion %s and kind %s, not %q and %q", APIVersion, Kind, f.APIVersion, f.Kind)
	}
	v.mode("mode", f.Mode, webhook.Enforce, webhook.Warn, webhook.Audit)
	for _, name := range sortedKeys(f.Rules) {
		v.mode("rules."+name, f.Rules[name], webhook.Enforce, webhook.Warn, webhook.Audit, webhook.Off)
	}
	for i, n := range f.Namespaces {
		path := fmt.Sprintf("namespaces[%d]", i)
		v.globs(path+".match", n.Match)
		v.mode(path+".mode", n.Mode, webhook.Enforce, webhook.Warn, webhook.Audit)
	}
	v.registries(f.Registries)
	v.tags(&f.Tags)
	v.signers(f.Signers)
	v.tuf(f)
	v.signatures(f)
	v.attestations(f)
	v.golden(f)
	v.exemptions(f.Exemptions)
	v.breakGlass(f.BreakGlass)
	v.rewrites(f)
	v.bundles(f)
	v.decisionLog(&f.DecisionLog)
	v.rest(f)
}

func (v *validator) mode(path string, mode webhook.Mode, allowed ...webhook.Mode) {
	if !slices.Contains(allowed, mode) {
		v.bad(path, "want one of %s, not %q", join(allowed), mode)
	}
}

func (v *validator) registries(registries []Registry) {
	if len(registries) == 0 {
		v.doubt("registries", "no registry is configured, so every image is refused")
	}
	seen := map[string]bool{}
	for i, r := range registries {
		path := fmt.Sprintf("registries[%d]", i)
		v.host(path+".host", r.Host)
		if seen[r.Host] {
			v.bad(path+".host", "%s stands there twice", r.Host)
		}
		seen[r.Host] = true
		for j, pattern := range r.Repositories {
			if _, err := webhook.ParsePattern(pattern); err != nil {
				v.bad(fmt.Sprintf("%s.repositories[%d]", path, j), "%v", err)
			}
		}
		if r.PlainHTTP {
			v.doubt(path+".plainHTTP", "%s is contacted without TLS: whoever is on the way can change what a tag names", r.Host)
		}
		for j, host := range r.TokenHosts {
			v.host(fmt.Sprintf("%s.tokenHosts[%d]", path, j), host)
		}
		for j, host := range r.BlobHosts {
			v.host(fmt.Sprintf("%s.blobHosts[%d]", path, j), host)
		}
	}
}

func (v *validator) host(path, host string) {
	if host == "" {
		v.bad(path, "is missing")
	} else if err := webhook.CheckHost(host); err != nil {
		v.bad(path, "want a host such as registry.corp.example:5000, without scheme and path: %v",
			strings.TrimPrefix(err.Error(), webhook.ErrReference.Error()+": "))
	}
}

// images checks patterns that begin with a registry.
func (v *validator) images(path string, patterns []string) {
	if len(patterns) == 0 {
		v.bad(path, "is missing")
	}
	for i, pattern := range patterns {
		if _, err := webhook.ParseImagePattern(pattern); err != nil {
			v.bad(fmt.Sprintf("%s[%d]", path, i), "%v", err)
		}
	}
}

// glob is a name of a namespace in which * stands for any run of characters.
var glob = regexp.MustCompile(`^[a-z0-9*]([-a-z0-9*]*[a-z0-9*])?$`)

func (v *validator) globs(path string, globs []string) {
	if len(globs) == 0 {
		v.bad(path, "is missing")
	}
	for i, g := range globs {
		if !glob.MatchString(g) {
			v.bad(fmt.Sprintf("%s[%d]", path, i), "want the name of a namespace, in which * may stand, not %q", g)
		}
	}
}

// tagClasses repeats the names of catalog.Classes, which this package may not import; a test holds both together.
func tagClasses() []string {
	return []string{"digest", "exact", "dated", "sha", "minor", "major", "distro", "branch", "rolling", "untagged", "named"}
}

func (v *validator) tags(t *Tags) {
	if len(t.Allow) == 0 {
		v.bad("tags.allow", "is missing: say which classes of tags are allowed, for instance [digest, exact, dated]")
	}
	v.classes("tags.allow", t.Allow)
	v.ownClasses(t.Classes)
	for i, r := range t.Repositories {
		path := fmt.Sprintf("tags.repositories[%d]", i)
		v.images(path+".match", r.Match)
		if len(r.Allow) == 0 {
			v.bad(path+".allow", "is missing")
		}
		v.classes(path+".allow", r.Allow)
		v.pattern(path+".pattern", r.Pattern)
	}
}

// ownClasses checks classes of one's own. Digest and untagged are no classes of a tag.
func (v *validator) ownClasses(classes []TagClass) {
	for i, c := range classes {
		path := fmt.Sprintf("tags.classes[%d]", i)
		v.images(path+".match", c.Match)
		v.pattern(path+".pattern", c.Pattern)
		if !slices.Contains(tagClasses(), c.Class) || c.Class == "digest" || c.Class == "untagged" {
			v.bad(path+".class", "want the class of a tag, not %q; the classes are %s", c.Class, join(tagClasses()))
		}
	}
}

func (v *validator) classes(path string, classes []string) {
	for i, class := range classes {
		if !slices.Contains(tagClasses(), class) {
			v.bad(fmt.Sprintf("%s[%d]", path, i), "%q is not a class of tags; the classes are %s", class, join(tagClasses()))
		}
	}
}

// pattern checks a regular expression that Hallmark anchors at both ends. Anchors and flags of its own could only undo
// that.
func (v *validator) pattern(path, pattern string) {
	if pattern == "" {
		return
	}
	if _, err := webhook.CompileWhole(pattern); err != nil {
		v.bad(path, "%v", err)
	}
}

func (v *validator) rewrites(f *File) {
	for i, r := range f.Rewrites {
		path := fmt.Sprintf("rewrites[%d]", i)
		for side, name := range map[string]string{".from": r.From, ".to": r.To} {
			host, _, _ := strings.Cut(name, "/")
			if _, err := webhook.ParseReference(name + "/x"); err != nil || !strings.ContainsAny(host, ".:") && host != "localhost" {
				v.bad(path+side, "want a registry, with path segments behind it or not, such as docker.io/codercom; not %q", name)
			}
		}
		host, _, _ := strings.Cut(r.To, "/")
		if !slices.ContainsFunc(f.Registries, func(r Registry) bool { return r.Host == host }) {
			v.bad(path+".to", "%s is not in registries", host)
		}
	}
}

// maxPullSecretTTL: the kubelet remembers a secret for about a minute.
const maxPullSecretTTL = 5 * time.Minute

// rest checks what is left: single values, and keys that this version cannot obey. Ignoring one of those could admit
// what its author meant to refuse.
func (v *validator) rest(f *File) {
	switch f.Pin.Pods {
	case webhook.PinRewrite, webhook.PinAnnotate, webhook.PinOff:
	default:
		v.bad("pin.pods", "want one of rewrite, annotate, off, not %q", f.Pin.Pods)
	}
	if u := f.Workspaces.UnresolvableEnv; u != "deny" && u != "allow" {
		v.bad("workspaces.unresolvableEnv", "want deny or allow, not %q", u)
	}
	if help := f.Message.HelpURL; help != "" {
		if u, err := url.Parse(help); err != nil || u.Scheme != "https" && u.Scheme != "http" || len(help) > 200 {
			v.bad("message.helpURL", "want a URL of at most 200 characters")
		}
	}
	for _, limit := range []struct {
		path  string
		value int
	}{
		{"limits.signatures", f.Limits.Signatures}, {"limits.attestations", f.Limits.Attestations},
		{"limits.indexChildren", f.Limits.IndexChildren},
		{"limits.requestsPerSecond", f.Limits.RequestsPerSecond},
	} {
		if limit.value <= 0 {
			v.bad(limit.path, "want a number above 0")
		}
	}
	if time.Duration(f.Limits.Deadline) > 29*time.Second {
		v.bad("limits.deadline", "want less than the 30s that the API server waits at most")
	}
	if time.Duration(f.PullSecrets.CacheTTL) > maxPullSecretTTL {
		v.bad("pullSecrets.cacheTTL", "want at most %s: a secret that was taken away would open its registry for as long", maxPullSecretTTL)
	}
	if dir := f.Cache.Dir; dir != "" && !filepath.IsAbs(dir) {
		v.bad("cache.dir", "want an absolute path, not %q", dir)
	}
}

func join[T ~string](values []T) string {
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(v))
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
