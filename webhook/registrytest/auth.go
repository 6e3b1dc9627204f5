package registrytest

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	tokenPath    = "/token"
	tokenService = "registrytest"
	tokenLife    = 5 * time.Minute
)

// Auth asks clients for a user and a password.
type Auth struct {
	User, Password string

	// Bearer has clients fetch tokens at /token of the same host, each for one repository. The password is asked
	// there, and nothing but a token opens the registry. Without it the password is asked with every request.
	Bearer bool

	// IdentityToken is accepted at the token endpoint as an OAuth2 refresh token, besides the password.
	IdentityToken string
}

func (a *Auth) check() error {
	if a != nil && (a.User == "" || a.Password == "") {
		return errors.New("registrytest: Config.Auth needs a user and a password")
	}
	return nil
}

// An authenticator lets through to next what carries the credentials that it asks for.
type authenticator struct {
	auth  Auth
	realm string
	next  http.Handler

	mu     sync.Mutex
	tokens map[string]grant
}

// A grant is what a token opens, and until when.
type grant struct {
	scope   string // "repository:golden/base:pull"
	expires time.Time
}

func newAuthenticator(auth Auth, realm string, next http.Handler) *authenticator {
	return &authenticator{auth: auth, realm: realm, next: next, tokens: map[string]grant{}}
}

func (a *authenticator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case !a.auth.Bearer && a.hasPassword(r):
		a.next.ServeHTTP(w, r)
	case !a.auth.Bearer:
		w.Header().Set("WWW-Authenticate", `Basic realm="registrytest"`)
		unauthorized(w)
	case r.URL.Path == tokenPath:
		a.serveToken(w, r)
	case a.hasToken(r):
		a.next.ServeHTTP(w, r)
	default:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=%q,scope=%q",
			a.realm, tokenService, pullScope(r.URL.Path)))
		unauthorized(w)
	}
}

func (a *authenticator) hasPassword(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	return ok && equal(user, a.auth.User) && equal(password, a.auth.Password)
}

func (a *authenticator) hasToken(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a.mu.Lock()
	defer a.mu.Unlock()
	granted, known := a.tokens[token]
	return ok && known && granted.scope == pullScope(r.URL.Path) && time.Now().Before(granted.expires)
}

// serveToken answers GET with a password (the Docker token protocol) and POST with a refresh token (OAuth2).
func (a *authenticator) serveToken(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "malformed form", http.StatusBadRequest)
		return
	}
	allowed := r.Method == http.MethodGet && a.hasPassword(r)
	if r.Method == http.MethodPost && r.Form.Get("grant_type") == "refresh_token" {
		allowed = a.auth.IdentityToken != "" && equal(r.Form.Get("refresh_token"), a.auth.IdentityToken)
	}
	if !allowed || r.Form.Get("service") != tokenService {
		unauthorized(w)
		return
	}
	token := rand.Text()
	a.mu.Lock()
	a.tokens[token] = grant{scope: r.Form.Get("scope"), expires: time.Now().Add(tokenLife)}
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": int(tokenLife.Seconds())})
}

func unauthorized(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`))
}

// pullScope names the repository of "/v2/golden/base/manifests/v1" as a token's scope does.
func pullScope(path string) string {
	repository := strings.TrimPrefix(path, "/v2/")
	for _, kind := range []string{"/manifests/", "/blobs/", "/referrers/", "/tags/"} {
		if i := strings.LastIndex(repository, kind); i >= 0 {
			return "repository:" + repository[:i] + ":pull"
		}
	}
	return "registry:catalog:*"
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
