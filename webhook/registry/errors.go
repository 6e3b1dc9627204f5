package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

func (h *host) invalid(reason string, cause error) error {
	return h.readError(webhook.Invalid, reason, cause)
}

func (h *host) tooLarge(what string, max int64) error { return tooLarge(h.name, what, max) }

// refuse makes what a parser found wrong an error of this registry.
func (h *host) refuse(err error) error {
	var read *webhook.ReadError
	if errors.As(refuse(h.name, err), &read) {
		return h.invalid(read.Reason, read.Err)
	}
	return err
}

func (h *host) otherContent(digest string) error {
	return h.invalid("returned other content than "+webhook.ShortDigest(digest)+" asked for", nil)
}

func invalid(registry, reason string, cause error) error {
	return &webhook.ReadError{Failure: webhook.Invalid, Registry: registry, Reason: reason, Err: cause}
}

func tooLarge(registry, what string, max int64) error {
	return invalid(registry, fmt.Sprintf("sent a %s larger than %s", what, sizeText(max)), errTooLarge)
}

// refuse makes what a parser found wrong an error of a registry.
func refuse(registry string, err error) error {
	var found *invalidError
	if errors.As(err, &found) {
		return invalid(registry, found.reason, nil)
	}
	return invalid(registry, "sent something that could not be read", err)
}

// statusError words a status other than success.
func (h *host) statusError(q query, status int) error {
	switch {
	case status == http.StatusNotFound:
		return h.readError(webhook.NotFound, fmt.Sprintf("has no %s of %s", q.missing, q.repository), nil)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return h.readError(webhook.Unauthorized, fmt.Sprintf("refused access to %s (%d)", q.repository, status), nil)
	case status == http.StatusTooManyRequests:
		return h.readError(webhook.Unavailable, "is limiting requests (429)", nil)
	case status >= 500:
		return h.readError(webhook.Unavailable, fmt.Sprintf("answered %d", status), nil)
	default:
		return h.invalid(fmt.Sprintf("answered %d", status), nil)
	}
}

// transportError words why no answer came. ctx is the caller's: when that is done, its error is the answer. subject is
// "" for the registry itself, else the host that was contacted for it.
func (h *host) transportError(ctx context.Context, err error, timeout time.Duration, subject string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// The dialer keeps a context's deadline by a clock of its own, and can be a moment ahead of the context.
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	failure, reason := explain(err, timeout)
	if subject != "" {
		reason = "depends on " + subject + ", which " + reason
	}
	return h.readError(failure, reason, safeCause(err))
}

func explain(err error, timeout time.Duration) (webhook.ReadFailure, string) {
	var (
		forbidden *forbiddenAddressError
		dns       *net.DNSError
		netErr    net.Error
	)
	switch {
	case errors.Is(err, errForbiddenOrigin):
		return webhook.NotAllowed, "would have to be contacted at a host that is not configured"
	case errors.Is(err, errPlainProxy):
		return webhook.NotAllowed, "would get its credentials through a proxy in the clear (add it to NO_PROXY, or use TLS)"
	case errors.As(err, &forbidden):
		return webhook.NotAllowed, "has a name that leads to a " + forbidden.kind + " address, which is not allowed"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return webhook.Unavailable, fmt.Sprintf("did not answer within %v", timeout)
	case errors.As(err, &dns):
		return webhook.Unavailable, "could not be found (DNS)"
	case errors.Is(err, syscall.ECONNREFUSED):
		return webhook.Unavailable, "refused the connection"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return webhook.Unavailable, "could not be reached (no route)"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, errAttempts),
		err.Error() == "http: server closed idle connection": // net/http keeps the value to itself
		return webhook.Unavailable, "broke the connection"
	}
	if reason := explainTLS(err); reason != "" {
		return webhook.Unavailable, reason
	}
	return webhook.Unavailable, "gave no readable answer (protocol error)"
}

func explainTLS(err error) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		op        *net.OpError
	)
	const untrusted = "has a certificate that is not trusted"
	switch {
	case errors.As(err, &authority):
		return untrusted + " (unknown authority)"
	case errors.As(err, &name):
		return untrusted + " (it is for another name)"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return untrusted + " (expired or not yet valid)"
	case errors.As(err, &invalid), errors.As(err, &verify):
		return untrusted
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		return "speaks plain HTTP where TLS is required"
	case errors.As(err, &record), errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"): // a TLS alert
		return "failed the TLS handshake"
	}
	return ""
}

// safeCause keeps of an error what can be logged. Errors of the operating system, the resolver and the TLS stack say
// where and why; any other may quote what the server sent or show the query of a URL, and a hostile or broken server
// sends credentials back.
func safeCause(err error) error {
	if known, ok := errors.AsType[*forbiddenAddressError](err); ok {
		return known
	}
	if known, ok := errors.AsType[*net.OpError](err); ok {
		return known
	}
	if known, ok := errors.AsType[*net.DNSError](err); ok {
		return known
	}
	if known, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return known
	}
	if known, ok := errors.AsType[x509.HostnameError](err); ok {
		return known
	}
	if known, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return known
	}
	for _, known := range []error{
		context.DeadlineExceeded, errForbiddenOrigin, errPlainProxy, io.EOF, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return fmt.Errorf("an error of type %T", err)
}
