package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// certificate is a serving certificate in two files that are replaced while the server runs. It looks at them every few
// seconds: a mounted Secret is swapped by a symbolic link, which notifications of single files miss.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
	text              []byte // of both files, as loaded
}

// load reads the files. An unreadable pair leaves the one in use.
func (c *certificate) load() (changed bool, err error) {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return false, fmt.Errorf("read serving certificate: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return false, fmt.Errorf("read serving key: %w", err)
	}
	text := append(append([]byte{}, cert...), key...)
	if string(text) == string(c.text) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("serving certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return false, fmt.Errorf("serving certificate %s: %w", c.certFile, err)
		}
	}
	c.current.Store(&pair)
	c.text = text
	return true, nil
}

// valid says why no client would accept the certificate, or nil.
func (c *certificate) valid(now time.Time) error {
	pair := c.current.Load()
	switch {
	case pair == nil:
		return errors.New("no serving certificate")
	case now.After(pair.Leaf.NotAfter):
		return fmt.Errorf("the serving certificate expired at %s", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(pair.Leaf.NotBefore):
		return fmt.Errorf("the serving certificate is valid only from %s", pair.Leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// watch loads the files again when they change, until ctx ends.
func (c *certificate) watch(ctx context.Context, every time.Duration, metrics *Metrics, log *slog.Logger) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, err := c.load()
		switch {
		case err != nil && !failed:
			metrics.Reloaded("certificate", err)
			log.Error("certificate could not be reloaded; the old one stays", "error", err)
		case changed:
			metrics.Reloaded("certificate", nil)
			log.Info("certificate reloaded")
		}
		failed = err != nil
		if pair := c.current.Load(); pair != nil {
			metrics.certificateExpiry.Set(float64(pair.Leaf.NotAfter.Unix()))
		}
	}
}

// config is for a server that kube-apiserver calls: TLS 1.2 or later, and HTTP/1.1, which is what it speaks to webhooks.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if pair := c.current.Load(); pair != nil {
				return pair, nil
			}
			return nil, errors.New("no serving certificate")
		},
	}
}
