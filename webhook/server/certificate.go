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

// A certificate that ends within this time is warned of, once a day.
const (
	endsSoon  = 7 * 24 * time.Hour
	warnEvery = 24 * time.Hour
)

// watch loads the files again when they change, until ctx ends.
func (c *certificate) watch(ctx context.Context, every time.Duration, metrics *Metrics, log *slog.Logger) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	w := certificateWatch{certificate: c, metrics: metrics, log: log}
	w.warn(time.Now())
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			w.look()
			w.warn(now)
		}
	}
}

// certificateWatch remembers what was said already.
type certificateWatch struct {
	*certificate
	metrics  *Metrics
	log      *slog.Logger
	failures int // in a row
	warned   time.Time
}

// look loads the files if they have changed. What fails once may be files of which one is written already and the other
// is not; what fails twice is wrong.
func (w *certificateWatch) look() {
	changed, err := w.load()
	if err != nil {
		if w.failures++; w.failures == 2 {
			w.metrics.Reloaded("certificate", err)
			w.log.Error("certificate could not be reloaded; the old one stays", "error", err)
		}
		return
	}
	w.failures = 0
	if changed {
		leaf := w.current.Load().Leaf
		w.metrics.Reloaded("certificate", nil)
		w.metrics.certificateExpiry.Set(float64(leaf.NotAfter.Unix()))
		w.log.Info("certificate reloaded", "expires", leaf.NotAfter.UTC())
		w.warned = time.Time{}
	}
}

// warn tells of an end that is near.
func (w *certificateWatch) warn(now time.Time) {
	end := w.current.Load().Leaf.NotAfter
	if end.Sub(now) > endsSoon || now.Sub(w.warned) < warnEvery {
		return
	}
	w.warned = now
	if now.After(end) {
		w.log.Error("the serving certificate has expired: API servers refuse it; renew the files", "expired", end.UTC(), "file", w.certFile)
		return
	}
	w.log.Warn("the serving certificate ends soon; renew the files", "expires", end.UTC(), "file", w.certFile)
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
