package registry_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// tokenServer answers the token endpoint with handle and wants the token "good" for everything else.
func tokenServer(realm func(*http.Request) string, handle http.HandlerFunc) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				handle(w, r)
			case r.Header.Get("Authorization") == "Bearer good":
				next.ServeHTTP(w, r)
			default:
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="s",scope="aws"`, realm(r)))
				w.WriteHeader(401)
			}
		})
	}
}

func ownRealm(r *http.Request) string { return "https://" + r.Host + "/token?account=x" }

func TestTokenServers(t *testing.T) {
	tests := []struct {
		name    string
		handle  http.HandlerFunc
		failure webhook.ReadFailure
		reason  string // "" is success
	}{
		{"token", send(200, "", `{"token":"good"}`), 0, ""},
		{"access token", send(200, "", `{"access_token":"good","expires_in":300,"unknown":1}`), 0, ""},
		{"no token", send(200, "", `{"error":"s3cr3t"}`), webhook.Invalid, "sent no usable token"},
		{"a token that ends the header", send(200, "", `{"token":"good\r\nX: s3cr3t"}`), webhook.Invalid, "sent no usable token"},
		{"a huge token", send(200, "", `{"token":"`+strings.Repeat("s3cr3t", 10_000)+`"}`), webhook.Invalid, "sent no usable token"},
		{"not JSON", send(200, "", `s3cr3t`), webhook.Invalid, "answer cannot be read"},
		{"too large", send(200, "", strings.Repeat(" ", 65<<10)), webhook.Invalid, "sent a token larger than 64 KiB"},
		{"compressed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("s3cr3t"))
		}, webhook.Invalid, "sent a token compressed with gzip"},
		{"a token that does not do", send(200, "", `{"token":"s3cr3t"}`), webhook.Unauthorized, "refused access to golden/base (401)"},
		{"echoes the password", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, r.Header.Get("Authorization"), 403)
		}, webhook.Unauthorized, "refused access to golden/base (its token service answered 403)"},
		{"503", send(503, "", "s3cr3t"), webhook.Unavailable, "has a token service that answered 503"},
		{"429", send(429, "", ""), webhook.Unavailable, "has a token service that answered 429"},
		{"404", send(404, "", ""), webhook.Invalid, "has a token service that answered 404"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/token2", 307) }, webhook.Invalid, "has a token service that answered 307"},
		{"hang", hang, webhook.Unavailable, "did not answer within 60ms"},
		{"cut", cut, webhook.Unavailable, "gave no readable answer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := serve(t, registrytest.Config{Intercept: tokenServer(ownRealm, func(w http.ResponseWriter, r *http.Request) {
				query := r.URL.Query()
				if got := query["scope"]; !slices.Equal(got, []string{"repository:golden/base:pull", "aws"}) || query.Get("account") != "x" || query.Get("service") != "s" {
					t.Errorf("got the query %v", query)
				}
				test.handle(w, r)
			})})
			push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
			login := withLogin(t, r, "robot", "s3cr3t")
			client := connect(t, r, func(c *registry.Config) {
				login(c)
				if test.name == "hang" {
					c.Limits.Timeout = shortTimeout
				}
			})
			_, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			if test.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantReadError(t, err, test.failure, r.Host(), test.reason)
			wantNoSecret(t, err)
		})
	}
}

// A failure to get a token, and a token that does not do, are got over by the next read.
func TestFailuresAreNotKept(t *testing.T) {
	var n atomic.Int64
	answers := []string{"", `{"token":"bad"}`, `{"token":"good"}`}
	r := serve(t, registrytest.Config{Intercept: tokenServer(ownRealm, func(w http.ResponseWriter, _ *http.Request) {
		if answer := answers[n.Add(1)-1]; answer != "" {
			_, _ = w.Write([]byte(answer))
			return
		}
		w.WriteHeader(503)
	})})
	push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	client := connect(t, r, nil)
	read := func() error {
		_, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.DigestOnly)
		return err
	}
	wantReadError(t, read(), webhook.Unavailable, r.Host(), "has a token service that answered 503")
	if err := read(); err != nil { // "bad" is refused, and another one fetched
		t.Error(err)
	}
	if want := []string{"manifests 401", "token 503", "token 200", "manifests 401", "token 200", "manifests 200"}; !slices.Equal(statuses(r), want) {
		t.Errorf("got requests %v, want %v", statuses(r), want)
	}
}

func TestRevokedTokenIsRenewed(t *testing.T) {
	var generation atomic.Int64
	r := serve(t, registrytest.Config{Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			good := fmt.Sprint("generation", generation.Load())
			switch {
			case r.URL.Path == "/token":
				_, _ = fmt.Fprintf(w, `{"token":%q}`, good)
			case r.Header.Get("Authorization") == "Bearer "+good:
				next.ServeHTTP(w, r)
			default:
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q`, ownRealm(r)))
				w.WriteHeader(401)
			}
		})
	}})
	push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	client := connect(t, r, nil)
	for range 3 {
		if _, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.DigestOnly); err != nil {
			t.Fatal(err)
		}
		generation.Add(1)
	}
}

// The token goes on being fetched for the others when the caller that began it gives up.
func TestTokenOutlivesItsCaller(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := serve(t, registrytest.Config{Intercept: tokenServer(ownRealm, func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = w.Write([]byte(`{"token":"good"}`))
	})})
	push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	client := connect(t, r, nil)
	ref := parse(t, r.Host()+"/golden/base:v1")
	first, cancel := contextWithCancel(t)
	ended := make(chan error, 1)
	go func() {
		_, err := client.ReadImage(first, ref, webhook.DigestOnly)
		ended <- err
	}()
	<-entered
	cancel()
	if err := <-ended; !errors.Is(err, first.Err()) {
		t.Errorf("got %v, want %v", err, first.Err())
	}
	close(release)
	if _, err := client.ReadImage(t.Context(), ref, webhook.DigestOnly); err != nil {
		t.Error(err)
	}
	if n := countPath(r, "/token"); n != 1 {
		t.Errorf("the token was fetched %d times, want once", n)
	}
}
