package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/endpoint"
)

// A Fetch gets the archive of a bundle from where it is. version is what the last archive that could be read came with,
// "" at first; without a newer one archive is nil. Errors are those of ctx, or say what was answered, and hold no
// secret.
type Fetch func(ctx context.Context, version string) (archive []byte, newVersion string, err error)

// HTTPConfig says where a bundle is served.
type HTTPConfig struct {
	URL       string // https, or http on the loopback interface; without credentials, query and fragment
	CAFile    string // PEM; the server's certificate must come from one of these. "" is the system's
	TokenFile string // a bearer token, read for every request; "" is none

	ReadFile func(name string) ([]byte, error) // reads CAFile; nil is os.ReadFile
}

const (
	maxRedirects = 3
	maxETagBytes = 1 << 10
)

// An httpSource is a bundle on an HTTP server.
type httpSource struct {
	config HTTPConfig
	client *http.Client
}

// NewHTTPFetch checks the configuration and contacts nobody. The version of an archive is its ETag.
func NewHTTPFetch(config HTTPConfig) (Fetch, error) {
	h := &httpSource{config: config}
	if err := errors.Join(checkURL(config.URL), h.connect(), h.token().Check()); err != nil {
		return nil, fmt.Errorf("bundle %s: %w", config.URL, err)
	}
	return h.fetch, nil
}

// checkURL wants one that can stand in a log, and whose answer nobody on the way can change.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		return errors.New("it is not a URL such as https://host/path")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("the URL has to be without credentials, query and fragment")
	case u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return errors.New("the URL has to begin with https://; plain http is for the loopback interface alone")
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// connect makes the client. Who answers for the host may lead elsewhere on it, and nowhere else: the token goes along.
func (h *httpSource) connect() error {
	transport, err := endpoint.Transport(h.config.CAFile, h.config.ReadFile)
	if err != nil {
		return err
	}
	transport.ResponseHeaderTimeout = 20 * time.Second
	transport.DisableCompression = true // so that what is counted is what is sent
	h.client = &http.Client{
		Transport: transport,
		CheckRedirect: func(request *http.Request, via []*http.Request) error {
			to, from := request.URL, via[0].URL
			switch {
			case to.Scheme != from.Scheme || !strings.EqualFold(to.Host, from.Host):
				return fmt.Errorf("the server redirects to %s://%s, which is not followed", to.Scheme, to.Host)
			case len(via) > maxRedirects:
				return errors.New("the server redirects too often")
			}
			return nil
		},
	}
	return nil
}

func (h *httpSource) token() endpoint.TokenFile { return endpoint.TokenFile(h.config.TokenFile) }

func (h *httpSource) fetch(ctx context.Context, version string) (archive []byte, newVersion string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.config.URL, http.NoBody)
	if err != nil {
		return nil, "", err
	}
	request.Header.Set("User-Agent", "hallmark")
	if version != "" {
		request.Header.Set("If-None-Match", version)
	}
	if err := h.token().Authorize(request); err != nil {
		return nil, "", err
	}
	response, err := h.client.Do(request)
	if err != nil {
		return nil, "", withoutAddresses(err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotModified && version != "":
		return nil, version, nil
	case response.StatusCode != http.StatusOK:
		return nil, "", fmt.Errorf("the server answered %d", response.StatusCode)
	}
	archive, err = io.ReadAll(io.LimitReader(response.Body, MaxBundleBytes+1))
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("the answer broke off: %w", withoutAddresses(err))
	case len(archive) > MaxBundleBytes:
		return nil, "", fmt.Errorf("the server sent more than %d MiB", MaxBundleBytes>>20)
	case len(archive) == 0:
		return nil, "", errors.New("the server sent nothing")
	}
	if newVersion = response.Header.Get("ETag"); len(newVersion) > maxETagBytes {
		newVersion = ""
	}
	return archive, newVersion, nil
}

// withoutAddresses words an error of the network the same way each time: the port of our side is another one for every
// connection.
func withoutAddresses(err error) error {
	if known, ok := errors.AsType[*url.Error](err); ok {
		err = known.Err
	}
	if known, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("%s: %w", known.Op, known.Err)
	}
	return err
}
