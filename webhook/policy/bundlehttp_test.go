package policy

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serveTLS gives a server and the file with its certificate.
func serveTLS(t *testing.T, handler http.HandlerFunc) (server *httptest.Server, ca string) {
	t.Helper()
	server = httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return server, ca
}

func newFetch(t *testing.T, config HTTPConfig) Fetch {
	t.Helper()
	fetch, err := NewHTTPFetch(config)
	if err != nil {
		t.Fatal(err)
	}
	return fetch
}

// TestHTTPFetch: an archive comes with its ETag, which is sent back, and the token as it stands in the file at that time.
func TestHTTPFetch(t *testing.T) {
	var etag, token atomic.Value
	etag.Store(`"1"`)
	server, ca := serveTLS(t, func(w http.ResponseWriter, r *http.Request) {
		token.Store(r.Header.Get("Authorization"))
		w.Header().Set("ETag", etag.Load().(string))
		if r.Header.Get("If-None-Match") == etag.Load() {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write([]byte("archive " + etag.Load().(string)))
	})
	tokenFile := filepath.Join(t.TempDir(), "token")
	rotate := func(text string) {
		if err := os.WriteFile(tokenFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rotate("first\n")
	fetch := newFetch(t, HTTPConfig{URL: server.URL + "/a.tar.gz", CAFile: ca, TokenFile: tokenFile})
	for _, step := range []struct{ version, served, archive, newVersion, file string }{
		{"", `"1"`, `archive "1"`, `"1"`, "first"},
		{`"1"`, `"1"`, "", `"1"`, "second"},
		{`"1"`, `"2"`, `archive "2"`, `"2"`, "second"},
		{`"2"`, strings.Repeat("x", maxETagBytes+1), "archive " + strings.Repeat("x", maxETagBytes+1), "", "second"},
	} {
		etag.Store(step.served)
		rotate(step.file)
		archive, version, err := fetch(t.Context(), step.version)
		if err != nil || string(archive) != step.archive || version != step.newVersion || token.Load() != "Bearer "+step.file {
			t.Errorf("%+v: %q, %q, %v; token %q", step, archive, version, err, token.Load())
		}
	}
	if err := os.Remove(tokenFile); err != nil {
		t.Fatal(err)
	}
	if _, _, err := fetch(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("without the token: %v", err)
	}
}

// TestHTTPFetchRefused: what is not a bundle from the server that is named is an error that says so, without a secret.
func TestHTTPFetchRefused(t *testing.T) {
	var leaked atomic.Bool
	elsewhere, _ := serveTLS(t, func(_ http.ResponseWriter, _ *http.Request) { leaked.Store(true) })
	server, ca := serveTLS(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/elsewhere":
			http.Redirect(w, r, elsewhere.URL+"/a?secret", http.StatusFound)
		case "/downgrade":
			http.Redirect(w, r, "http://"+r.Host+"/a", http.StatusFound)
		case "/around":
			http.Redirect(w, r, "/around", http.StatusFound)
		case "/moved":
			http.Redirect(w, r, "/good", http.StatusFound)
		case "/good":
			_, _ = w.Write([]byte("archive for " + r.Header.Get("Authorization")))
		case "/large":
			_, _ = w.Write(make([]byte, MaxBundleBytes+1))
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("x"))
		case "/unchanged":
			w.WriteHeader(http.StatusNotModified)
		case "/empty":
		case "/hangs":
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // to return would be to answer, which may still reach who has hung up
		default:
			http.Error(w, "secret", http.StatusServiceUnavailable)
		}
	})
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		"/elsewhere": "the server redirects to https://127.0.0.1:", "/downgrade": "the server redirects to http://", "/around": "redirects too often",
		"/large": "more than 4 MiB", "/cut": "broke off", "/unchanged": "answered 304", "/empty": "sent nothing",
		"/hangs": "deadline exceeded", "/down": "answered 503", "/moved": "", "/good": "",
	} {
		t.Run(path, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if path == "/hangs" {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
			}
			archive, _, err := newFetch(t, HTTPConfig{URL: server.URL + path, CAFile: ca, TokenFile: token})(ctx, "")
			if says == "" {
				if err != nil || string(archive) != "archive for Bearer secret" {
					t.Errorf("%q, %v", archive, err)
				}
				return
			}
			if err == nil || archive != nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want an error that says %q", err, says)
			}
		})
	}
	if leaked.Load() {
		t.Error("the other server was asked")
	}
	t.Run("unknown authority", func(t *testing.T) {
		if _, _, err := newFetch(t, HTTPConfig{URL: server.URL + "/good"})(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		gone := httptest.NewServer(nil)
		fetch := newFetch(t, HTTPConfig{URL: gone.URL})
		gone.Close()
		if _, _, err := fetch(t.Context(), ""); err == nil || err.Error() != "dial: connect: connection refused" {
			t.Errorf("got %v", err)
		}
	})
}

func TestHTTPConfig(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	for name, c := range map[string]struct {
		config HTTPConfig
		says   []string
	}{
		"in the clear":     {HTTPConfig{URL: "http://a/b"}, []string{"has to begin with https://"}},
		"another scheme":   {HTTPConfig{URL: "file://localhost/b"}, []string{"has to begin with https://"}},
		"a path":           {HTTPConfig{URL: "/b"}, []string{"not a URL"}},
		"a password":       {HTTPConfig{URL: "https://a:b@c"}, []string{"without credentials"}},
		"no CA":            {HTTPConfig{URL: "https://a", CAFile: dir + "/none"}, []string{"ca: open"}},
		"a broken CA":      {HTTPConfig{URL: "https://a", CAFile: file("ca", "x")}, []string{"holds no certificate"}},
		"an empty token":   {HTTPConfig{URL: "https://a", TokenFile: file("empty", "\n")}, []string{"holds no bearer token"}},
		"a token in lines": {HTTPConfig{URL: "https://a", TokenFile: file("lines", "a\nX: b")}, []string{"holds no bearer token"}},
		"a large token":    {HTTPConfig{URL: "https://a", TokenFile: file("large", strings.Repeat("a", 64<<10+1))}, []string{"holds no bearer token"}},
		"all of it":        {HTTPConfig{URL: "b", CAFile: "none", TokenFile: "none"}, []string{"bundle b: ", "not a URL", "ca: ", "credentials: "}},
	} {
		t.Run(name, func(t *testing.T) {
			fetch, err := NewHTTPFetch(c.config)
			if err == nil || fetch != nil {
				t.Fatal("no error")
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want an error that says %q", err, part)
				}
			}
		})
	}
}
