package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/hallmark-admission/hallmark/webhook"
)

const (
	maxReferrerPages = 5
	maxReferrers     = 10_000 // entries of one page; an image has a few
	referrerList     = "list of referrers"

	// absenceLife is how long a repository is taken to have no referrers API. Registries learn it with an update.
	absenceLife = 10 * time.Minute
	maxAbsences = 1000 // repositories of one registry for which that is remembered
)

// withoutReferrers are the answers of registries that do not know the referrers API. The distribution specification has
// 404 for it; older ones take the path for a mistake, and proxies in front for something that is not to be passed on.
func withoutReferrers() []int {
	return []int{
		http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable,
		http.StatusNotImplemented,
	}
}

// Referrers lists what refers to ref.Digest in its repository, which signatures in bundles do: an OCI index, whose
// entries are as they were sent. Without a referrers API it is the one at the tag sha256-<hex>, where those who push
// keep the list then (OCI distribution specification, "Referrers Tag Schema"). It refuses more than maxBytes for all
// pages together (0: Limits.ManifestBytes), and lists that do not end. Nothing proves a list, and nothing has to: every
// entry is read by its digest. The digest of the result is that of its body.
//
// Errors are *webhook.ReadError or those of ctx; NotFound says that there is neither an API nor a tag. An empty list is
// no error.
func (c *Client) Referrers(ctx context.Context, ref webhook.Reference, maxBytes int64) (webhook.Manifest, error) {
	h, err := c.host(ref)
	if err != nil {
		return webhook.Manifest{}, err
	}
	if ref.Digest == "" {
		return webhook.Manifest{}, h.invalid("was to be asked for the referrers of an image without a digest", nil)
	}
	if maxBytes <= 0 {
		maxBytes = c.limits.ManifestBytes
	}
	status := 0
	if until, known := h.absences.Get(ref.Repository); !known || !c.now().Before(until) {
		var body []byte
		body, status, err = c.listReferrers(ctx, h, ref, maxBytes)
		if err != nil {
			return webhook.Manifest{}, err
		}
		if body != nil {
			return webhook.Manifest{Digest: webhook.DigestOf(body), MediaType: ociIndex, Body: body}, nil
		}
	}
	tagged, err := c.taggedReferrers(ctx, h, ref, maxBytes)
	// One 404 alone says little: registries also give it for a repository or an image that they do not have yet. And
	// behind one name repositories can be of different makes, so what one of them has not says nothing of the others.
	if err == nil && status == http.StatusNotFound {
		h.absences.Add(ref.Repository, c.now().Add(absenceLife))
	}
	return tagged, err
}

// listReferrers asks the referrers API. It asks for no artifact type, since registries disagree on what that is.
// Without an API there is no body, and the status that said so.
func (c *Client) listReferrers(
	ctx context.Context, h *host, ref webhook.Reference, maxBytes int64,
) (body []byte, status int, err error) {
	q := query{
		operation: "referrers", what: referrerList, repository: ref.Repository, reference: ref.Digest, accept: ociIndex,
		maxBytes: maxBytes, answers: withoutReferrers(),
	}
	var entries []jsontext.Value
	var seen []string // queries of the pages
	for {
		got, err := c.get(ctx, h, q)
		switch {
		case errors.Is(err, errTooLarge):
			return nil, 0, h.tooLarge(referrerList, maxBytes)
		case err != nil:
			return nil, 0, err
		case got.status == http.StatusOK && plainMediaType(got.header.Get("Content-Type")) == ociIndex:
		case seen == nil:
			return nil, got.status, nil
		default: // what is there of the list must not pass for all of it
			return nil, 0, h.invalid("broke off the list of referrers of "+webhook.ShortDigest(ref.Digest), nil)
		}
		page, err := parseReferrers(got.body, ociIndex)
		if err != nil {
			return nil, 0, h.refuse(err)
		}
		entries, seen = append(entries, page...), append(seen, q.page)
		next, more, err := h.nextPage(q, got.header)
		switch {
		case err != nil:
			return nil, 0, err
		case !more && len(seen) == 1:
			return got.body, got.status, nil
		case !more:
			body = joinReferrers(entries)
			if int64(len(body)) > maxBytes {
				return nil, 0, h.tooLarge(referrerList, maxBytes)
			}
			return body, got.status, nil
		case len(seen) == maxReferrerPages, slices.Contains(seen, next):
			return nil, 0, h.invalid("sent an endless list of referrers", nil)
		}
		q.page, q.maxBytes = next, q.maxBytes-int64(len(got.body))
	}
}

// taggedReferrers reads the list that is kept at a tag.
func (c *Client) taggedReferrers(
	ctx context.Context, h *host, ref webhook.Reference, maxBytes int64,
) (webhook.Manifest, error) {
	q := query{
		operation: "manifest", what: referrerList, repository: ref.Repository,
		reference: strings.Replace(ref.Digest, ":", "-", 1), missing: "referrers of " + webhook.ShortDigest(ref.Digest),
		accept: acceptManifests, maxBytes: maxBytes,
	}
	got, digest, err := c.getManifest(ctx, h, q)
	if err == nil && digest == ref.Digest {
		// "cosign copy" gives the image itself this tag; it is no list of what refers to it.
		err = h.statusError(q, http.StatusNotFound)
	}
	if err != nil {
		return webhook.Manifest{}, err
	}
	if _, err := parseReferrers(got.body, got.header.Get("Content-Type")); err != nil {
		return webhook.Manifest{}, h.refuse(err)
	}
	return webhook.Manifest{Digest: digest, MediaType: ociIndex, Body: got.body}, nil
}

// parseReferrers gives the entries of an index as they stand in it. Other than the index of an image it may be empty,
// and hold whatever has a digest.
func parseReferrers(body []byte, contentType string) ([]jsontext.Value, error) {
	top, doc, err := parseTop(body, contentType)
	if err != nil {
		return nil, err
	}
	if doc.mediaType != ociIndex {
		return nil, invalidf("sent a %s of the type %s", referrerList, show(doc.mediaType))
	}
	var entries []jsontext.Value
	err = eachElement(top["manifests"], maxReferrers, func(value jsontext.Value) error {
		entries = append(entries, value)
		return checkReferrer(value)
	})
	switch {
	case errors.Is(err, errTooMany):
		return nil, invalidf("sent a %s with more than %d entries", referrerList, maxReferrers)
	case err != nil:
		return nil, invalidf("sent a %s with an entry that %v", referrerList, err)
	}
	return entries, nil
}

// checkReferrer refuses an entry that can be read in two ways. What it names is for those to judge who look for
// something.
func checkReferrer(value jsontext.Value) error {
	object, err := members(value, "mediaType", "artifactType", "digest", "size", "annotations")
	if err != nil {
		return err
	}
	for _, name := range []string{"mediaType", "artifactType", "digest"} {
		if _, err := text(object[name]); err != nil {
			return err
		}
	}
	return nil
}

// joinReferrers makes one index of the entries of several.
func joinReferrers(entries []jsontext.Value) []byte {
	size := 100
	for _, entry := range entries {
		size += len(entry) + 1
	}
	body := make([]byte, 0, size)
	body = fmt.Appendf(body, `{"schemaVersion":2,"mediaType":%q,"manifests":[`, ociIndex)
	for i, entry := range entries {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, entry...)
	}
	return append(body, "]}"...)
}

// nextPage gives the query of the page that an answer says comes next. Host and path stay those that were asked for.
func (h *host) nextPage(q query, header http.Header) (query string, more bool, err error) {
	link, found, err := nextLink(header)
	if err != nil || !found {
		return "", false, h.refuseLink(err)
	}
	asked := &url.URL{Scheme: h.scheme, Host: h.address, Path: q.path()}
	next, err := asked.Parse(link)
	switch {
	case err != nil || next.User != nil || next.Opaque != "":
		return "", false, h.refuseLink(errLink)
	case originOf(next) != originOf(asked):
		return "", false, h.readError(webhook.NotAllowed, fmt.Sprintf("continues its %s at another host, %s", q.what,
			webhook.Quote(cutHost(next))), nil)
	case next.Path != asked.Path:
		return "", false, h.invalid("continues its "+q.what+" at another path", nil)
	}
	return next.RawQuery, true, nil
}

// refuseLink words an error of nextLink; nil stays nil.
func (h *host) refuseLink(err error) error {
	if err == nil {
		return nil
	}
	return h.invalid("sent a Link header that cannot be read", err)
}

func newAbsences() *lru.Cache[string, time.Time] {
	absences, err := lru.New[string, time.Time](maxAbsences)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return absences
}
