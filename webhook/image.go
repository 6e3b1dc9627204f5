package webhook

import (
	"strings"
	"time"
)

// Role says what an image is used for.
type Role string

// The roles of an image. A builder is an image that starts or builds another one inside its container (envbox,
// envbuilder); the images that it is told to use have the role workspace.
const (
	RoleWorkspace Role = "workspace"
	RoleInit      Role = "init"
	RoleSidecar   Role = "sidecar"
	RoleEphemeral Role = "ephemeral"
	RoleBuilder   Role = "builder"
	RoleVolume    Role = "volume"
)

// Fact is one thing that may have to be fetched from a registry before a rule can be judged. Several make a set.
type Fact uint8

// The facts that are fetched, each with the name that it has in the input of a policy (Fact.String).
const (
	FactImage        Fact = 1 << iota // digest, platforms, labels, layers
	FactUser                          // the user, where the pod does not say it
	FactTagDigest                     // the digest that the tag names in the registry now
	FactSignatures                    // which trusted signers signed it
	FactAttestations                  // what they attest
	FactDerivedFrom                   // the golden image that it is built on
)

// AllFacts are all facts that can be fetched.
const AllFacts = FactImage | FactUser | FactTagDigest | FactSignatures | FactAttestations | FactDerivedFrom

// factNames in the order of the bits.
var factNames = [...]string{"image", "user", "tagDigest", "signatures", "attestations", "derivedFrom"}

// String is the name of a fact in the input of a policy; a set is joined by "+".
func (f Fact) String() string {
	var names []string
	for i, name := range factNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "+")
}

// FactByName is the fact with that name in the input of a policy, or 0.
func FactByName(name string) Fact {
	for i, n := range factNames {
		if n == name {
			return 1 << i
		}
	}
	return 0
}

// Unknown is a fact that could not be found out, and why.
type Unknown struct {
	Fact    Fact
	Reason  string // for a developer: "registry.corp.example:5000 did not answer within 3s"
	Retry   bool   // trying again may help
	Missing bool   // the registry says that there is no such image
	Refused bool   // nobody was asked, since the configuration does not allow it
}

// An Image is one place in an object that names an image, with all that was found out about it. It is made by
// selection, filled by catalogue, registry and signatures in this order, and read by rules, message and patch.
type Image struct {
	// From the object.
	Where   string // "initContainers[setup]", "volumes[data]", "containers[dev].env[CODER_INNER_IMAGE]"
	Pointer string // JSON pointer of the string that names it
	Role    Role
	Text    string    // as written; for an argument "--image=REF" only REF
	prefix  string    // what stands before Text in the string at Pointer: "--image="
	Ref     Reference // what will run: Text, or where a rewrite leads; zero when Error is set
	Error   string    // why Text is not a reference, or cannot be seen
	Changed bool      // false only on UPDATE, for what was there before
	before  Reference // on UPDATE, what stood in the same place; zero for nothing
	source  imageSource

	// From the configuration, by the catalogue.
	Entry CatalogueEntry

	// From the registry.
	User       User
	Content    *Content // nil when not fetched
	TagDigest  string   // "" when not fetched
	Signatures *Signatures
	Attested   *Attestations
	Derived    *Derived // nil when not looked for
	Unknown    []Unknown
	Stale      time.Time // when the tag was read, if its registry fails now and the last answer is used; else zero

	denied bool // by an enforced rule that needed nothing fetched
}

// imageSource is what selection knows of the container that an image belongs to.
type imageSource struct {
	security  securityContext // of the container; for an inner image, of nobody
	pod       securityContext
	windows   bool
	inner     bool   // started by a builder inside its container, not by the kubelet
	innerUser string // the user that a builder is told to start it as
}

// Label is how a message names the place: for an image in an env variable or argument with the image itself, since the
// developer did not write it under "image".
func (i *Image) Label() string {
	container, rest, inner := strings.Cut(i.Where, "].")
	if !inner {
		return i.Where
	}
	kind, name, _ := strings.Cut(strings.TrimSuffix(rest, "]"), "[")
	if i.Ref.IsZero() {
		return container + "]: " + kind + " " + name
	}
	return container + "]: " + kind + " " + name + " " + i.Ref.Short()
}

// Digest is the digest that is judged: the one in the reference, else the one that was read. "" when unknown.
func (i *Image) Digest() string {
	if i.Ref.Digest != "" {
		return i.Ref.Digest
	}
	if i.Content != nil {
		return i.Content.Digest
	}
	return ""
}

// unknown gives the first of the facts that could not be found out.
func (i *Image) unknown(facts Fact) (Unknown, bool) {
	for _, u := range i.Unknown {
		if u.Fact&facts != 0 {
			return u, true
		}
	}
	return Unknown{}, false
}

// CatalogueEntry is what the configuration says of an image: pure functions of its reference, of the namespace and of
// the role.
type CatalogueEntry struct {
	Registry   RegistryMatch
	TagClass   string // digest exact dated sha minor major distro branch rolling untagged named
	Version    []int  // major, minor, patch, as far as the tag has them
	Path       map[string]string
	Tags       *TagRule // the rule that the tag must follow
	Golden     *Golden  // nil when the repository is not in the catalogue
	Bases      []Base   // golden images that others may be built on; none when the image is golden itself
	Signed     []SignatureRule
	Attested   []AttestationRule
	Exemptions []Exemption // the narrowest first
	Lapsed     []Exemption // those that have ended
}

// RegistryMatch says whether a configured registry covers an image.
type RegistryMatch struct {
	Host       bool // the host is configured
	Repository bool // and so is the repository on it
}

// TagRule is what is allowed for a tag.
type TagRule struct {
	Allow   []string // classes
	Pattern string   // regular expression, without the anchors; "" for none
	Class   bool     // the tag's class is allowed
	Match   bool     // the tag matches the pattern, or there is none
	Digest  bool     // a bare digest is allowed
}

// Golden is an approved image.
type Golden struct {
	Name, Repository, Title, Owner string
	Scope                          string // what it is for; "" is everything
	Status                         string // active deprecated decommissioned
	Successor                      string
	DenyDeprecated                 bool // a deprecated one is denied, and not warned of
	DefaultTag                     string
	Follow                         string   // follow, sticky or locked; "" is follow
	Digests                        []string // locked: the only ones
	UID                            *int64
	Role                           bool     // the role is one that the entry allows
	Roles                          []string // restriction; empty for none
}

// A Rewriter knows where the mutating half leads images of a public registry: to a mirror. It gives ref itself when
// nowhere else.
type Rewriter interface {
	Rewrite(ref Reference) Reference
}

// RewriterFunc is a function as a Rewriter.
type RewriterFunc func(ref Reference) Reference

// Rewrite calls f.
func (f RewriterFunc) Rewrite(ref Reference) Reference { return f(ref) }

// A Cataloguer says what the configuration knows of an image. It fills Entry; it reads nothing but memory.
type Cataloguer interface {
	Catalogue(request *Request, image *Image)
}

// CataloguerFunc is a function as a Cataloguer.
type CataloguerFunc func(request *Request, image *Image)

// Catalogue calls f.
func (f CataloguerFunc) Catalogue(request *Request, image *Image) { f(request, image) }

// Privileged says whether the container that the image belongs to is privileged.
func (i *Image) Privileged() bool { return i.source.security.privileged }

// Describe is the canonical reference with the digest that was judged, for log and audit record; an image that is no
// reference is quoted, unless it is an env value that cannot be an image.
func (i *Image) Describe() string {
	if i.Ref.IsZero() {
		return cut(Quote(i.Text), maxLine)
	}
	return i.Ref.WithDigest(i.Digest()).String()
}
