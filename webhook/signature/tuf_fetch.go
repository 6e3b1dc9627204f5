package signature

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// A tufDownload gets files over HTTP for one reading and remembers them.
type tufDownload struct {
	ctx    context.Context //nolint:containedctx // go-tuf has none to hand on
	client *http.Client
	base   string
	left   int64 // bytes that may still come
	files  map[string][]byte
}

// DownloadFile implements fetcher.Fetcher.
func (d *tufDownload) DownloadFile(address string, maxBytes int64, _ time.Duration) ([]byte, error) {
	request, err := http.NewRequestWithContext(d.ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "hallmark")
	response, err := d.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: response.StatusCode, URL: address}
	}
	maxBytes = min(maxBytes, d.left)
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", address, err)
	case int64(len(body)) > maxBytes:
		return nil, fmt.Errorf("%s has more than %d bytes", address, maxBytes)
	}
	d.left -= int64(len(body))
	d.files[tufPath(d.base, address)] = body
	return body, nil
}

// tufFiles are files that were downloaded before.
type tufFiles struct {
	base  string
	files map[string][]byte
}

// DownloadFile implements fetcher.Fetcher.
func (f tufFiles) DownloadFile(address string, maxBytes int64, _ time.Duration) ([]byte, error) {
	body, ok := f.files[tufPath(f.base, address)]
	if !ok || int64(len(body)) > maxBytes {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: http.StatusNotFound, URL: address}
	}
	return body, nil
}

// tufPath is where a file is in the repository. The target has its hash before its name, and go-tuf takes one of
// several by chance.
func tufPath(base, address string) string {
	in := strings.TrimPrefix(address, base)
	if name := path.Base(in); strings.HasPrefix(in, "targets/") && strings.HasSuffix(name, "."+tufTarget) {
		return "targets/" + tufTarget
	}
	return in
}

// outsideClient follows redirects only to where outsideURL would read from.
func outsideClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
			DisableCompression: true, // so that what is counted is what is sent
		},
		CheckRedirect: func(request *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("there are too many redirects")
			}
			to := url.URL{Scheme: request.URL.Scheme, Host: request.URL.Host}
			if _, err := outsideURL(to.String()); err != nil {
				return fmt.Errorf("redirect: %w", err)
			}
			return nil
		},
	}
}
