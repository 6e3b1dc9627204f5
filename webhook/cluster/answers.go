package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// answerTimeout is for one look whether the webhook answers.
const answerTimeout = 5 * time.Second

// answers asks a replica whether it is ready, in the way of an API server: at the entry's address, with a certificate that
// the entry's caBundle verifies.
func (c *Controller) answers(ctx context.Context, e entry) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(e.bundle) {
		return fmt.Errorf("%s has no caBundle yet", e.name)
	}
	address := e.address
	dialer := &net.Dialer{Timeout: answerTimeout}
	transport := &http.Transport{
		Proxy: nil, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			if c.config.Dial != "" {
				return dialer.DialContext(ctx, network, c.config.Dial)
			}
			return dialer.DialContext(ctx, network, address)
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("no replica of the webhook answers at %s: %w", address, err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the webhook at %s is not ready: %s", address, strings.TrimSpace(string(text)))
	}
	return nil
}
