package decisionlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/endpoint"
)

// errRefused is an answer to which trying again would bring the same.
var errRefused = errors.New("refused for good")

const (
	maxDrained     = 64 << 10 // of an answer, so that its connection is used again
	requestTimeout = 30 * time.Second
)

// A client posts to one URL.
type client struct {
	url   string
	token endpoint.TokenFile
	http  *http.Client
}

func newClient(config Config) (*client, error) {
	c := &client{url: config.URL, token: endpoint.TokenFile(config.TokenFile)}
	if err := c.token.Check(); err != nil {
		return nil, err
	}
	transport, err := endpoint.Transport(config.CAFile, config.ReadFile)
	if err != nil {
		return nil, err
	}
	c.http = &http.Client{
		Transport: transport, Timeout: requestTimeout,
		// The token goes along, so nobody may lead elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// post sends one array of events. An error that is errRefused will not go away.
func (c *client) post(ctx context.Context, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return errors.Join(errRefused, err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("User-Agent", "hallmark")
	if err := c.token.Authorize(request); err != nil {
		return err
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
