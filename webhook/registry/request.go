package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

const (
	maxRedirects = 3
	// maxDrained is how much of an answer that nobody wants is read, so that its connection can be used again.
	maxDrained = 16 << 10
	// preallocated bounds the memory given on the strength of a Content-Length alone.
	preallocated = 256 << 10
)

// A query is one thing to ask a registry for.
type query struct {
	operation  string // "manifest", "blob" or "referrers"
	repository string
	reference  string // tag or digest
	page       string // the query of a later page
	accept     string
	maxBytes   int64
	what       string // "manifest", "config": for "sent a manifest larger than …"
	missing    string // "tag v9.9.9": for "has no tag v9.9.9 of …"
	answers    []int  // what is an answer and no error, besides 200
}

func (q query) path() string {
	return "/v2/" + q.repository + "/" + strings.TrimSuffix(q.operation, "s") + "s/" + q.reference
}

// An answer is what came back: a body only with 200.
type answer struct {
	status int
	header http.Header
	body   []byte
	own    bool // it came from the registry itself and not from where it redirected to
}

// get asks for q when the gate lets it. A registry that says when to come again, and soon, is asked a second time.
func (c *Client) get(ctx context.Context, h *host, q query) (*answer, error) {
	for attempt := 0; ; attempt++ {
		refused, err := h.gate.enter(ctx)
		switch {
		case err != nil:
			return nil, err
		case refused != "":
			return nil, h.readError(webhook.Unavailable, refused, nil)
		}
		got, err := c.ask(ctx, h, q)
		if err == nil && got.status != http.StatusOK && !slices.Contains(q.answers, got.status) {
			err = h.statusError(q, got.status)
		}
		var failure *webhook.ReadError
		unavailable := errors.As(err, &failure) && failure.Failure == webhook.Unavailable
		header := http.Header{}
		if got != nil {
			header = got.header
		}
		if !unavailable {
			h.gate.leave(nil, header, err != nil && failure == nil)
		} else if h.gate.leave(failure, header, false); attempt == 0 && header.Get("Retry-After") != "" {
			continue
		}
		if err != nil {
			return nil, err
		}
		return got, nil
	}
}

// ask makes the request, with credentials when the registry wants them. The first carries those that the last challenge
// asked for; only when they do not do is there a second one.
func (c *Client) ask(ctx context.Context, h *host, q query) (*answer, error) {
	sent, err := c.authorize(ctx, h, q.repository)
	if err != nil {
		return nil, err
	}
	got, err := c.follow(ctx, h, q, sent.header)
	if err == nil && got.status == http.StatusUnauthorized && got.own {
		return c.retry(ctx, h, q, got, sent)
	}
	return got, err
}

// retry asks once more after a 401, if the challenge that came with it leads to other credentials than were sent.
func (c *Client) retry(ctx context.Context, h *host, q query, refused *answer, sent credential) (*answer, error) {
	if err := h.learn(refused.header, sent); err != nil {
		return nil, err
	}
	renewed, err := c.authorize(ctx, h, q.repository)
	if err != nil || renewed.header == "" || renewed.header == sent.header {
		return refused, err
	}
	got, err := c.follow(ctx, h, q, renewed.header)
	if err == nil && got.status == http.StatusUnauthorized {
		h.tokens.forget(renewed)
	}
	return got, err
}

// follow sends a request and the redirects that are allowed. Limits.Timeout is for all of them together.
func (c *Client) follow(ctx context.Context, h *host, q query, authorization string) (*answer, error) {
	bounded, cancel := context.WithTimeout(ctx, c.limits.Timeout)
	defer cancel()
	target := &url.URL{Scheme: h.scheme, Host: h.address, Path: q.path(), RawQuery: q.page}
	own := originOf(target)
	for hop := 0; ; hop++ {
		request, err := http.NewRequestWithContext(bounded, http.MethodGet, target.String(), nil)
		if err != nil {
			return nil, h.invalid("could not be asked", errors.New("malformed URL"))
		}
		request.Header.Set("Accept", q.accept)
		atHome := originOf(target) == own
		if atHome && authorization != "" {
			request.Header.Set("Authorization", authorization)
		}
		got, err := c.send(h, request, exchange{q.operation, q.what, q.maxBytes})
		if err != nil {
			subject := ""
			if !atHome {
				subject = webhook.Quote(target.Host)
			}
			return nil, c.failed(ctx, h, err, subject)
		}
		got.own = atHome
		if !isRedirect(got.status) {
			return got, nil
		}
		if hop == maxRedirects {
			return nil, h.invalid(fmt.Sprintf("redirected more than %d times", maxRedirects), nil)
		}
		if target, err = h.redirected(q, target, got.header.Get("Location")); err != nil {
			return nil, err
		}
	}
}

// failed tells errors about the content from errors of the transport.
func (c *Client) failed(ctx context.Context, h *host, err error, subject string) error {
	var read *webhook.ReadError
	if errors.As(err, &read) {
		return err
	}
	return h.transportError(ctx, err, c.limits.Timeout, subject)
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect,
		http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirected says where a redirect leads if that is allowed: to the same origin, and for blobs to a blob host.
func (h *host) redirected(q query, from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	if location == "" || err != nil || to.User != nil {
		return nil, h.invalid("redirected to an address that cannot be read", nil)
	}
	to.Fragment = ""
	origin := originOf(to)
	allowed := origin == originOf(from)
	if q.operation == "blob" {
		allowed = h.blobHosts[origin]
	}
	if allowed {
		return to, nil
	}
	hint := ""
	if q.operation == "blob" {
		hint = ", which is not one of its blobHosts"
	}
	return nil, h.readError(webhook.NotAllowed, fmt.Sprintf("redirected the %s to another host, %s%s",
		q.what, webhook.Quote(cutHost(to)), hint), nil)
}

// cutHost gives scheme and host of a URL, for a message; never its path and query, which may hold a signature.
func cutHost(u *url.URL) string {
	name := u.Scheme + "://" + u.Host
	return name[:min(len(name), 100)]
}

// An exchange is how one request is counted and how its body is bounded.
type exchange struct {
	operation string
	what      string
	maxBytes  int64
}

// send makes one HTTP request and reads the whole answer.
func (c *Client) send(h *host, request *http.Request, e exchange) (*answer, error) {
	request.Header.Set("User-Agent", userAgent)
	// Compressed content is refused, so that the cap holds for what is unpacked too.
	request.Header.Set("Accept-Encoding", "identity")
	status, start, ctx := 0, time.Now(), request.Context()
	defer func() { c.observe(ctx, h.name, e.operation, status, time.Since(start)) }()
	request, done := boundAttempts(request)
	defer done()
	response, err := h.roundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	status = response.StatusCode
	got := &answer{status: status, header: response.Header}
	if status != http.StatusOK {
		_, _ = io.CopyN(io.Discard, response.Body, maxDrained)
		return got, nil
	}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, h.invalid(fmt.Sprintf("sent a %s compressed with %s, which was not asked for", e.what, show(encoding)), nil)
	}
	got.body, err = c.readBody(response, e.maxBytes)
	if errors.Is(err, errTooLarge) {
		return nil, h.tooLarge(e.what, e.maxBytes)
	}
	return got, err
}

// boundAttempts ends a request that net/http begins again and again, until the deadline: it does so for every connection
// that a server asks it to leave before there is an answer (HTTP/2 GOAWAY). A kept connection that has gone stale costs no
// attempt, since a balancer may have dropped all of them.
func boundAttempts(request *http.Request) (bounded *http.Request, done func()) {
	const most = 4
	ctx, cancel := context.WithCancelCause(request.Context())
	var attempts, fresh atomic.Int32
	trace := &httptrace.ClientTrace{
		GetConn: func(string) {
			if attempts.Add(1) > maxIdleConns+most || fresh.Load() == most {
				cancel(errAttempts)
			}
		},
		GotConn: func(got httptrace.GotConnInfo) {
			if !got.Reused {
				fresh.Add(1)
			}
		},
	}
	return request.WithContext(httptrace.WithClientTrace(ctx, trace)), func() { cancel(nil) }
}

var (
	errTooLarge = errors.New("too large")
	errAttempts = errors.New("the connection was refused again and again")
)

// readBody reads at most limit bytes; one more is an error. The memory grows with what comes, never beyond limit, and
// beyond a common size only for as many answers at a time as the budget allows.
func (c *Client) readBody(response *http.Response, limit int64) ([]byte, error) {
	if response.ContentLength > limit {
		return nil, errTooLarge
	}
	room := min(max(response.ContentLength, 0)+1, preallocated) // one more, in which the end is seen
	body := make([]byte, 0, max(room, 1<<10))
	budgeted := false
	for {
		n, err := response.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > limit:
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			if len(body) < preallocated {
				body = bytes.Clone(body) // without the room that is left: thousands of these are kept
			}
			return body, nil
		case err != nil:
			return nil, err
		case len(body) < cap(body):
			continue
		}
		if !budgeted && len(body) >= preallocated {
			ctx := response.Request.Context()
			select {
			case c.budget <- struct{}{}:
				budgeted = true
				defer func() { <-c.budget }()
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		larger := make([]byte, len(body), min(2*int64(cap(body)), oneMore(limit)))
		copy(larger, body)
		body = larger
	}
}
