package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hallmark-admission/hallmark/webhook"
)

// trustTUF as a trustedRoot is the root that is read by TUF.
const trustTUF = "tuf"

// signers checks what can be told from the file. Keys, roots and identities are loaded, and judged, where they are used.
func (v *validator) signers(signers map[string]Signer) {
	for _, signer := range sortedKeys(signers) {
		s, path := signers[signer], "signers."+signer
		given := 0
		for _, is := range []bool{s.Key != "", s.KeyFile != "", s.KMS != "", s.Keyless != nil} {
			if is {
				given++
			}
		}
		if given != 1 {
			v.bad(path, "want exactly one of key, keyFile, kms and keyless")
		}
		if k := s.Keyless; k != nil {
			v.keyless(path, k)
			if s.TrustedRoot == "" {
				v.bad(path+".trustedRoot", "is missing: name the trusted_root.json of the authority whose certificates count, "+
					"or write tuf to have it read from the network")
			}
		}
		if r := s.TrustedRoot; r != "" && r != trustTUF && !filepath.IsAbs(r) {
			v.bad(path+".trustedRoot", "want an absolute path or tuf, not %q", r)
		}
		v.demand(path+".transparencyLog", s.TransparencyLog, "required", "optional", "ignored")
		v.demand(path+".timestamp", s.Timestamp, "required", "optional", "ignored")
		v.demand(path+".sct", s.SCT, "required", "ignored")
		v.lifetime(path, s)
	}
}

func (v *validator) keyless(path string, k *Keyless) {
	if k.Issuer == "" || k.Subject == "" && k.SubjectPattern == "" {
		v.bad(path+".keyless", "an identity needs an issuer and a subject or subjectPattern; an empty one would trust everybody")
	}
	if k.Subject != "" && k.SubjectPattern != "" {
		v.bad(path+".keyless", "want one of subject and subjectPattern")
	}
	v.pattern(path+".keyless.subjectPattern", k.SubjectPattern)
}

func (v *validator) demand(path, demand string, allowed ...string) {
	if demand != "" && !slices.Contains(allowed, demand) {
		v.bad(path, "want one of %s, not %q", strings.Join(allowed, ", "), demand)
	}
}

// lifetime warns of keys that have ceased to count, or soon will.
func (v *validator) lifetime(path string, s Signer) {
	end := s.NotAfter.Time
	switch {
	case end.IsZero():
	case !end.After(v.now):
		v.doubt(path+".notAfter", "the key has expired: only signatures count that a log or a timestamp proves to be older")
	case end.Before(v.now.AddDate(0, 0, 14)):
		v.doubt(path+".notAfter", "the key expires within 14 days")
	}
}

func (v *validator) tuf(f *File) {
	used := slices.ContainsFunc(sortedKeys(f.Signers), func(name string) bool { return f.Signers[name].TrustedRoot == trustTUF })
	if f.TUF.URL != "" {
		if u, err := url.Parse(f.TUF.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			v.bad("tuf.url", "want the URL of a TUF repository, not %q", f.TUF.URL)
		}
	}
	if f.TUF != (TUF{}) && !used {
		v.doubt("tuf", "is for nothing: no signer has trustedRoot: tuf")
	}
}

func (v *validator) signatures(f *File) {
	for i, s := range f.Signatures {
		path := fmt.Sprintf("signatures[%d]", i)
		v.images(path+".match", s.Match)
		v.signerNames(path+".anyOf", s.AnyOf, f.Signers)
		if s.Threshold == 0 {
			f.Signatures[i].Threshold = 1
		} else if s.Threshold < 0 || s.Threshold > len(s.AnyOf) {
			v.bad(path+".threshold", "want a number from 1 to the %d signers of anyOf", len(s.AnyOf))
		}
		v.demand(path+".repository", string(s.Repository), string(webhook.RepositoryMatch), string(webhook.RepositoryRequire),
			string(webhook.RepositoryAny))
		v.demand(path+".platforms", string(s.Platforms), string(webhook.PlatformsExact), string(webhook.PlatformsInherit),
			string(webhook.PlatformsEach))
	}
}

func (v *validator) attestations(f *File) {
	for i, a := range f.Attestations {
		path := fmt.Sprintf("attestations[%d]", i)
		v.images(path+".match", a.Match)
		v.signerNames(path+".anyOf", a.AnyOf, f.Signers)
		switch {
		case a.PredicateType == "":
			v.bad(path+".predicateType", "is missing: for instance https://slsa.dev/provenance/v1")
		case !strings.Contains(a.PredicateType, "/") || strings.ContainsAny(a.PredicateType, " \t\n*"):
			v.bad(path+".predicateType", "want a predicate type in full, such as https://slsa.dev/provenance/v1, not %q", a.PredicateType)
		}
	}
}

func (v *validator) signerNames(path string, names []string, signers map[string]Signer) {
	if len(names) == 0 {
		v.bad(path, "is missing")
	}
	for i, name := range names {
		if _, ok := signers[name]; !ok {
			v.bad(fmt.Sprintf("%s[%d]", path, i), "signer %q is not in signers", name)
		}
		if slices.Contains(names[:i], name) {
			v.bad(fmt.Sprintf("%s[%d]", path, i), "signer %q stands there twice", name)
		}
	}
}
