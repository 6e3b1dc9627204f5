package registrytest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
)

// PushManifest stores a manifest under its digest and, unless it is "", under a tag. The body may be anything; only an
// index has to name manifests that are there.
func (r *Registry) PushManifest(ctx context.Context, repository, tag string, manifest Manifest) (digest string, err error) {
	digest = digestOf(manifest.Body)
	reference := tag
	if reference == "" {
		reference = digest
	}
	path := "/v2/" + repository + "/manifests/" + reference
	answer, err := r.call(ctx, call{http.MethodPut, path, manifest.MediaType, manifest.Body})
	if err != nil {
		return "", err
	}
	return digest, answer.want(http.StatusCreated)
}

// A Manifest is a manifest to push, or one that was pushed.
type Manifest struct {
	MediaType string
	Body      []byte
}

// Manifest gives what a tag or a digest names.
func (r *Registry) Manifest(ctx context.Context, repository, reference string) (Manifest, error) {
	answer, err := r.call(ctx, call{method: http.MethodGet, path: "/v2/" + repository + "/manifests/" + reference})
	if err == nil {
		err = answer.want(http.StatusOK)
	}
	if err != nil {
		return Manifest{}, err
	}
	return Manifest{MediaType: answer.header.Get("Content-Type"), Body: answer.body.Bytes()}, nil
}

// PushBlob stores a blob under its digest.
func (r *Registry) PushBlob(ctx context.Context, repository string, blob []byte) (digest string, err error) {
	digest = digestOf(blob)
	path := "/v2/" + repository + "/blobs/uploads/?digest=" + url.QueryEscape(digest)
	answer, err := r.call(ctx, call{http.MethodPost, path, "application/octet-stream", blob})
	if err != nil {
		return "", err
	}
	return digest, answer.want(http.StatusCreated)
}

// Tag has a tag name a digest that is there already; it moves the tag when it exists.
func (r *Registry) Tag(ctx context.Context, repository, tag, digest string) error {
	manifest, err := r.Manifest(ctx, repository, digest)
	if err != nil {
		return err
	}
	_, err = r.PushManifest(ctx, repository, tag, manifest)
	return err
}

// Delete removes a tag, or a manifest by digest. What a tag named stays under its digest.
func (r *Registry) Delete(ctx context.Context, repository, reference string) error {
	answer, err := r.call(ctx, call{method: http.MethodDelete, path: "/v2/" + repository + "/manifests/" + reference})
	if err != nil {
		return err
	}
	return answer.want(http.StatusAccepted)
}

// DeleteBlob removes a blob.
func (r *Registry) DeleteBlob(ctx context.Context, repository, digest string) error {
	answer, err := r.call(ctx, call{method: http.MethodDelete, path: "/v2/" + repository + "/blobs/" + digest})
	if err != nil {
		return err
	}
	return answer.want(http.StatusAccepted)
}

// A call is a request to the registry's handler, without a connection.
type call struct {
	method, path, contentType string
	body                      []byte
}

func (r *Registry) call(ctx context.Context, c call) (*answer, error) { return ask(ctx, r.backend, c) }

func ask(ctx context.Context, handler http.Handler, c call) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, c.method, "http://localhost"+c.path, bytes.NewReader(c.body))
	if err != nil {
		return nil, fmt.Errorf("registrytest: %s %s: %w", c.method, c.path, err)
	}
	// As a server sees it: the handler builds names out of URL.Host, which is empty there.
	req.URL.Host, req.URL.Scheme = "", ""
	if c.contentType != "" {
		req.Header.Set("Content-Type", c.contentType)
	}
	a := &answer{call: c, header: http.Header{}}
	handler.ServeHTTP(a, req)
	return a, ctx.Err()
}

// An answer is an http.ResponseWriter that keeps what is written.
type answer struct {
	call   call
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

func (a *answer) want(status int) error {
	if a.status == status {
		return nil
	}
	return fmt.Errorf("registrytest: %s %s: %d %s", a.call.method, a.call.path, a.status, bytes.TrimSpace(a.body.Bytes()))
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
