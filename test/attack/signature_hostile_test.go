package attack

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const (
	ociIndex  = "application/vnd.oci.image.index.v1+json"
	signedAll = `  - {match: ["HOST/golden/**"], anyOf: [ci]}` + "\n"
)

// TestHostileReferrers: a registry whose list of bundles, or of signatures, cannot be read makes no image unsigned, and
// hides no signature in the other layout.
func TestHostileReferrers(t *testing.T) {
	spy := hostile(t, harness.HostileConfig{})
	link := func(next func(r *http.Request) string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "<"+next(r)+`>; rel="next"`)
			send(ociIndex, `{"schemaVersion":2,"mediaType":"`+ociIndex+`","manifests":[]}`)(w, r)
		}
	}
	unavailable := func(says string) want {
		return want{code: 503, says: []string{"could not be checked: ", says, "; try again."}, without: []string{"not signed", "no signature"}}
	}
	refused := func(says string) want {
		return want{says: []string{"could not be checked", says}, without: []string{"not signed", "no signature"}}
	}
	entry := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + strings.Repeat("c", 64) + `","size":2},`
	list := func(entries string) http.HandlerFunc {
		return send(ociIndex, `{"schemaVersion":2,"manifests":[`+strings.TrimSuffix(entries, ",")+"]}")
	}
	for title, c := range map[string]struct {
		layout   string // that fails
		answer   http.HandlerFunc
		unsigned want
	}{
		"500 of the list of bundles":    {bundles, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, unavailable("answered 500")},
		"500 of the list of signatures": {layers, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, unavailable("answered 500")},
		"429 of the list of bundles":    {bundles, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, unavailable("is limiting requests (429)")},
		"403 of the list of bundles":    {bundles, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, refused("refused access to golden/unsigned (403)")},
		"silence":                       {bundles, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) }, unavailable("did not answer within 3s")},
		"pages without end (SIG-045)": {bundles, link(func(r *http.Request) string {
			return r.URL.Path + "?n=1&last=" + fmt.Sprint(len(r.URL.RawQuery), r.URL.Query().Get("last"))
		}), refused("sent an endless list of referrers")},
		"the same page again (SIG-045)": {bundles, link(func(r *http.Request) string { return r.URL.Path + "?last=1" }), refused("sent an endless list of referrers")},
		"a page elsewhere (SIG-045)":    {bundles, link(func(*http.Request) string { return "https://" + spy.Host() + "/v2/golden/ws/referrers/x" }), refused("continues its list of referrers at another host")},
		"a page at another path":        {bundles, link(func(*http.Request) string { return "/v2/golden/other/referrers/x" }), refused("continues its list of referrers at another path")},
		"10,001 bundles":                {bundles, list(strings.Repeat(entry, 10_001)), refused("sent a list of referrers with more than 10000 entries")},
		"101 bundles that are not there": {
			bundles, list(strings.Repeat(entry, 101)), refused("has more than 100 signatures for golden/unsigned@sha256:"),
		},
		"a list of 40 MB": {bundles, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ociIndex)
			endless(w, bytes.Repeat([]byte(" "), 1<<16))
		}, refused("sent a list of referrers larger than 4 MiB")},
		"a list that is cut": {bundles, send(ociIndex, `{"schemaVersion":2,"manifests":[`), refused("is not valid JSON")},
		"a compressed list": {bundles, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ociIndex)
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb(t, 8))
		}, refused("compressed with gzip, which was not asked for")},
		"1001 signatures (SIG-010)": {
			layers, send(ociManifest, `{"schemaVersion":2,"config":`+entry[:len(entry)-1]+`,"layers":[`+strings.TrimSuffix(strings.Repeat(entry, 1001), ",")+"]}"),
			refused("has more than 100 signatures for golden/unsigned@sha256:"),
		},
		"an index of signatures": {layers, list(entry), refused("has something other than signatures")},
		"bundles without type":   {bundles, list(`{"digest":"sha256:x"},{},`), denied("not signed by ci (no signature found)")},
	} {
		t.Run(title, func(t *testing.T) {
			s := newSigning(t, registrytest.Config{Intercept: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.Contains(r.URL.Path, map[string]string{bundles: "/referrers/", layers: ".sig"}[c.layout]) {
						c.answer(w, r)
						return
					}
					next.ServeHTTP(w, r)
				})
			}}, trust{signatures: signedAll})
			other := map[string]string{layers: bundles, bundles: layers}[c.layout]
			on := s.subject(t, "golden/signed", other)
			on.sign(mark{by: registrytest.Signer{Key: s.Key}})
			within(t, 9*time.Second, func() { allowed().check(t, s.admit(t, s.pod(image(on.ref())))) })
			s.Registry.Reset()
			unsigned := s.subject(t, "golden/unsigned", other)
			within(t, 9*time.Second, func() { c.unsigned.check(t, s.admit(t, s.pod(image(unsigned.ref())))) })
			asked := slices.DeleteFunc(s.Registry.Requests(), func(r registrytest.Request) bool { return !strings.Contains(r.Path, "/referrers/") })
			if len(asked) > 5 {
				t.Errorf("%d requests for a list: %v", len(asked), asked)
			}
		})
	}
	wantUntouched(t, "another host", spy)
}

// TestBundleFloods: one good bundle is found among a hundred, under the limits that a webhook has by itself, and more are
// not looked at.
func TestBundleFloods(t *testing.T) {
	s := newSigning(t, registrytest.Config{}, trust{signatures: signedAll, limits: "deadline: 8s"})
	good := func(on subject) { on.sign(mark{by: registrytest.Signer{Key: s.Key}}) }
	bad := func(on subject, n int, bundle registrytest.BundleOptions) {
		for i := range n {
			bundle.Statement.SubjectName = fmt.Sprint("x", i)
			on.sign(mark{by: registrytest.Signer{Key: s.OtherKey}, bundle: bundle})
		}
	}
	unmarked := registrytest.BundleOptions{Annotations: map[string]string{
		registrytest.BundlePredicateAnnotation: "", registrytest.BundleContentAnnotation: "",
	}}
	bill := registrytest.BundleOptions{Statement: registrytest.Statement{PredicateType: "https://spdx.dev/Document"}}
	const tooMany = "has more than 100 signatures for golden/flood"
	number := 0
	for title, c := range map[string]struct {
		attach   func(on subject)
		want     want
		requests int // at most, for the list and what is in it
	}{
		"99 and a good one last (SIG-009)":         {func(on subject) { bad(on, 99, registrytest.BundleOptions{}); good(on) }, allowed(), 210},
		"99 and a good one first (SIG-009)":        {func(on subject) { good(on); bad(on, 99, registrytest.BundleOptions{}) }, allowed(), 210},
		"99 that say nothing (SIG-009)":            {func(on subject) { bad(on, 99, unmarked); good(on) }, allowed(), 40},
		"150 of another type":                      {func(on subject) { bad(on, 150, bill); good(on) }, allowed(), 10},
		"101 (SIG-010)":                            {func(on subject) { bad(on, 100, registrytest.BundleOptions{}); good(on) }, denied("could not be checked", tooMany), 6},
		"1001 (SIG-010)":                           {func(on subject) { bad(on, 1001, registrytest.BundleOptions{}) }, denied("could not be checked", tooMany), 6},
		"1001, and a good one in the other layout": {func(on subject) { bad(on, 1001, registrytest.BundleOptions{}); on.layout = layers; good(on) }, allowed(), 6},
	} {
		number++
		t.Run(title, func(t *testing.T) {
			on := s.subject(t, fmt.Sprintf("golden/flood%d", number), bundles)
			c.attach(on)
			s.Registry.Reset()
			withinCPU(t, s.PID(), time.Second, func() {
				within(t, 9*time.Second, func() { c.want.check(t, s.admit(t, s.pod(image(on.ref())))) })
			})
			asked := slices.DeleteFunc(s.Registry.Requests(), func(r registrytest.Request) bool {
				return !strings.HasPrefix(r.Path, "/v2/"+on.repository+"/")
			})
			if len(asked) > c.requests {
				t.Errorf("%d requests, want at most %d", len(asked), c.requests)
			}
		})
	}
	s.sound(t)
}

// TestCertificateFlood: a hundred certificates and timestamps that lead nowhere cost little, and do not hide the good one.
func TestCertificateFlood(t *testing.T) {
	s := newSigning(t, registrytest.Config{}, trust{
		signers:    releaseSigner("release", "") + releaseSigner("both", ", timestamp: required") + releaseSigner("either", ", transparencyLog: optional"),
		signatures: `  - {match: ["HOST/golden/flood/**"], anyOf: [release, both, either]}` + "\n",
	})
	foreign := registrytest.Signer{Keyless: s.stranger, Certificate: s.release().Certificate}
	evil := s.release(func(c *registrytest.Certificate) { c.Identity = "https://evil.example/x" })
	number := 0
	for title, c := range map[string]struct {
		by    registrytest.Signer
		found string
	}{
		"by a stranger": {foreign, "(found: 99 signatures by an authority that is not trusted)"},
		"by others":     {evil, `(found: identity "https://evil.example/x", expected https://github\.com/corp/.*`},
	} {
		for _, layout := range []string{layers, bundles} {
			number++
			repository := fmt.Sprint("golden/flood/ws", number)
			t.Run(title+"/"+layout, func(t *testing.T) {
				on := s.subject(t, repository, layout)
				for range 99 {
					on.sign(mark{by: c.by, witness: registrytest.Witness{Log: s.authority, Timestamp: s.stranger}})
				}
				withinCPU(t, s.PID(), 2*time.Second, func() { on.judge(denied("not signed by release or both or either " + c.found)) })
				on.sign(mark{by: s.release()})
				withinCPU(t, s.PID(), 2*time.Second, func() { on.judge(allowed()) })
			})
		}
	}
	s.sound(t)
}
