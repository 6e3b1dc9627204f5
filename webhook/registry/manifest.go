package registry

import (
	"errors"
	"fmt"
	"mime"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hallmark-admission/hallmark/webhook"
)

// The manifests that are read, and the configs that make an image runnable. Docker's schema 1 is not: its digest does
// not cover the bytes that are served.
const (
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	ociConfig      = "application/vnd.oci.image.config.v1+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"

	acceptManifests = ociIndex + ", " + ociManifest + ", " + dockerList + ", " + dockerManifest
)

// maxLayers is far above the 127 that Docker allows.
const maxLayers = 10_000

// An invalidError says what is wrong with content. It continues the name of the registry: "sent …".
type invalidError struct{ reason string }

func (e *invalidError) Error() string { return e.reason }

func invalidf(format string, args ...any) error { return &invalidError{fmt.Sprintf(format, args...)} }

// A document is what a manifest or an index says, as far as it is needed.
type document struct {
	mediaType  string
	index      bool
	children   []descriptor // of an index
	config     descriptor   // of a manifest
	base       string       // digest of the image that a manifest says it is built on
	layerTypes []string     // of a manifest
}

// A descriptor names content by digest.
type descriptor struct {
	mediaType string
	digest    string
	size      int64
	platform  platform
}

// parseManifest reads a manifest or an index. The bytes are whatever a registry sent.
func parseManifest(body []byte, contentType string, maxChildren int) (*document, error) {
	top, doc, err := parseTop(body, contentType)
	switch {
	case err != nil:
		return nil, err
	case doc.index:
		return doc, doc.readIndex(top, maxChildren)
	}
	return doc, doc.readManifest(top)
}

// parseTop reads which kind of document it is, and gives its members.
func parseTop(body []byte, contentType string) (map[string]jsontext.Value, *document, error) {
	top, err := members(body, "schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers", "signatures", "annotations")
	if errors.Is(err, errAmbiguous) {
		return nil, nil, invalidf("sent an ambiguous manifest (it %v)", err)
	}
	served := plainMediaType(contentType)
	if served != "" && !isManifestType(served) {
		return nil, nil, invalidf("sent an unsupported manifest type %s", show(served))
	}
	if err != nil {
		return nil, nil, invalidf("sent a manifest that %v", err)
	}
	if version, err := integer(top["schemaVersion"]); err != nil || version != 2 && has(top, "schemaVersion") {
		return nil, nil, invalidf("sent an unsupported manifest type (schema version %s)", show(string(top["schemaVersion"])))
	}
	doc, err := documentType(top, served)
	return top, doc, err
}

// documentType settles what a document is: the type that it was served with and the one inside must agree with each
// other and with the members that it has. A document that one reader takes for an index and another for an image
// would be judged as one and run as the other (CVE-2021-41190).
func documentType(top map[string]jsontext.Value, served string) (*document, error) {
	inside, err := text(top["mediaType"])
	if err != nil {
		return nil, invalidf("sent a manifest whose mediaType is not a string")
	}
	doc := &document{mediaType: inside}
	switch {
	case inside == "":
		doc.mediaType = served
	case !isManifestType(inside):
		return nil, invalidf("sent an unsupported manifest type %s", show(inside))
	case served != "" && served != inside:
		return nil, invalidf("sent an ambiguous manifest (it was served as another type than it says)")
	}
	doc.index = doc.mediaType == ociIndex || doc.mediaType == dockerList
	asIndex := has(top, "manifests")
	asImage := has(top, "config") || has(top, "layers")
	asSchema1 := has(top, "fsLayers") || has(top, "signatures")
	switch {
	case doc.mediaType == "":
		return nil, invalidf("sent an unsupported manifest type (none is given)")
	case asSchema1 || asIndex && asImage:
		return nil, invalidf("sent an ambiguous manifest (it has members of several kinds of manifest)")
	case doc.index && !asIndex, !doc.index && !asImage:
		return nil, invalidf("sent a manifest without the members of its type")
	}
	return doc, nil
}

func (doc *document) readIndex(top map[string]jsontext.Value, maxChildren int) error {
	runnable := false
	err := eachElement(top["manifests"], maxChildren, func(value jsontext.Value) error {
		child, err := readDescriptor(value)
		if err != nil {
			return err
		}
		if child.mediaType == ociIndex || child.mediaType == dockerList {
			return invalidf("sent an index inside an index")
		}
		runnable = runnable || !child.platform.isUnknown()
		doc.children = append(doc.children, child)
		return nil
	})
	var invalid *invalidError
	switch {
	case errors.Is(err, errTooMany):
		return invalidf("sent an index with more than %d entries", maxChildren)
	case errors.As(err, &invalid):
		return invalid
	case err != nil:
		return invalidf("sent an index with an entry that %v", err)
	case !runnable:
		return invalidf("sent an index without any platform")
	}
	return nil
}

func (doc *document) readManifest(top map[string]jsontext.Value) error {
	var err error
	if doc.config, err = readDescriptor(top["config"]); err != nil {
		return invalidf("sent a manifest whose config %v", err)
	}
	err = eachElement(top["layers"], maxLayers, func(value jsontext.Value) error {
		layer, err := members(value, "mediaType")
		if err != nil {
			return err
		}
		layerType, err := text(layer["mediaType"])
		doc.layerTypes = append(doc.layerTypes, layerType)
		return err
	})
	if err != nil {
		return invalidf("sent a manifest with a layer that %v", err)
	}
	// Of the annotations this one alone is of use, so broken ones are none.
	if annotations, err := textMap(top["annotations"], maxEntries); err == nil {
		doc.base = baseDigest(annotations)
	}
	return nil
}

// baseDigest reads the digest of the image that another says it is built on (OCI image specification, annotations).
func baseDigest(of map[string]string) string {
	if digest := of["org.opencontainers.image.base.digest"]; isDigest(digest) {
		return digest
	}
	return ""
}

func readDescriptor(value jsontext.Value) (descriptor, error) {
	object, err := members(value, "mediaType", "digest", "size", "platform")
	if err != nil {
		return descriptor{}, err
	}
	var d descriptor
	d.mediaType, err = text(object["mediaType"])
	if err != nil {
		return descriptor{}, err
	}
	if d.digest, err = text(object["digest"]); err != nil {
		return descriptor{}, err
	}
	if !isDigest(d.digest) {
		return descriptor{}, errors.New("has no sha256 digest")
	}
	if d.size, err = integer(object["size"]); err != nil {
		return descriptor{}, err
	}
	d.platform, err = readPlatformOf(object["platform"])
	return d, err
}

// checkRunnable refuses what has the form of an image and is something else: signatures, attestations, charts. cosign
// gives its signatures the config type of an image, so the layers have to be looked at too.
func (doc *document) checkRunnable() error {
	if doc.config.mediaType != ociConfig && doc.config.mediaType != dockerConfig {
		return invalidf("holds something that is not a runnable image (config type %s)", show(doc.config.mediaType))
	}
	for _, layerType := range doc.layerTypes {
		if !strings.HasPrefix(layerType, "application/vnd.oci.image.layer.") &&
			!strings.HasPrefix(layerType, "application/vnd.docker.image.rootfs.") {
			return invalidf("holds something that is not a runnable image (layer type %s)", show(layerType))
		}
	}
	return nil
}

func isManifestType(mediaType string) bool {
	switch mediaType {
	case ociManifest, ociIndex, dockerManifest, dockerList:
		return true
	}
	return false
}

// plainMediaType takes the parameters off a Content-Type.
func plainMediaType(contentType string) string {
	if contentType == "" {
		return ""
	}
	plain, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return contentType
	}
	return plain
}

// show puts a name that a registry sent into a message: as it is when it looks like a media type, else quoted, and cut.
func show(name string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+/_-"
	if name != "" && len(name) <= 100 && strings.Trim(name, letters) == "" {
		return name
	}
	return webhook.Quote(name[:min(len(name), 60)])
}
