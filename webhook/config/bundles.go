package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

const (
	bundleEvery    = Duration(time.Minute) // when the file does not say
	minBundleEvery = time.Second
)

// Name is what a bundle is called in messages: its URL or its reference.
func (b Bundle) Name() string { return cmp.Or(b.URL, b.OCI) }

// files are those whose content is part of the configuration. The token is not: it is read whenever it is sent.
func (b Bundle) files() []string {
	files := []string{b.CA}
	if b.Verification != nil {
		files = append(files, b.Verification.KeyFile)
	}
	return files
}

// bundles checks what can be told from the file. Keys and certificates are loaded, and judged, where they are used.
func (v *validator) bundles(f *File) {
	seen := map[string]bool{}
	for i := range f.Policies.Bundles {
		b, path := &f.Policies.Bundles[i], fmt.Sprintf("policies.bundles[%d]", i)
		switch {
		case (b.URL == "") == (b.OCI == ""):
			v.bad(path, "want exactly one of url and oci")
		case b.URL != "":
			v.bundleURL(path+".url", b.URL)
		default:
			v.bundleImage(path, b, f.Registries)
		}
		if name := b.Name(); name != "" && seen[name] {
			v.bad(path, "%s stands there twice", name)
		}
		seen[b.Name()] = true
		for key, file := range map[string]string{".ca": b.CA, ".credentials": b.Credentials} {
			if file != "" && !filepath.IsAbs(file) {
				v.bad(path+key, "want an absolute path, not %q", file)
			}
		}
		if b.Every == 0 {
			b.Every = bundleEvery
		} else if time.Duration(b.Every) < minBundleEvery {
			v.bad(path+".every", "want at least %s", minBundleEvery)
		}
		v.bundleSigned(path, b)
	}
}

func (v *validator) bundleURL(path, text string) {
	v.url(path, text, "https://policies.corp.example/bundles/workspaces.tar.gz")
}

// url wants one that may stand in a log, and at which nobody on the way can change or read anything.
func (v *validator) url(path, text, example string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		v.bad(path, "want a URL such as %s, not %q", example, text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		v.bad(path, "want a URL without credentials, query and fragment: it stands in logs")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		v.bad(path, "want a URL that begins with https://; plain http is for the loopback interface alone")
	}
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func (v *validator) bundleImage(path string, b *Bundle, registries []Registry) {
	ref, err := webhook.ParseReference(b.OCI)
	switch {
	case err != nil:
		v.bad(path+".oci", "%v", err)
	case ref.Tag == "" && ref.Digest == "":
		v.bad(path+".oci", "want a tag or a digest, as in registry.corp.example:5000/policies/workspaces:v1")
	case !slices.ContainsFunc(registries, func(r Registry) bool { return r.Host == ref.Registry }):
		v.bad(path+".oci", "%s is not in registries", ref.Registry)
	}
	if b.CA != "" || b.Credentials != "" {
		v.bad(path, "ca and credentials are for url; a registry has its own in registries")
	}
}

func (v *validator) bundleSigned(path string, b *Bundle) {
	switch {
	case b.Unsigned && b.Verification != nil:
		v.bad(path+".unsigned", "want one of verification and unsigned")
	case b.Unsigned:
		v.doubt(path+".unsigned", "%s is not verified: whoever can write there decides what is admitted", b.Name())
	case b.Verification == nil:
		v.bad(path+".verification", "is missing: give the keyFile of who signs the bundle, or write unsigned: true")
	case b.Verification.KeyFile == "":
		v.bad(path+".verification.keyFile", "is missing")
	case !filepath.IsAbs(b.Verification.KeyFile):
		v.bad(path+".verification.keyFile", "want an absolute path, not %q", b.Verification.KeyFile)
	}
}
