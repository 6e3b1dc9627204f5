package decisionlog

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// errRefused is an answer to which trying again would bring the same.
var errRefused = errors.New("refused for good")

const (
	maxTokenBytes  = 64 << 10
	maxDrained     = 64 << 10 // of an answer, so that its connection is used again
	requestTimeout = 30 * time.Second
)

// A client posts to one URL.
type client struct {
	url, tokenFile string
	http           *http.Client
}

func newClient(config Config) (*client, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: 10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: 90 * time.Second,
	}
	c := &client{url: config.URL, tokenFile: config.TokenFile, http: &http.Client{
		Transport: transport, Timeout: requestTimeout,
		// The token goes along, so nobody may lead elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if _, err := c.token(); err != nil {
		return nil, err
	}
	if config.CAFile == "" {
		return c, nil
	}
	authorities, err := os.ReadFile(config.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("ca %s holds no certificate in PEM", config.CAFile)
	}
	return c, nil
}

// token reads the file each time: such tokens are short-lived and replaced on disk.
func (c *client) token() (string, error) {
	if c.tokenFile == "" {
		return "", nil
	}
	file, err := os.Open(c.tokenFile)
	if err != nil {
		return "", fmt.Errorf("credentials: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxTokenBytes+1))
	if err != nil {
		return "", fmt.Errorf("credentials: %w", err)
	}
	token := strings.TrimSpace(string(text))
	invisible := func(r rune) bool { return r <= ' ' || r > '~' }
	if token == "" || len(text) > maxTokenBytes || strings.ContainsFunc(token, invisible) {
		return "", fmt.Errorf("credentials: %s holds no bearer token on one line", c.tokenFile)
	}
	return token, nil
}

// post sends one array of events. An error that is errRefused will not go away.
func (c *client) post(ctx context.Context, body []byte) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return errors.Join(errRefused, err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("User-Agent", "hallmark")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxDrained)
	switch code := response.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnsupportedMediaType,
		code == http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: the service answered %d", errRefused, code)
	default:
		return fmt.Errorf("the service answered %d", code)
	}
}

func (c *client) close() { c.http.CloseIdleConnections() }
