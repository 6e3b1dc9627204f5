// Package endpoint is how the product comes to an HTTPS service that the configuration names: whose certificate it trusts
// there, and with which token it comes. Registries have a transport of their own, in package registry.
package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Transport gives connections to one service, whose certificate must come from an authority in a PEM file; "" is those of
// the system. The file is read by readFile, or by os.ReadFile when that is nil. It goes by the proxies of the environment.
func Transport(caFile string, readFile func(name string) ([]byte, error)) (*http.Transport, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: 10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: 90 * time.Second,
	}
	if caFile == "" {
		return t, nil
	}
	if readFile == nil {
		readFile = os.ReadFile
	}
	authorities, err := readFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("ca %s holds no certificate in PEM", caFile)
	}
	return t, nil
}

// A TokenFile is the path of a file that holds a bearer token; "" is none. It is read for every request, since such
// tokens are short-lived and replaced on disk.
type TokenFile string

const maxTokenBytes = 64 << 10

// Check says whether there is a token in the file.
func (f TokenFile) Check() error {
	if f == "" {
		return nil
	}
	_, err := f.read()
	return err
}

// Authorize gives a request the token.
func (f TokenFile) Authorize(request *http.Request) error {
	if f == "" {
		return nil
	}
	token, err := f.read()
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	return nil
}

func (f TokenFile) read() (string, error) {
	file, err := os.Open(string(f))
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
		return "", fmt.Errorf("credentials: %s holds no bearer token on one line", f)
	}
	return token, nil
}
