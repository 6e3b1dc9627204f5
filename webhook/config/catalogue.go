package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// name is how things are called that messages and other entries refer to.
var name = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)

// golden checks the catalogue.
func (v *validator) golden(f *File) {
	names, repositories := map[string]bool{}, map[string]bool{}
	for i := range f.GoldenImages {
		g := &f.GoldenImages[i]
		path := fmt.Sprintf("goldenImages[%d]", i)
		if !name.MatchString(g.Name) {
			v.bad(path+".name", "want a short name in lower case, not %q", g.Name)
		}
		if names[g.Name] {
			v.bad(path+".name", "%s stands there twice", g.Name)
		}
		names[g.Name] = true
		ref, err := webhook.ParseReference(g.Repository)
		switch {
		case err != nil || ref.Tag != "" || ref.Digest != "":
			v.bad(path+".repository", "want a registry and a repository without tag, not %q", g.Repository)
		case repositories[ref.Name()]:
			v.bad(path+".repository", "another entry has the same repository; which of the two would decide is not clear")
		case ref.Name() != g.Repository:
			v.bad(path+".repository", "write it in full: %s", ref.Name())
		}
		repositories[ref.Name()] = true
		v.goldenStatus(path, g)
	}
	for i, g := range f.GoldenImages {
		path := fmt.Sprintf("goldenImages[%d]", i)
		if g.Successor != "" && !names[g.Successor] {
			v.bad(path+".successor", "no golden image is named %q", g.Successor)
		}
		if len(g.Signers) > 0 {
			v.signerNames(path+".signers", g.Signers, f.Signers)
		}
		if len(g.DerivedSigners) > 0 {
			v.signerNames(path+".derivedSigners", g.DerivedSigners, f.Signers)
		}
	}
}

func (v *validator) goldenStatus(path string, g *Golden) {
	switch g.Status {
	case "":
		g.Status = "active"
	case "active", "deprecated":
	case "decommissioned":
		if g.Successor == "" {
			v.doubt(path+".successor", "is missing, so a rejection cannot say what to use instead")
		}
	default:
		v.bad(path+".status", "want one of active, deprecated, decommissioned, not %q", g.Status)
	}
	if g.Deprecated != "" && g.Deprecated != "warn" && g.Deprecated != "deny" {
		v.bad(path+".deprecated", "want warn or deny, not %q", g.Deprecated)
	}
	if g.DefaultTag != "" {
		if _, err := webhook.ParseReference("x/y:" + g.DefaultTag); err != nil {
			v.bad(path+".defaultTag", "%v", err)
		}
	}
	if g.UID != nil && *g.UID < 0 {
		v.bad(path+".uid", "want a number from 0")
	}
	for j, role := range g.Roles {
		if !slices.Contains([]string{"workspace", "init", "sidecar", "ephemeral", "builder", "volume"}, role) {
			v.bad(fmt.Sprintf("%s.roles[%d]", path, j), "%q is not a role", role)
		}
	}
	v.follow(path, g)
	switch {
	case !g.AllowDerived && len(g.DerivedSigners) > 0:
		v.bad(path+".derivedSigners", "is for nothing without allowDerived: true")
	case g.AllowDerived && len(g.Signers)+len(g.DerivedSigners) == 0:
		v.doubt(path+".derivedSigners", "is missing, and so are signers: whoever may push can build on this image and count as golden")
	}
	if g.AllowDerived && g.DefaultTag == "" && len(g.Digests) == 0 {
		v.doubt(path+".defaultTag", "is missing: only images that name the digest of their base can be seen to be built on this one")
	}
}

// follow checks how an image follows its tags.
func (v *validator) follow(path string, g *Golden) {
	switch g.Follow {
	case "", "follow", "sticky":
		if len(g.Digests) > 0 {
			v.bad(path+".digests", "digests are for follow: locked")
		}
	case "locked":
		if len(g.Digests) == 0 {
			v.bad(path+".digests", "a locked image needs the digests that it is locked to")
		}
	default:
		v.bad(path+".follow", "want one of follow, sticky, locked, not %q", g.Follow)
	}
	for j, digest := range g.Digests {
		if _, err := webhook.ParseReference("x/y@" + digest); err != nil {
			v.bad(fmt.Sprintf("%s.digests[%d]", path, j), "want sha256: and 64 hexadecimal digits, not %q", digest)
		}
	}
}

// breakGlass refuses groups that everybody, or every pod, is in.
func (v *validator) breakGlass(b BreakGlass) {
	for i, group := range b.Groups {
		path := fmt.Sprintf("breakGlass.groups[%d]", i)
		switch {
		case group == "":
			v.bad(path, "want the name of a group")
		case group == "system:authenticated", group == "system:unauthenticated", strings.HasPrefix(group, "system:serviceaccounts"),
			group == "system:nodes":
			v.bad(path, "%s is a group that everybody of a kind is in; want one of its own, which nobody is in but by impersonation", group)
		}
	}
	if len(b.Groups) > 0 {
		v.doubt("breakGlass", "requests by members of %s are admitted whatever the rules say", join(b.Groups))
	}
}

// exemptions checks that each has everything that makes it an exemption rather than a hole.
func (v *validator) exemptions(exemptions []Exemption) {
	for i, e := range exemptions {
		path := fmt.Sprintf("exemptions[%d]", i)
		if !name.MatchString(e.Name) {
			v.bad(path+".name", "want a short name in lower case, not %q", e.Name)
		}
		v.globs(path+".namespaces", e.Namespaces)
		v.images(path+".images", e.Images)
		if len(e.Rules) == 0 {
			v.bad(path+".rules", "is missing: name the rules that do not apply")
		}
		if e.Reason == "" || e.Owner == "" {
			v.bad(path, "an exemption needs a reason and an owner")
		}
		end, err := e.End()
		switch {
		case err != nil:
			v.bad(path+".expires", "want the last day, such as 2027-03-31, not %q", e.Expires)
		case !end.After(v.now):
			v.doubt(path+".expires", "exemption %s has expired and does nothing", e.Name)
		case end.Before(v.now.AddDate(0, 0, 14)):
			v.doubt(path+".expires", "exemption %s expires within 14 days", e.Name)
		}
	}
}

// End is the moment at which the exemption ends: the end of its last day in UTC.
func (e Exemption) End() (time.Time, error) {
	day, err := time.Parse(time.DateOnly, e.Expires)
	if err != nil {
		return time.Time{}, err
	}
	return day.AddDate(0, 0, 1), nil
}
