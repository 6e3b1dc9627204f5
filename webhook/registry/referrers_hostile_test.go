package registry_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const subject = "sha256:5555555555555555555555555555555555555555555555555555555555555555"

// numbered is an entry with a digest of its own.
func numbered(n int) (entry, digest string) {
	digest = fmt.Sprintf("sha256:%064x", n)
	return `{"mediaType":"` + ociManifest + `", "digest":"` + digest + `","size":2,"x":[1.0]}`, digest
}

// paged serves so many pages of one entry each; the link to the next one is written by link.
func paged(pages int, link func(r *http.Request, next int) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		page := 1
		_, _ = fmt.Sscanf(r.URL.Query().Get("page"), "%d", &page)
		if page < pages {
			w.Header().Add("Link", `<https://docs.example/>; rel="help"`)
			w.Header().Add("Link", link(r, page+1))
		}
		entry, _ := numbered(page)
		send(200, ociIndex+"; charset=utf-8", listOf(entry))(w, r)
	}
}

func TestPages(t *testing.T) {
	s := newSpy(t)
	relative := func(r *http.Request, next int) string {
		return fmt.Sprintf(`<%s?page=%d&last=a,b;c>; title="a, b"; rel="next"`, r.URL.Path, next)
	}
	entry, _ := numbered(1)
	tests := []struct {
		name    string
		handle  http.HandlerFunc
		want    int // pages
		failure webhook.ReadFailure
		reason  string
	}{
		{name: "one", handle: paged(1, relative), want: 1},
		{name: "two", handle: paged(2, relative), want: 2},
		{name: "five", handle: paged(5, relative), want: 5},
		{name: "an absolute link", handle: paged(3, func(r *http.Request, next int) string {
			return fmt.Sprintf(`<https://%s%s?page=%d>;rel=next`, r.Host, r.URL.Path, next)
		}), want: 3},
		{name: "only a query", handle: paged(3, func(_ *http.Request, next int) string {
			return fmt.Sprintf(`</>; rel=first, <?page=%d>; REL="prev Next"; rel=first`, next)
		}), want: 3},
		{name: "links to elsewhere that are not next", handle: paged(2, func(*http.Request, int) string {
			return `<https://evil.example/next>; rel="preload"; title="rel=next"`
		}), want: 1},
		{name: "six", handle: paged(6, relative), failure: webhook.Invalid, reason: "sent an endless list of referrers"},
		{name: "without an end", handle: paged(1<<30, relative), failure: webhook.Invalid, reason: "sent an endless list of referrers"},
		{name: "itself", handle: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<`+r.URL.Path+`>; rel="next"`)
			send(200, ociIndex, listOf(entry))(w, r)
		}, failure: webhook.Invalid, reason: "sent an endless list of referrers"},
		{name: "in a circle", handle: paged(1<<30, func(r *http.Request, next int) string { return relative(r, next%2+2) }),
			failure: webhook.Invalid, reason: "sent an endless list of referrers"},
		{name: "another host", handle: paged(2, func(*http.Request, int) string { return `<https://` + s.address + `/v2/?token=s3cr3t>; rel="next"` }),
			failure: webhook.NotAllowed, reason: `continues its list of referrers at another host, "https://` + s.address + `"`},
		{name: "another host, short", handle: paged(2, func(r *http.Request, _ int) string { return `<//` + s.address + r.URL.Path + `>; rel="next"` }),
			failure: webhook.NotAllowed, reason: `continues its list of referrers at another host, "https://` + s.address + `"`},
		{name: "no TLS", handle: paged(2, func(r *http.Request, _ int) string { return `<http://` + r.Host + r.URL.Path + `?page=2>; rel="next"` }),
			failure: webhook.NotAllowed, reason: `continues its list of referrers at another host, "http://`},
		{name: "another path", handle: paged(2, func(*http.Request, int) string {
			return `</v2/golden/secret/referrers/` + subject + `?page=2>; rel="next"`
		}),
			failure: webhook.Invalid, reason: "continues its list of referrers at another path"},
		{name: "a user", handle: paged(2, func(r *http.Request, _ int) string {
			return `<https://u:p@` + r.Host + r.URL.Path + `?page=2>; rel="next"`
		}),
			failure: webhook.Invalid, reason: "sent a Link header that cannot be read"},
		{name: "no address", handle: paged(2, func(*http.Request, int) string { return `<:%zz>; rel="next"` }),
			failure: webhook.Invalid, reason: "sent a Link header that cannot be read"},
		{name: "a broken link", handle: paged(2, func(*http.Request, int) string { return `?page=2; rel="next"` }),
			failure: webhook.Invalid, reason: "sent a Link header that cannot be read"},
		{name: "a second page that is missing", handle: broken(send(404, "", "")), failure: webhook.Invalid, reason: "broke off the list of referrers"},
		{name: "a second page that is a web page", handle: broken(send(200, "text/html", "")), failure: webhook.Invalid, reason: "broke off the list of referrers"},
		{name: "a second page without access", handle: broken(send(403, "", "")), failure: webhook.Unauthorized, reason: "(403)"},
		{name: "a second page in an outage", handle: broken(send(503, "", "")), failure: webhook.Unavailable, reason: "answered 503"},
		{name: "a second page that is broken", handle: broken(send(200, ociIndex, "{")), failure: webhook.Invalid, reason: "is not valid JSON"},
		{name: "a second page that is too large", handle: broken(send(200, ociIndex, strings.Repeat(" ", 2<<10)+listOf())),
			failure: webhook.Invalid, reason: "sent a list of referrers larger than 2 KiB"},
		{name: "a second page that makes it too large", handle: broken(send(200, ociIndex, strings.Repeat(" ", 2<<10-200)+listOf())),
			failure: webhook.Invalid, reason: "sent a list of referrers larger than 2 KiB"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var asked atomic.Int32
			r := serve(t, registrytest.Config{Intercept: intercept("/v2/", func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				test.handle(w, r)
			})})
			got, err := connect(t, r, nil).Referrers(t.Context(), parse(t, r.Host()+"/golden/base@"+subject), 2<<10)
			if n := asked.Load(); n > 5 {
				t.Errorf("%d pages were asked for", n)
			}
			if test.reason != "" {
				wantReadError(t, err, test.failure, r.Host(), test.reason)
				wantNoSecret(t, err)
				return
			}
			var want []string
			for page := range test.want {
				entry, digest := numbered(page + 1)
				if want = append(want, digest); !strings.Contains(string(got.Body), entry) {
					t.Errorf("the entry %s is not as it was sent in %s", entry, got.Body)
				}
			}
			wantReferrers(t, got, err, want...)
		})
	}
}

// What the pages make together is within the limit, too.
func TestPagesTogether(t *testing.T) {
	r := serve(t, registrytest.Config{Intercept: intercept("/v2/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "" {
			w.Header().Set("Link", `<?page=2>; rel="next"`)
		}
		send(200, ociIndex, `{"manifests":[]}`)(w, r)
	})})
	client, ref := connect(t, r, nil), parse(t, r.Host()+"/golden/base@"+subject)
	got, err := client.Referrers(t.Context(), ref, 90)
	wantReferrers(t, got, err)
	_, err = client.Referrers(t.Context(), ref, int64(len(got.Body))-1)
	wantReadError(t, err, webhook.Invalid, r.Host(), "sent a list of referrers larger than")
}

// broken serves a first page, and something else for the second.
func broken(second http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" {
			second(w, r)
			return
		}
		entry, _ := numbered(1)
		w.Header().Set("Link", `<?page=2>; rel="next"`)
		send(200, ociIndex, listOf(entry))(w, r)
	}
}

// What is no list is refused from the API and at the tag alike.
func TestHostileReferrers(t *testing.T) {
	entry, _ := numbered(1)
	tests := []struct {
		name, body, reason string
	}{
		{"nothing", "", "is not valid JSON"},
		{"null", "null", "is not valid JSON"},
		{"cut off", listOf(entry)[:200], "is not valid JSON"},
		{"text after it", listOf(entry) + "{}", "is not valid JSON"},
		{"deep", `{"manifests":` + strings.Repeat("[", 1_000_000), "is not valid JSON"},
		{"a deep entry", listOf(strings.Repeat(`{"a":`, 500_000)), "is not valid JSON"},
		{"no list", `{"schemaVersion":2,"mediaType":"` + ociIndex + `"}`, "without the members of its type"},
		{"an image", `{"manifests":[],"config":null}`, "ambiguous manifest"},
		{"another type inside", `{"mediaType":"` + ociManifest + `","manifests":[]}`, "ambiguous manifest"},
		{"two lists", `{"manifests":[],"manifests":[]}`, "ambiguous manifest"},
		{"a list in capitals", `{"manifests":[],"Manifests":[]}`, "ambiguous manifest"},
		{"a list by escapes", `{"manifests":[],"\u006danifests":[]}`, "ambiguous manifest"},
		{"another schema", `{"schemaVersion":1,"manifests":[]}`, "unsupported manifest type"},
		{"a list that is none", `{"manifests":{}}`, "with an entry that is not valid JSON"},
		{"an entry that is none", listOf("1"), "with an entry that is not valid JSON"},
		{"a digest twice", listOf(`{"digest":"a","digest":"b"}`), "with an entry that has a member twice"},
		{"a type in capitals", listOf(`{"ArtifactType":"a"}`), "with an entry that has a member twice"},
		{"a digest that is a number", listOf(`{"digest":1}`), "with an entry that is not valid JSON"},
		{"too many", listOf(strings.Repeat("{},", 10_000) + "{}"), "with more than 10000 entries"},
		{"too large", strings.Repeat(" ", 4<<20) + listOf(), "sent a list of referrers larger than 4 MiB"},
	}
	for _, test := range tests {
		for _, at := range []string{"/referrers/", "/manifests/"} {
			t.Run(test.name+" at "+at, func(t *testing.T) {
				r := serve(t, registrytest.Config{Intercept: intercept(at, send(200, ociIndex, test.body))})
				_, err := connect(t, r, nil).Referrers(t.Context(), parse(t, r.Host()+"/golden/base@"+subject), 0)
				wantReadError(t, err, webhook.Invalid, r.Host(), test.reason)
			})
		}
	}
}

// The tag is an ordinary tag, under which anything may stand.
func TestHostileReferrersTag(t *testing.T) {
	docker := "application/vnd.docker.distribution.manifest.list.v2+json"
	tests := []struct {
		name   string
		handle http.HandlerFunc
		reason string
	}{
		{"an image", send(200, ociManifest, `{"config":{},"layers":[]}`), "sent a list of referrers of the type " + ociManifest},
		{"another list", send(200, docker, `{"manifests":[]}`), "sent a list of referrers of the type " + docker},
		{"a web page", send(200, "text/html", "<html>"), "sent an unsupported manifest type text/html"},
		{"another digest claimed", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Docker-Content-Digest", subject)
			send(200, ociIndex, listOf())(w, r)
		}, "does not have the digest that it claims"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := serve(t, registrytest.Config{Intercept: intercept("/manifests/", test.handle)})
			_, err := connect(t, r, nil).Referrers(t.Context(), parse(t, r.Host()+"/golden/base@"+subject), 0)
			wantReadError(t, err, webhook.Invalid, r.Host(), test.reason)
		})
	}
}

// An answer of any length costs no more than the limit; a compressed one and one from elsewhere cost nothing.
func TestHostileReferrersTransport(t *testing.T) {
	s := newSpy(t)
	var sent atomic.Int64
	tests := []struct {
		name    string
		handle  http.HandlerFunc
		failure webhook.ReadFailure
		reason  string
	}{
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ociIndex)
			for zeros := make([]byte, 32<<10); ; {
				n, err := w.Write(zeros)
				if sent.Add(int64(n)); err != nil {
					return
				}
			}
		}, webhook.Invalid, "sent a list of referrers larger than 64 KiB"},
		{"gzip", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			send(200, ociIndex, "bomb")(w, r)
		}, webhook.Invalid, "sent a list of referrers compressed with gzip, which was not asked for"},
		{"redirected to another host", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://"+s.address+"/?sig=s3cr3t")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, webhook.NotAllowed, "redirected the list of referrers to another host"},
		{"redirected again and again", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", r.URL.Path)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, webhook.Invalid, "redirected more than 3 times"},
		{"body cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ociIndex)
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("{"))
		}, webhook.Unavailable, "broke the connection"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := serve(t, registrytest.Config{Intercept: intercept("/v2/", test.handle)})
			client := connect(t, r, func(c *registry.Config) { c.Hosts[0].BlobHosts = []string{s.address} })
			_, err := client.Referrers(t.Context(), parse(t, r.Host()+"/golden/base@"+subject), 64<<10)
			wantReadError(t, err, test.failure, r.Host(), test.reason)
			wantNoSecret(t, err)
		})
	}
	if n := sent.Load(); n > 16<<20 {
		t.Errorf("the server could send %d MiB", n>>20)
	}
}
