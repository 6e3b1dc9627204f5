package registry

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/hallmark-admission/hallmark/webhook"
)

// go-containerregistry's transport.Exchange is not used for tokens: it follows redirects, gives Basic credentials to
// any realm that is a DNS name, and puts the token server's answer into its errors.

const (
	maxTokenBytes  = 64 << 10 // of a token server's answer
	maxTokenLength = 32 << 10 // of a token, so that it fits a header
)

// learn remembers what a 401 asked for, and forgets the token that did not do.
func (h *host) learn(header http.Header, sent credential) error {
	h.tokens.forget(sent)
	asked, ok := parseChallenge(header)
	if !ok {
		h.challenge.Store(nil)
		return nil
	}
	if asked.bearer {
		if err := h.checkRealm(asked.realm); err != nil {
			return err
		}
	}
	h.challenge.Store(&asked)
	return nil
}

// checkRealm allows tokens to be fetched from the registry's own origin and from its tokenHosts.
func (h *host) checkRealm(realm string) error {
	u, err := url.Parse(realm)
	if realm == "" || err != nil || u.User != nil || u.Opaque != "" || u.Fragment != "" {
		return h.invalid("asks for a token from an address that cannot be read", nil)
	}
	if !h.tokenHosts[originOf(u)] {
		return h.readError(webhook.NotAllowed, fmt.Sprintf(
			"asks for a token from %s, which is not one of its tokenHosts", webhook.Quote(cutHost(u))), nil)
	}
	return nil
}

// authorize gives what the last challenge asks for, for one repository; nothing when there was none or when there are
// no credentials for the repository.
func (c *Client) authorize(ctx context.Context, h *host, repository string) (credential, error) {
	asked := h.challenge.Load()
	if asked == nil {
		return credential{}, nil
	}
	login := h.credentials.find(h.name + "/" + repository)
	if !asked.bearer {
		return credential{header: basicHeader(login)}, nil
	}
	if login.RegistryToken != "" {
		return credential{header: "Bearer " + login.RegistryToken}, nil
	}
	scope := "repository:" + repository + ":pull"
	// Some registries want a scope of their own word (public.ecr.aws: "aws"). One that names a resource is never taken
	// over: the registry does not choose what its token opens.
	if asked.scope != "" && !strings.ContainsAny(asked.scope, ": ") {
		scope += " " + asked.scope
	}
	key := tokenKey{asked.realm, asked.service, scope}
	fetched, err := h.tokens.get(ctx, key, func(ctx context.Context) (token, error) {
		return c.fetchToken(ctx, h, key, tokenRequest{repository, login})
	})
	return credential{fetched.header, key}, err
}

func basicHeader(login authn.AuthConfig) string {
	if login.Username == "" || login.Password == "" {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(login.Username+":"+login.Password))
}

// A tokenRequest is for whom a token is fetched.
type tokenRequest struct {
	repository string
	login      authn.AuthConfig
}

// fetchToken asks the token server: with an identity token by OAuth2 (POST), else by Docker's protocol (GET).
func (c *Client) fetchToken(ctx context.Context, h *host, key tokenKey, who tokenRequest) (token, error) {
	bounded, cancel := context.WithTimeout(ctx, c.limits.Timeout)
	defer cancel()
	issued := c.now()
	request, err := newTokenRequest(bounded, key, who.login)
	if err != nil {
		return token{}, h.invalid("asks for a token from an address that cannot be read", nil)
	}
	subject := ""
	if request.URL.Host != h.address {
		subject = webhook.Quote(request.URL.Host)
	}
	got, err := c.send(h, request, exchange{"token", "token", maxTokenBytes})
	if err != nil {
		return token{}, c.failed(ctx, h, err, subject)
	}
	if got.status != http.StatusOK {
		return token{}, h.tokenStatus(got.status, who.repository)
	}
	// The answer is a secret: nothing of it goes into an error.
	var body struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(got.body, &body); err != nil {
		return token{}, h.invalid("has a token service whose answer cannot be read", nil)
	}
	if body.Token == "" {
		body.Token = body.AccessToken
	}
	if !isHeaderValue(body.Token) {
		return token{}, h.invalid("has a token service that sent no usable token", nil)
	}
	life := time.Duration(min(body.ExpiresIn, int64(maxTokenLife/time.Second))) * time.Second
	return token{header: "Bearer " + body.Token, expires: expiry(issued, life)}, nil
}

func newTokenRequest(ctx context.Context, key tokenKey, login authn.AuthConfig) (*http.Request, error) {
	realm, err := url.Parse(key.realm)
	if err != nil {
		return nil, err
	}
	if login.IdentityToken != "" {
		form := url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {login.IdentityToken},
			"service": {key.service}, "scope": {key.scope}, "client_id": {userAgent},
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err == nil {
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return request, err
	}
	parameters := realm.Query()
	parameters["scope"] = strings.Fields(key.scope)
	if key.service != "" {
		parameters.Set("service", key.service)
	}
	realm.RawQuery = parameters.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err == nil {
		if header := basicHeader(login); header != "" {
			request.Header.Set("Authorization", header)
		}
	}
	return request, err
}

func (h *host) tokenStatus(status int, repository string) error {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return h.readError(webhook.Unauthorized,
			fmt.Sprintf("refused access to %s (its token service answered %d)", repository, status), nil)
	case status == http.StatusTooManyRequests, status >= 500:
		return h.readError(webhook.Unavailable, fmt.Sprintf("has a token service that answered %d", status), nil)
	default:
		return h.invalid(fmt.Sprintf("has a token service that answered %d", status), nil)
	}
}

// isHeaderValue allows what a bearer token is made of, and refuses what could end the header.
func isHeaderValue(s string) bool {
	return s != "" && len(s) <= maxTokenLength &&
		strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}
