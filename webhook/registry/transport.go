package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/hallmark-admission/hallmark/webhook"
)

const (
	userAgent            = "hallmark"
	maxHeaderBytes       = 64 << 10 // of an answer; a registry sends one or two KiB
	maxIdleConns         = 32       // a host; more are closed when their request ends
	idleConnTimeout      = 90 * time.Second
	keepAliveProbePeriod = 30 * time.Second
)

// A host is a configured registry with the connections to it, and what was learned of its authentication.
type host struct {
	name       string // in references: "docker.io"
	address    string // contacted: "registry-1.docker.io"
	scheme     string
	tokenHosts map[string]bool // origins, the registry's own among them
	blobHosts  map[string]bool // origins, the registry's own among them

	// transports has the connections for every origin that may be contacted on behalf of this registry. What is not in
	// it cannot be contacted, whatever the code above decides.
	transports map[string]*http.Transport

	credentials credentials
	challenge   atomic.Pointer[challenge] // the last one; nil until the registry asks for credentials
	tokens      *tokens
	gate        *gate
	absences    *lru.Cache[string, time.Time] // repositories without a referrers API, and until when that is believed
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// A network is how hosts are reached.
type network struct {
	dial    dialFunc
	proxy   func(*http.Request) (*url.URL, error)
	timeout time.Duration
	now     func() time.Time

	readFile func(name string) ([]byte, error)
}

var (
	errForbiddenOrigin = errors.New("the host is not in the configuration of this registry")
	errPlainProxy      = errors.New("credentials would pass a proxy in the clear")
)

// connect makes the transports. With authorities of its own, the registry is trusted on their word alone; its token
// and blob hosts may also be public ones.
func (h *host) connect(config Host, authorities []byte, n network) {
	own := h.scheme + "://" + withPort(h.address, h.scheme)
	h.tokenHosts = origins(own, config.TokenHosts)
	h.blobHosts = origins(own, config.BlobHosts)
	h.transports = map[string]*http.Transport{own: newTransport(n, trusting(authorities, false))}
	if len(h.tokenHosts)+len(h.blobHosts) > 2 {
		others := newTransport(n, trusting(authorities, true))
		for _, set := range []map[string]bool{h.tokenHosts, h.blobHosts} {
			for origin := range set {
				if origin != own {
					h.transports[origin] = others
				}
			}
		}
	}
}

func origins(own string, others []string) map[string]bool {
	set := map[string]bool{own: true}
	for _, other := range others {
		set["https://"+withPort(other, "https")] = true
	}
	return set
}

// trusting makes a pool of the given authorities, with those of the system or without; nil is the system's alone.
func trusting(authorities []byte, system bool) *x509.CertPool {
	if authorities == nil {
		return nil
	}
	pool := x509.NewCertPool()
	if system {
		if all, err := x509.SystemCertPool(); err == nil {
			pool = all
		}
	}
	pool.AppendCertsFromPEM(authorities)
	return pool
}

func newTransport(n network, authorities *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return guardProxy(n.proxy, r) },
		DialContext:            n.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: authorities},
		TLSHandshakeTimeout:    n.timeout,
		ResponseHeaderTimeout:  n.timeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxIdleConns:           maxIdleConns,
		MaxIdleConnsPerHost:    maxIdleConns,
		IdleConnTimeout:        idleConnTimeout,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		// A stream may be ahead of its reader by this much, which is memory that the server decides about.
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 20, MaxReceiveBufferPerConnection: 16 << 20},
	}
}

// guardProxy keeps credentials off a proxy that would read them: with https it sees a tunnel, with http everything.
func guardProxy(proxy func(*http.Request) (*url.URL, error), r *http.Request) (*url.URL, error) {
	chosen, err := proxy(r)
	if err == nil && chosen != nil && r.URL.Scheme == "http" && r.Header.Get("Authorization") != "" {
		return nil, errPlainProxy
	}
	return chosen, err
}

// roundTrip sends one request, over the connections of its origin.
func (h *host) roundTrip(r *http.Request) (*http.Response, error) {
	transport := h.transports[originOf(r.URL)]
	if transport == nil {
		return nil, errForbiddenOrigin
	}
	return transport.RoundTrip(r)
}

func (h *host) closeIdle() {
	for _, transport := range h.transports {
		transport.CloseIdleConnections()
	}
}

// originOf is scheme, host and port, all written out, in lower case.
func originOf(u *url.URL) string { return u.Scheme + "://" + withPort(u.Host, u.Scheme) }

func withPort(address, scheme string) string {
	address = strings.ToLower(address)
	if _, port, found := strings.Cut(address, ":"); found && port != "" {
		return address
	}
	port := ":443"
	if scheme == "http" {
		port = ":80"
	}
	return strings.TrimSuffix(address, ":") + port
}

// readError makes the error for a registry. The reason may quote what the registry sent, and that may be a secret that
// it was shown.
func (h *host) readError(failure webhook.ReadFailure, reason string, cause error) error {
	return &webhook.ReadError{Failure: failure, Registry: h.name, Reason: h.redact(reason), Err: cause}
}

// redact takes the secrets out of a text that this registry or its token service has been shown or has issued.
func (h *host) redact(text string) string {
	for _, secret := range append(h.credentials.secrets(), h.tokens.values()...) {
		if len(secret) > 3 {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}
