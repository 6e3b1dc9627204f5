package signature_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

// newReferrersWorld is a world whose registry has the referrers API.
func newReferrersWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, nil)
	w.replaceRegistry(registrytest.Config{Referrers: true})
	return w
}

// replaceRegistry has the world's image in another registry.
func (w *world) replaceRegistry(config registrytest.Config) {
	w.t.Helper()
	var err error
	w.registry, err = registrytest.New(config)
	w.must(err)
	w.t.Cleanup(func() { _ = w.registry.Close() })
	w.client, err = registry.New(registry.Config{Hosts: []registry.Host{{Host: w.registry.Host(), CAPEM: w.registry.CAPEM()}}})
	w.must(err)
	w.t.Cleanup(w.client.Close)
	w.config.Fetch = w.client
	w.digest, err = w.registry.PushImage(w.t.Context(), registrytest.Image{Repository: "golden/base", Tag: "v1", User: "1000"})
	w.must(err)
	w.ref = w.parse("golden/base@" + w.digest)
}

func (w *world) bundle(key crypto.Signer, opts registrytest.BundleOptions) {
	w.t.Helper()
	if opts.Signer.Key == nil && opts.Signer.Keyless == nil {
		opts.Signer.Key = key
	}
	w.must(w.registry.SignBundle(w.t.Context(), "golden/base", w.digest, opts))
}

// TestBundles: which bundles by a key count, with the API and with the tag that stands in for it.
func TestBundles(t *testing.T) {
	type o = registrytest.BundleOptions
	tests := map[string]struct {
		opts     func(w *world, o *o)
		rule     webhook.SignatureRule
		found    int
		rejected string // "" counts; "none" is not even found
	}{
		"as cosign signs":          {found: 1},
		"of the manifest itself":   {opts: func(_ *world, o *o) { o.Message = true }, found: 1},
		"without annotations":      {opts: func(_ *world, o *o) { o.Annotations = unannotated() }, found: 1},
		"without an artifact type": {opts: func(_ *world, o *o) { o.ArtifactType = "application/vnd.oci.empty.v1+json" }, found: 1},
		"with this repository":     {opts: func(w *world, o *o) { o.Statement.SubjectName = w.ref.Name() }, rule: webhook.SignatureRule{Repository: webhook.RepositoryRequire}, found: 1},
		"with another repository": {
			opts: func(_ *world, o *o) { o.Statement.SubjectName = "registry.corp.example/golden/other" }, found: 1,
			rejected: `right key, other repository "registry.corp.example/golden/other"`,
		},
		"with another repository, which is the mirror's origin": {
			opts: func(_ *world, o *o) { o.Statement.SubjectName = "ghcr.io/corp/base" },
			rule: webhook.SignatureRule{Names: []string{"ghcr.io/corp/base"}}, found: 1,
		},
		"with another repository, when any will do": {
			opts: func(_ *world, o *o) { o.Statement.SubjectName = "registry.corp.example/golden/other" },
			rule: webhook.SignatureRule{Repository: webhook.RepositoryAny}, found: 1,
		},
		"without a repository, when one must be named": {
			rule: webhook.SignatureRule{Repository: webhook.RepositoryRequire}, found: 1, rejected: "right key, no repository in the signature",
		},
		"of the manifest, when a repository must be named": {
			opts: func(_ *world, o *o) { o.Message = true },
			rule: webhook.SignatureRule{Repository: webhook.RepositoryRequire}, found: 1, rejected: "right key, no repository in the signature",
		},
		"of another digest (SIG-003)": {
			opts:  func(_ *world, o *o) { o.Statement.Subject = "sha256:" + strings.Repeat("a", 64) },
			found: 1, rejected: "right key, other digest",
		},
		"without a subject (SIG-004)": {
			opts:  func(_ *world, o *o) { o.Statement.Raw = statement(registrytest.SignPredicate, "[]") },
			found: 1, rejected: "right key, no digest in the signature",
		},
		"with a null subject (SIG-036)": {
			opts:  func(_ *world, o *o) { o.Statement.Raw = statement(registrytest.SignPredicate, "[null]") },
			found: 1, rejected: "1 signature in no valid form",
		},
		"a null subject before the right one": {
			opts: func(w *world, o *o) {
				o.Statement.Raw = statement(registrytest.SignPredicate, `[null,{"digest":{"sha256":"`+strings.TrimPrefix(w.digest, "sha256:")+`"}}]`)
			},
			found: 1, rejected: "1 signature in no valid form",
		},
		"not a statement (SIG-034)": {
			opts: func(_ *world, o *o) { o.Statement.Raw = []byte("signed") }, found: 1, rejected: "1 signature in no valid form",
		},
		"another payload type": {
			opts: func(_ *world, o *o) { o.Statement.PayloadType = "text/plain" }, found: 1, rejected: "1 signature in no valid form",
		},
		"a bill of materials, which is no signature": {
			opts: func(_ *world, o *o) { o.Statement.PredicateType = "https://spdx.dev/Document" }, rejected: "none",
		},
		"a bill of materials that says it is a signature": {
			opts: func(_ *world, o *o) {
				o.Statement.PredicateType = "https://spdx.dev/Document"
				o.Annotations = map[string]string{registrytest.BundlePredicateAnnotation: registrytest.SignPredicate}
			},
			found: 1, rejected: "right key, but not a signature of an image",
		},
		"a bill of materials that says nothing": {
			opts: func(_ *world, o *o) {
				o.Statement.PredicateType = "https://spdx.dev/Document"
				o.Annotations = unannotated()
			},
			found: 1, rejected: "right key, but not a signature of an image",
		},
		"attached to another image": {
			opts: func(w *world, o *o) {
				other, err := w.registry.PushImage(w.t.Context(), registrytest.Image{Repository: "golden/base", Tag: "v2"})
				w.must(err)
				o.AttachTo = other
			},
			rejected: "none",
		},
		"not JSON": {opts: func(_ *world, o *o) { o.Mutate = func([]byte) []byte { return []byte("{") } }, found: 1, rejected: "1 signature in no valid form"},
		"empty":    {opts: func(_ *world, o *o) { o.Mutate = func([]byte) []byte { return []byte("{}") } }, found: 1, rejected: "1 signature in no valid form"},
		"too large": {opts: func(_ *world, o *o) {
			o.Mutate = func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), 1<<20)...) }
		}, found: 1, rejected: "1 signature too large to be read"},
		"another body": {opts: func(_ *world, o *o) { o.Mutate = otherPayload }, found: 1, rejected: "1 signature by an unknown key"},
		"other layer":  {opts: func(_ *world, o *o) { o.MediaType = "application/octet-stream" }, rejected: "none"},
	}
	for title, test := range tests {
		for _, api := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/API %v", title, api), func(t *testing.T) {
				w := newWorld(t, nil)
				if api {
					w = newReferrersWorld(t)
				}
				w.rule = test.rule
				var opts o
				if test.opts != nil {
					test.opts(w, &opts)
				}
				w.bundle(w.ci, opts)
				got, err := w.verify()
				switch test.rejected {
				case "":
					w.want(got, err, []string{"devex-ci"}, test.found)
				case "none":
					w.want(got, err, nil, 0)
				default:
					w.want(got, err, nil, test.found, test.rejected)
				}
			})
		}
	}
}

// unannotated takes the annotations away that tell what a bundle is.
func unannotated() map[string]string {
	return map[string]string{registrytest.BundlePredicateAnnotation: "", registrytest.BundleContentAnnotation: ""}
}

func statement(predicateType, subject string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":%s,"predicateType":%q,"predicate":{}}`, subject, predicateType)
}

// otherPayload changes what was signed and leaves the signature.
func otherPayload(body []byte) []byte {
	text := string(body)
	i := strings.Index(text, `"payload":"`) + len(`"payload":"`)
	j := i + strings.Index(text[i:], `"`)
	raw, err := base64.StdEncoding.DecodeString(text[i:j])
	if err != nil {
		panic(err)
	}
	return []byte(text[:i] + base64.StdEncoding.EncodeToString(append(raw, '\n')) + text[j:])
}

// TestBundleKinds: keys of every kind that signers may have, and who else has signed.
func TestBundleKinds(t *testing.T) {
	type newKey = func() (crypto.Signer, string, error)
	for name, make := range map[string]newKey{
		"P-256":   func() (crypto.Signer, string, error) { return registrytest.NewECDSAKey(elliptic.P256()) },
		"P-384":   func() (crypto.Signer, string, error) { return registrytest.NewECDSAKey(elliptic.P384()) },
		"RSA":     func() (crypto.Signer, string, error) { return registrytest.NewRSAKey(2048) },
		"Ed25519": registrytest.NewEd25519Key,
	} {
		for _, earlier := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, earlier cosign %v", name, earlier), func(t *testing.T) {
				w := newReferrersWorld(t)
				key, public, err := make()
				w.must(err)
				w.trust.Signers["other"] = signature.Signer{KeyPEM: public}
				w.bundle(nil, registrytest.BundleOptions{Signer: registrytest.Signer{Key: key, SHA256: earlier}})
				got, err := w.verify("other")
				w.want(got, err, []string{"other"}, 1)
				got, err = w.verify("devex-ci")
				w.want(got, err, nil, 1, "1 signature by other")
			})
		}
	}
}

// TestBothLayouts: signers are counted together, wherever their signatures are.
func TestBothLayouts(t *testing.T) {
	w := newReferrersWorld(t)
	w.sign(w.ci, registrytest.SignOptions{})
	w.bundle(w.release, registrytest.BundleOptions{})
	got, err := w.verify("devex-ci", "release")
	w.want(got, err, []string{"devex-ci", "release"}, 2)
}

// TestHiddenAmongBad (SIG-009): a good signature counts whatever hangs beside it, in any order.
func TestHiddenAmongBad(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("the good one first: %v", first), func(t *testing.T) {
			w := newReferrersWorld(t)
			good := func() { w.bundle(w.ci, registrytest.BundleOptions{}) }
			if first {
				good()
			}
			for i := range 99 {
				w.bundle(w.stranger, registrytest.BundleOptions{Statement: registrytest.Statement{SubjectName: fmt.Sprint("x", i)}})
			}
			for range 30 { // of other types, which are not even read
				w.bundle(w.stranger, registrytest.BundleOptions{Statement: registrytest.Statement{PredicateType: "https://spdx.dev/Document"}})
			}
			if !first {
				good()
			}
			got, err := w.verify()
			if err != nil || len(got.Valid) != 1 {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// TestTooManyBundles (SIG-010): the number is bounded, and what is over it is an error and not "unsigned".
func TestTooManyBundles(t *testing.T) {
	w := newReferrersWorld(t)
	w.config.Limits = signature.Limits{Signatures: 10}
	for i := range 11 {
		w.bundle(w.stranger, registrytest.BundleOptions{Statement: registrytest.Statement{SubjectName: fmt.Sprint("x", i)}})
	}
	_, err := w.verify()
	w.wantReadError(err, webhook.Invalid, "has more than 10 signatures for golden/base@"+w.digest[:19])
	if n := len(w.registry.Requests()); n != 2 {
		t.Errorf("%d requests, want the two lists", n)
	}
}

// TestUnreadableLists: an image is not called unsigned when a list could not be read, and a good signature counts all the
// same.
func TestUnreadableLists(t *testing.T) {
	for _, status := range []int{http.StatusInternalServerError, http.StatusForbidden} {
		for _, fails := range []string{"/referrers/", ".sig"} {
			t.Run(fmt.Sprintf("%d of %s", status, fails), func(t *testing.T) {
				on := true
				w := newWorld(t, nil)
				w.replaceRegistry(registrytest.Config{Referrers: true, Intercept: intercept(fails, &on, status)})
				if got, err := w.verify(); err == nil {
					t.Errorf("got %+v, want an error", got)
				}
				if fails == ".sig" {
					w.bundle(w.ci, registrytest.BundleOptions{})
				} else {
					w.sign(w.ci, registrytest.SignOptions{})
				}
				if got, err := w.verify(); err != nil || len(got.Valid) != 1 {
					t.Errorf("signed: got %+v, %v", got, err)
				}
			})
		}
	}
}

// TestCost: verification costs at most four requests and three round trips one after another for one signature, and a
// layout that a registry had last time is looked into first.
func TestCost(t *testing.T) {
	for _, layout := range []string{"attached", "bundle"} {
		for _, api := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/API %v", layout, api), func(t *testing.T) {
				w := newWorld(t, nil)
				w.replaceRegistry(registrytest.Config{Referrers: api})
				if layout == "attached" {
					w.sign(w.ci, registrytest.SignOptions{})
				} else {
					w.bundle(w.ci, registrytest.BundleOptions{})
				}
				v := w.verifier()
				ask := func() (requests int) {
					w.registry.Reset()
					got, err := v.Verify(t.Context(), w.ref, w.allOf([]string{"devex-ci"}))
					w.want(got, err, []string{"devex-ci"}, 1)
					return len(w.registry.Requests())
				}
				most := map[string]int{"attached": 2, "bundle": 4}[layout]
				if layout == "bundle" && !api {
					most++ // that there is no API is found out once
				}
				if n := ask(); n > most {
					t.Errorf("at first %d requests, want at most %d: %v", n, most, w.registry.Requests())
				}
				most = map[string]int{"attached": 2, "bundle": 3}[layout]
				if n := ask(); n > most {
					t.Errorf("the second time %d requests, want at most %d: %v", n, most, w.registry.Requests())
				}
			})
		}
	}
}

// TestKeyProofs: what a key's signatures may need besides themselves, in both layouts.
func TestKeyProofs(t *testing.T) {
	day := 24 * time.Hour
	tests := map[string]struct {
		witness  func(w *keylessWorld, witness *registrytest.Witness)
		trust    func(w *keylessWorld, s *signature.Signer)
		rejected string
		until    bool // it holds for a time
	}{
		"nothing asked, nothing there": {},
		"nothing asked, a broken log": {
			witness: func(w *keylessWorld, witness *registrytest.Witness) {
				witness.Log, witness.LogByUnknownKey = w.authority, true
			},
		},
		"a log": {
			witness: func(w *keylessWorld, witness *registrytest.Witness) { witness.Log = w.authority },
			trust:   func(_ *keylessWorld, s *signature.Signer) { s.Log = signature.Required },
		},
		"no log": {
			trust:    func(_ *keylessWorld, s *signature.Signer) { s.Log = signature.Required },
			rejected: "1 signature without a transparency log entry",
		},
		"a log that nobody knows": {
			witness: func(w *keylessWorld, witness *registrytest.Witness) {
				witness.Log, witness.UnknownLog = w.authority, true
			},
			trust:    func(_ *keylessWorld, s *signature.Signer) { s.Log = signature.Required },
			rejected: "1 signature whose transparency log entry does not hold",
		},
		"a log's entry with another key behind it (SIG-016)": {
			witness: func(w *keylessWorld, witness *registrytest.Witness) {
				witness.Log, witness.LogByUnknownKey = w.authority, true
			},
			trust:    func(_ *keylessWorld, s *signature.Signer) { s.Log = signature.Required },
			rejected: "1 signature whose transparency log entry does not hold",
		},
		"a timestamp": {
			witness: func(w *keylessWorld, witness *registrytest.Witness) { witness.Timestamp = w.authority },
			trust:   func(_ *keylessWorld, s *signature.Signer) { s.Timestamp = signature.Required },
		},
		"no timestamp": {
			trust:    func(_ *keylessWorld, s *signature.Signer) { s.Timestamp = signature.Required },
			rejected: "1 signature without a timestamp",
		},
		"in its time":     {trust: func(w *keylessWorld, s *signature.Signer) { s.NotBefore, s.NotAfter = w.now.Add(-day), w.now.Add(day) }, until: true},
		"after its time":  {trust: func(w *keylessWorld, s *signature.Signer) { s.NotAfter = w.now.Add(-day) }, rejected: "right key, signed or looked at after its time ended on "},
		"before its time": {trust: func(w *keylessWorld, s *signature.Signer) { s.NotBefore = w.now.Add(day) }, rejected: "right key, signed or looked at before its time begins"},
		"logged in its time, which is over": {
			witness: func(w *keylessWorld, witness *registrytest.Witness) {
				witness.Log, witness.At = w.authority, w.now.Add(-2*day)
			},
			trust: func(w *keylessWorld, s *signature.Signer) { s.NotAfter = w.now.Add(-day) },
		},
		"stamped in its time, which is over": {
			witness: func(w *keylessWorld, witness *registrytest.Witness) {
				witness.Timestamp, witness.At = w.authority, w.now.Add(-2*day)
			},
			trust: func(w *keylessWorld, s *signature.Signer) { s.NotAfter = w.now.Add(-day) },
		},
		"logged after its time (SIG-030)": {
			witness:  func(w *keylessWorld, witness *registrytest.Witness) { witness.Log = w.authority },
			trust:    func(w *keylessWorld, s *signature.Signer) { s.NotAfter = w.now.Add(-day) },
			rejected: "right key, signed or looked at after its time ended on ",
		},
		"stamped after its time (SIG-030)": {
			witness:  func(w *keylessWorld, witness *registrytest.Witness) { witness.Timestamp = w.authority },
			trust:    func(w *keylessWorld, s *signature.Signer) { s.NotAfter = w.now.Add(-day) },
			rejected: "right key, signed or looked at after its time ended on ",
		},
	}
	for title, test := range tests {
		for _, layout := range []string{"attached", "bundle"} {
			t.Run(title+"/"+layout, func(t *testing.T) {
				w := newKeylessWorld(t, registrytest.SigstoreConfig{})
				s := w.trust.Signers["devex-ci"]
				if test.trust != nil {
					test.trust(w, &s)
					s.TrustedRoot = w.signer.TrustedRoot
				}
				w.trust.Signers["devex-ci"] = s
				witness := registrytest.Witness{At: w.now}
				if test.witness != nil {
					test.witness(w, &witness)
				}
				if layout == "attached" {
					w.sign(w.ci, registrytest.SignOptions{Witness: witness})
				} else {
					w.bundle(w.ci, registrytest.BundleOptions{Witness: witness})
				}
				got, err := w.verify()
				w.must(err)
				if test.until == got.Until.IsZero() {
					t.Errorf("it holds until %v", got.Until)
				}
				if test.rejected == "" {
					w.want(got, err, []string{"devex-ci"}, 1)
				} else if len(got.Valid) > 0 || len(got.Rejected) != 1 || !strings.HasPrefix(got.Rejected[0], test.rejected) {
					t.Errorf("got  %+v\nwant %q", got, test.rejected)
				}
			})
		}
	}
}

// TestForeignProofs: proofs of another signature prove nothing of this one (SIG-013, SIG-018).
func TestForeignProofs(t *testing.T) {
	w := newKeylessWorld(t, registrytest.SigstoreConfig{})
	var logged registrytest.Signature
	keep := func(s *registrytest.Signature) { logged = *s }
	w.sign(w.stranger, registrytest.SignOptions{Witness: registrytest.Witness{Log: w.authority, At: w.now}, Mutate: keep})
	s := w.trust.Signers["devex-ci"]
	s.Log, s.TrustedRoot = signature.Required, w.signer.TrustedRoot
	w.trust.Signers["devex-ci"] = s
	w.sign(w.ci, registrytest.SignOptions{Annotations: map[string]string{registrytest.BundleAnnotation: logged.Annotations[registrytest.BundleAnnotation]}})
	got, err := w.verify()
	w.want(got, err, nil, 2, "1 signature whose transparency log entry does not hold", "1 signature by an unknown key")

	// A certificate of somebody else beside a good signature by the key.
	var certified registrytest.Signature
	w.must(w.registry.SignKeyless(t.Context(), "golden/base", w.digest, w.authority, registrytest.KeylessOptions{
		Certificate: certificate(), SignOptions: registrytest.SignOptions{Mutate: func(s *registrytest.Signature) { certified = *s }},
	}))
	w.sign(w.release, registrytest.SignOptions{Annotations: map[string]string{registrytest.CertificateAnnotation: certified.Annotations[registrytest.CertificateAnnotation]}})
	got, err = w.verify("release")
	if err != nil || len(got.Valid) > 0 || got.Rejected[0] != "right key, but a certificate of another" {
		t.Errorf("got %+v, %v", got, err)
	}
}
