package config

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/hallmark-admission/hallmark/webhook"
)

// APIVersion and Kind stand at the head of the file.
const (
	APIVersion = "hallmark.dev/v1alpha1"
	Kind       = "Configuration"
)

// File is the configuration file. docs/configuration.md describes every key.
type File struct {
	APIVersion   string                  `yaml:"apiVersion"`
	Kind         string                  `yaml:"kind"`
	Mode         webhook.Mode            `yaml:"mode"`
	Rules        map[string]webhook.Mode `yaml:"rules"`
	Namespaces   []Namespace             `yaml:"namespaces"`
	Registries   []Registry              `yaml:"registries"`
	Rewrites     []Rewrite               `yaml:"rewrites"`
	Tags         Tags                    `yaml:"tags"`
	Signers      map[string]Signer       `yaml:"signers"`
	Signatures   []Signed                `yaml:"signatures"`
	TUF          TUF                     `yaml:"tuf"`
	Attestations []Attested              `yaml:"attestations"`
	GoldenImages []Golden                `yaml:"goldenImages"`
	Workspaces   Workspaces              `yaml:"workspaces"`
	Pin          Pin                     `yaml:"pin"`
	User         User                    `yaml:"user"`
	Exemptions   []Exemption             `yaml:"exemptions"`
	BreakGlass   BreakGlass              `yaml:"breakGlass"`
	Policies     Policies                `yaml:"policies"`
	PullSecrets  PullSecrets             `yaml:"pullSecrets"`
	Message      Message                 `yaml:"message"`
	DecisionLog  DecisionLog             `yaml:"decisionLog"`
	Cache        Cache                   `yaml:"cache"`
	Limits       Limits                  `yaml:"limits"`
}

// Namespace gives the mode of the namespaces that it matches; the first match wins.
type Namespace struct {
	Match []string     `yaml:"match"` // names, * stands for any run of characters
	Mode  webhook.Mode `yaml:"mode"`
}

// Registry is a host that may be contacted.
type Registry struct {
	Host         string   `yaml:"host"`
	Repositories []string `yaml:"repositories"` // patterns; none is all
	CA           string   `yaml:"ca"`           // file with PEM certificates; the system's when empty
	Credentials  string   `yaml:"credentials"`  // file: a Docker config
	PlainHTTP    bool     `yaml:"plainHTTP"`
	TokenHosts   []string `yaml:"tokenHosts"` // other hosts that may issue tokens
	BlobHosts    []string `yaml:"blobHosts"`  // other hosts that blobs may be redirected to
}

// Rewrite replaces the beginning of an image name.
type Rewrite struct {
	From string `yaml:"from"`
	To   string `yaml:"to"`
}

// Tags says which tags are allowed.
type Tags struct {
	Allow        []string         `yaml:"allow"`
	Repositories []RepositoryTags `yaml:"repositories"`
	Classes      []TagClass       `yaml:"classes"`
	Path         string           `yaml:"path"`
}

// TagClass gives tags of the images that it matches a class of one's own; the first match wins.
type TagClass struct {
	Match   []string `yaml:"match"`
	Pattern string   `yaml:"pattern"` // of the whole tag; all when empty
	Class   string   `yaml:"class"`
}

// RepositoryTags is the rule of the images that it matches; the first match wins.
type RepositoryTags struct {
	Match   []string `yaml:"match"`
	Allow   []string `yaml:"allow"`
	Pattern string   `yaml:"pattern"`
}

// Signer is somebody whose signatures count.
type Signer struct {
	Key         string   `yaml:"key"`     // PEM of a public key
	KeyFile     string   `yaml:"keyFile"` // file with the same
	KMS         string   `yaml:"kms"`
	Keyless     *Keyless `yaml:"keyless"`
	TrustedRoot string   `yaml:"trustedRoot"` // file in sigstore's format, or "tuf"

	NotBefore Moment `yaml:"notBefore"` // when signatures by a key begin and cease to count
	NotAfter  Moment `yaml:"notAfter"`

	TransparencyLog string `yaml:"transparencyLog"` // required, optional or ignored
	Timestamp       string `yaml:"timestamp"`
	SCT             string `yaml:"sct"`
}

// TUF is where signers with trustedRoot: tuf have their root from.
type TUF struct {
	URL  string `yaml:"url"`
	Root string `yaml:"root"` // file: the first root.json
}

// Keyless is an identity in a certificate.
type Keyless struct {
	Issuer         string `yaml:"issuer"`
	Subject        string `yaml:"subject"`
	SubjectPattern string `yaml:"subjectPattern"`
}

// Signed says who must have signed the images that it matches.
type Signed struct {
	Match     []string `yaml:"match"`
	AnyOf     []string `yaml:"anyOf"`
	Threshold int      `yaml:"threshold"`

	Repository webhook.RepositoryClaim `yaml:"repository"`
	Platforms  webhook.PlatformRule    `yaml:"platforms"`
}

// Attested says what must be attested of the images that it matches.
type Attested struct {
	Match         []string `yaml:"match"`
	PredicateType string   `yaml:"predicateType"`
	AnyOf         []string `yaml:"anyOf"`
}

// Golden is an approved image.
type Golden struct {
	Name           string   `yaml:"name"`
	Repository     string   `yaml:"repository"`
	Title          string   `yaml:"title"`
	Owner          string   `yaml:"owner"`
	Scope          string   `yaml:"scope"`
	UID            *int64   `yaml:"uid"`
	Status         string   `yaml:"status"`
	Successor      string   `yaml:"successor"`
	Deprecated     string   `yaml:"deprecated"` // warn or deny
	DefaultTag     string   `yaml:"defaultTag"`
	Follow         string   `yaml:"follow"`
	Digests        []string `yaml:"digests"`
	Signers        []string `yaml:"signers"`
	AllowDerived   bool     `yaml:"allowDerived"`
	DerivedSigners []string `yaml:"derivedSigners"`
	Roles          []string `yaml:"roles"`
}

// Workspaces says how images hide in env variables.
type Workspaces struct {
	ImageEnv        []string `yaml:"imageEnv"`
	UnresolvableEnv string   `yaml:"unresolvableEnv"` // deny or allow
}

// Pin says what the mutating half does.
type Pin struct {
	Pods webhook.PinMode `yaml:"pods"`
}

// User says how the mutating half helps with rule user.
type User struct {
	SetFromCatalogue bool `yaml:"setFromCatalogue"`
}

// Exemption takes rules away.
type Exemption struct {
	Name       string   `yaml:"name"`
	Namespaces []string `yaml:"namespaces"`
	Images     []string `yaml:"images"`
	Rules      []string `yaml:"rules"`
	Reason     string   `yaml:"reason"`
	Owner      string   `yaml:"owner"`
	Expires    string   `yaml:"expires"` // the last day, 2027-03-31
}

// BreakGlass names the groups whose members may have everything admitted in an emergency.
type BreakGlass struct {
	Groups []string `yaml:"groups"`
}

// PullSecrets says whether images are read with the credentials of their pods.
type PullSecrets struct {
	Enabled  bool     `yaml:"enabled"`
	CacheTTL Duration `yaml:"cacheTTL"` // how long what the Kubernetes API answered is used again
}

// Policies says where rules are read from, besides those that are shipped and those in directories.
type Policies struct {
	Bundles []Bundle `yaml:"bundles"`
}

// Bundle is an OPA bundle that is read behind requests.
type Bundle struct {
	URL          string              `yaml:"url"`
	OCI          string              `yaml:"oci"`         // reference on a configured registry
	CA           string              `yaml:"ca"`          // of url: file with PEM certificates; the system's when empty
	Credentials  string              `yaml:"credentials"` // of url: file with a bearer token
	Every        Duration            `yaml:"every"`
	Verification *BundleVerification `yaml:"verification"`
	Unsigned     bool                `yaml:"unsigned"` // instead of verification
}

// BundleVerification says who signs a bundle.
type BundleVerification struct {
	KeyFile string `yaml:"keyFile"` // PEM of a public key
	KeyID   string `yaml:"keyID"`   // that a signature has to name; any when empty
	Scope   string `yaml:"scope"`   // that a signature has to have
}

// DecisionLog says where decisions are sent, in the format of OPA.
type DecisionLog struct {
	URL         string            `yaml:"url"`         // "" is nowhere
	CA          string            `yaml:"ca"`          // file with PEM certificates; the system's when empty
	Credentials string            `yaml:"credentials"` // file with a bearer token
	Labels      map[string]string `yaml:"labels"`
	Input       bool              `yaml:"input"` // the objects too, without values of env variables
	Every       Duration          `yaml:"every"`
	MaxBytes    Size              `yaml:"maxBytes"` // of what waits to be sent
}

// Message says what rejections add.
type Message struct {
	HelpURL string `yaml:"helpURL"`
}

// Cache bounds what is remembered.
type Cache struct {
	TagTTL       Duration `yaml:"tagTTL"`
	VerifiedTTL  Duration `yaml:"verifiedTTL"`
	StaleIfError Duration `yaml:"staleIfError"`
	MaxBytes     Size     `yaml:"maxBytes"`
	Dir          string   `yaml:"dir"`
	DirBytes     Size     `yaml:"dirBytes"`
}

// Limits bounds what one admission may cost.
type Limits struct {
	Deadline          Duration `yaml:"deadline"`
	ManifestBytes     Size     `yaml:"manifestBytes"`
	ConfigBytes       Size     `yaml:"configBytes"`
	Signatures        int      `yaml:"signatures"`
	SignatureBytes    Size     `yaml:"signatureBytes"`
	Attestations      int      `yaml:"attestations"`
	AttestationBytes  Size     `yaml:"attestationBytes"`
	IndexChildren     int      `yaml:"indexChildren"`
	RequestsPerSecond int      `yaml:"requestsPerSecond"`
}

// defaults are what a key that is not in the file means.
func defaults() File {
	return File{
		Mode:       webhook.Enforce,
		Workspaces: Workspaces{ImageEnv: []string{"CODER_INNER_IMAGE", "ENVBUILDER_FALLBACK_IMAGE", "FALLBACK_IMAGE"}, UnresolvableEnv: "deny"},
		Pin:        Pin{Pods: webhook.PinRewrite}, PullSecrets: PullSecrets{CacheTTL: Duration(30 * time.Second)},
		DecisionLog: DecisionLog{Every: Duration(5 * time.Second), MaxBytes: 16 << 20},
		Cache: Cache{
			TagTTL: Duration(time.Minute), VerifiedTTL: Duration(24 * time.Hour), StaleIfError: Duration(7 * 24 * time.Hour),
			MaxBytes: 30 << 20, DirBytes: 1 << 30,
		},
		Limits: Limits{
			Deadline: Duration(8 * time.Second), ManifestBytes: 4 << 20, ConfigBytes: 8 << 20, Signatures: 100,
			SignatureBytes: 8 << 20, Attestations: 50, AttestationBytes: 4 << 20, IndexChildren: 50, RequestsPerSecond: 50,
		},
	}
}

// Duration is written as 8s, 24h, 168h.
type Duration time.Duration

// UnmarshalYAML reads a positive duration.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := time.ParseDuration(node.Value)
	if err != nil || parsed <= 0 {
		return mistake(node, "want a duration such as 8s or 24h, not %q", node.Value)
	}
	*d = Duration(parsed)
	return nil
}

// Size is a number of bytes, written as 4Mi or 8388608.
type Size int64

// UnmarshalYAML reads a positive quantity.
func (s *Size) UnmarshalYAML(node *yaml.Node) error {
	quantity, err := resource.ParseQuantity(node.Value)
	if err != nil || quantity.Sign() <= 0 || quantity.Value() <= 0 {
		return mistake(node, "want a size such as 4Mi, not %q", node.Value)
	}
	*s = Size(quantity.Value())
	return nil
}

// Moment is written as 2027-03-31, which is its first moment in UTC, or as 2027-03-31T12:00:00Z.
type Moment struct{ time.Time }

// UnmarshalYAML reads a day or a moment.
func (m *Moment) UnmarshalYAML(node *yaml.Node) error {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if parsed, err := time.Parse(layout, node.Value); err == nil {
			m.Time = parsed.UTC()
			return nil
		}
	}
	return mistake(node, "want a day such as 2027-03-31 or a moment such as 2027-03-31T12:00:00Z, not %q", node.Value)
}

// mistake is an error that lets the decoder go on to find more.
func mistake(node *yaml.Node, format string, args ...any) error {
	text := fmt.Sprintf("line %d: "+format, append([]any{node.Line}, args...)...)
	return &yaml.TypeError{Errors: []string{text}}
}
