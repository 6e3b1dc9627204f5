package registrytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// emptyConfig is the media type of a config that says nothing.
const emptyConfig = "application/vnd.oci.empty.v1+json"

// A Referrer is a manifest of one layer that refers to another manifest.
type Referrer struct {
	ArtifactType string
	MediaType    string // of the layer
	Content      []byte // the layer
	Annotations  map[string]string
	ConfigType   string // the media type of the config; "" is that of an empty one

	// Manifest is stored instead of one that would be made; what it names must be there if clients are to find it.
	Manifest []byte
}

// ReferrersTag is the tag under which clients keep the list of what refers to a digest, where the registry has no
// referrers API.
func ReferrersTag(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// AttachReferrer stores a manifest that refers to a digest, and gives its own digest. Without Config.Referrers it adds
// it to the list under ReferrersTag, as clients have to. The digest need not be there.
func (r *Registry) AttachReferrer(
	ctx context.Context, repository, digest string, referrer Referrer,
) (manifestDigest string, err error) {
	body := referrer.Manifest
	if body == nil {
		if body, err = r.referrerManifest(ctx, target{repository, digest}, referrer); err != nil {
			return "", err
		}
	}
	manifest := Manifest{string(types.OCIManifestSchema1), body}
	if manifestDigest, err = r.PushManifest(ctx, repository, "", manifest); err != nil || r.referrers {
		return manifestDigest, err
	}
	return manifestDigest, r.list(ctx, target{repository, digest}, manifest)
}

func (r *Registry) referrerManifest(ctx context.Context, to target, referrer Referrer) ([]byte, error) {
	subject, err := r.subject(ctx, to)
	if err != nil {
		return nil, err
	}
	configType := types.MediaType(emptyConfig)
	if referrer.ConfigType != "" {
		configType = types.MediaType(referrer.ConfigType)
	}
	manifest := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: referrer.ArtifactType,
		Subject: subject, Annotations: referrer.Annotations,
	}
	if manifest.Config, err = r.pushDescribed(ctx, to.repository, configType, []byte("{}")); err != nil {
		return nil, err
	}
	manifest.Config.ArtifactType = referrer.ArtifactType // no specification asks for it, but cosign writes it
	layer, err := r.pushDescribed(ctx, to.repository, types.MediaType(referrer.MediaType), referrer.Content)
	if err != nil {
		return nil, err
	}
	manifest.Layers = []v1.Descriptor{layer}
	body, err := json.Marshal(manifest)
	if err != nil {
		return nil, fmt.Errorf("registrytest: referrer of %s: %w", to.digest, err)
	}
	return body, nil
}

// subject describes a manifest; of one that is not there only the digest is known.
func (r *Registry) subject(ctx context.Context, to target) (*v1.Descriptor, error) {
	hash, err := v1.NewHash(to.digest)
	if err != nil {
		return nil, fmt.Errorf("registrytest: refer to %s: %w", to.digest, err)
	}
	descriptor := &v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: hash}
	if manifest, err := r.Manifest(ctx, to.repository, to.digest); err == nil {
		descriptor.MediaType, descriptor.Size = types.MediaType(manifest.MediaType), int64(len(manifest.Body))
	}
	return descriptor, ctx.Err()
}

// list adds a manifest to the list of what refers to a digest.
func (r *Registry) list(ctx context.Context, to target, manifest Manifest) error {
	r.signing.Lock()
	defer r.signing.Unlock()
	index := v1.IndexManifest{}
	if stored, err := r.Manifest(ctx, to.repository, ReferrersTag(to.digest)); err == nil {
		_ = json.Unmarshal(stored.Body, &index) // whatever a test put there is replaced
	}
	index.SchemaVersion, index.MediaType = 2, types.OCIImageIndex
	described, err := describeReferrer(manifest)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(index.Manifests, func(d v1.Descriptor) bool { return d.Digest == described.Digest }) {
		index.Manifests = append(index.Manifests, described)
	}
	body, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("registrytest: list the referrers of %s: %w", to.digest, err)
	}
	_, err = r.PushManifest(ctx, to.repository, ReferrersTag(to.digest), Manifest{string(types.OCIImageIndex), body})
	return err
}

// A referring manifest as far as a list repeats it; whatever else it is does not matter.
type referring struct {
	ArtifactType string            `json:"artifactType"`
	Config       v1.Descriptor     `json:"config"`
	Annotations  map[string]string `json:"annotations"`
	Subject      *v1.Descriptor    `json:"subject"`
}

// describeReferrer says of a manifest what OCI distribution-spec 1.1 wants in the list.
func describeReferrer(manifest Manifest) (v1.Descriptor, error) {
	var m referring
	_ = json.Unmarshal(manifest.Body, &m) // a broken one has neither type nor annotations
	descriptor, err := describe(types.MediaType(manifest.MediaType), manifest.Body)
	if descriptor.ArtifactType = m.ArtifactType; m.ArtifactType == "" {
		descriptor.ArtifactType = string(m.Config.MediaType)
	}
	descriptor.Annotations = m.Annotations
	return descriptor, err
}

// A referrersAPI answers what refers to a digest, in the order in which that was pushed, and passes all else on to
// next. The library's own API has no order, and takes the type of the config for that of the artifact.
type referrersAPI struct {
	next http.Handler

	mu     sync.Mutex
	pushed []target
}

func (a *referrersAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	repository, digest, asked := cutLast(strings.TrimPrefix(r.URL.Path, "/v2/"), "/referrers/")
	switch {
	case asked && r.Method == http.MethodGet:
		a.serve(w, r, target{repository, digest})
	case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/"):
		a.push(w, r)
	default:
		a.next.ServeHTTP(w, r)
	}
}

// push notes a manifest that refers to something, and tells the client that it will be listed. One that was not
// accepted is not there when the list is made.
func (a *referrersAPI) push(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "cannot read the manifest", http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var manifest referring
	if err := json.Unmarshal(body, &manifest); err != nil || manifest.Subject == nil {
		a.next.ServeHTTP(w, r)
		return
	}
	repository, _, _ := cutLast(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	pushed := target{repository, digestOf(body)}
	w.Header().Set("OCI-Subject", manifest.Subject.Digest.String())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next.ServeHTTP(w, r)
	if !slices.Contains(a.pushed, pushed) {
		a.pushed = append(a.pushed, pushed)
	}
}

func (a *referrersAPI) serve(w http.ResponseWriter, r *http.Request, of target) {
	if _, err := v1.NewHash(of.digest); err != nil {
		http.Error(w, `{"errors":[{"code":"UNSUPPORTED"}]}`, http.StatusBadRequest)
		return
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	wanted := r.URL.Query().Get("artifactType")
	for _, manifest := range a.referrers(r.Context(), of) {
		descriptor, err := describeReferrer(manifest)
		if err == nil && (wanted == "" || wanted == descriptor.ArtifactType) {
			index.Manifests = append(index.Manifests, descriptor)
		}
	}
	if wanted != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	w.Header().Set("Content-Type", string(types.OCIImageIndex))
	_ = json.NewEncoder(w).Encode(index)
}

// referrers reads what was pushed, so that what was deleted since is not listed.
func (a *referrersAPI) referrers(ctx context.Context, of target) (found []Manifest) {
	a.mu.Lock()
	pushed := slices.Clone(a.pushed)
	a.mu.Unlock()
	for _, p := range pushed {
		if p.repository != of.repository {
			continue
		}
		path := "/v2/" + p.repository + "/manifests/" + p.digest
		stored, err := ask(ctx, a.next, call{method: http.MethodGet, path: path})
		if err != nil || stored.status != http.StatusOK {
			continue
		}
		manifest := Manifest{stored.header.Get("Content-Type"), stored.body.Bytes()}
		var m referring
		if json.Unmarshal(manifest.Body, &m) == nil && m.Subject != nil && m.Subject.Digest.String() == of.digest {
			found = append(found, manifest)
		}
	}
	return found
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
