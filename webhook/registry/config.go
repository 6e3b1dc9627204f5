package registry

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Config of a Client.
type Config struct {
	Hosts  []Host // the only registries that are ever contacted
	Limits Limits

	// Observe is told of every HTTP request: the host as configured, the operation ("manifest", "blob", "referrers" or
	// "token"), the status (0 when none came) and how long it took, the body included; ctx is that of the request. It is
	// called concurrently; nil tells nobody.
	Observe func(ctx context.Context, registry, operation string, code int, d time.Duration)

	// Budget bounds the memory of all large answers together; several clients may share one. nil is one for this client.
	Budget Budget

	// DialContext replaces the dialer together with its filter of addresses, for tests and the demo; nil is the real one.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Proxy picks the proxy of a request; nil is http.ProxyFromEnvironment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
	Proxy func(*http.Request) (*url.URL, error)
	// Now is the clock by which tokens expire; nil is time.Now.
	Now func() time.Time
	// ReadFile reads the files of the hosts, in New; nil is os.ReadFile.
	ReadFile func(name string) ([]byte, error)
}

// A Budget lets so many answers be read at the same time that are larger than 256 KiB, which few manifests and configs of
// real images are. Each may still become as large as its own limit.
type Budget chan struct{}

// NewBudget makes one for at most that many large answers.
func NewBudget(answers int) Budget { return make(Budget, answers) }

// defaultBudget keeps large answers to 64 MiB with the default limits.
const defaultBudget = 8

// A Host is one registry.
type Host struct {
	Host string // as it stands in references: "registry.corp.example:5000", "docker.io"

	CAFile string // PEM; the registry's certificate must come from one of these authorities. "" with no CAPEM: the system's
	CAPEM  []byte // the same as bytes; at most one of the two

	CredentialsFile string   // a Docker config.json with "auths"; "" is anonymous
	Credentials     []byte   // another, as bytes: what it has for a repository counts before the file
	PlainHTTP       bool     // no TLS, ever; otherwise TLS, always
	TokenHosts      []string // other hosts that may issue tokens and are shown the credentials, over https
	BlobHosts       []string // other hosts to which blobs may be redirected, over https; never shown credentials
}

// Limits bound what is read. Zero fields have the defaults given here.
type Limits struct {
	ManifestBytes int64         // of one manifest or index; 4 MiB
	ConfigBytes   int64         // of one config blob; 8 MiB
	IndexChildren int           // entries of an index, attestations included; 50
	Timeout       time.Duration // of one request, from dialling to the last byte; 3s

	RequestsPerSecond int // to one registry; twice as many at once after a pause. 50
}

func (l Limits) withDefaults() Limits {
	if l.ManifestBytes == 0 {
		l.ManifestBytes = 4 << 20
	}
	if l.ConfigBytes == 0 {
		l.ConfigBytes = 8 << 20
	}
	if l.IndexChildren == 0 {
		l.IndexChildren = 50
	}
	if l.RequestsPerSecond == 0 {
		l.RequestsPerSecond = 50
	}
	if l.Timeout == 0 {
		l.Timeout = 3 * time.Second
	}
	return l
}

func (l Limits) check() error {
	if l.ManifestBytes < 0 || l.ConfigBytes < 0 || l.IndexChildren < 0 || l.Timeout < 0 || l.RequestsPerSecond < 0 {
		return errors.New("limits: a limit is negative; leave it out for its default")
	}
	return nil
}

// Docker Hub answers at another name than the one in references, and does not work without other hosts: they are in
// the list that Docker gives for allow-lists. Blobs are proved by their digest wherever they come from.
const (
	dockerHubAddress   = "registry-1.docker.io"
	dockerHubTokenHost = "auth.docker.io"
)

func dockerHubBlobHosts() []string {
	return []string{
		"production.cloudflare.docker.com",
		"production.cloudfront.docker.com",
		"docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
	}
}

// newHost checks one entry of the configuration and makes everything that contacting it needs. It reports every
// problem of the entry.
func newHost(config Host, n network) (*host, error) {
	h := &host{name: config.Host, address: config.Host, scheme: "https", tokens: newTokens(n.now), absences: newAbsences()}
	var problems []error
	problem := func(err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("registry %s: %w", webhook.Quote(config.Host), err))
		}
	}
	problem(checkHostName(config.Host))
	if config.Host == webhook.DockerHub {
		h.address = dockerHubAddress
		config.TokenHosts = append([]string{dockerHubTokenHost}, config.TokenHosts...)
		config.BlobHosts = append(dockerHubBlobHosts(), config.BlobHosts...)
	}
	if config.PlainHTTP {
		h.scheme = "http"
	}
	for _, other := range slices.Concat(config.TokenHosts, config.BlobHosts) {
		if err := webhook.CheckHost(other); err != nil {
			problem(fmt.Errorf("tokenHosts, blobHosts: %s: %w", webhook.Quote(other), err))
		}
	}
	authorities, err := config.authorityPEM(n.readFile)
	problem(err)
	h.credentials, err = config.readCredentials(n.readFile)
	problem(err)
	if problems != nil {
		return nil, errors.Join(problems...)
	}
	h.connect(config, authorities, n)
	return h, nil
}

// checkHostName wants the spelling under which a Reference knows the host: any other would never be asked for.
func checkHostName(name string) error {
	if err := webhook.CheckHost(name); err != nil {
		return err
	}
	ref, err := webhook.ParseReference(name + "/a/b")
	if err != nil {
		return err
	}
	if ref.Registry == name {
		return nil
	}
	if ref.Repository != "a/b" {
		return errors.New(`no image reference has this host: it needs a dot or a port (or is "localhost")`)
	}
	return fmt.Errorf("write %s: references to it are known by that name", ref.Registry)
}

// authorityPEM gives what CAFile or CAPEM hold, checked; nil means the system's authorities.
func (config Host) authorityPEM(readFile func(name string) ([]byte, error)) ([]byte, error) {
	encoded, source := config.CAPEM, "the ca"
	switch {
	case config.CAFile != "" && config.CAPEM != nil:
		return nil, errors.New("CAFile and CAPEM are both given; give one")
	case config.CAFile != "":
		var err error
		if encoded, err = readFile(config.CAFile); err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		source = "ca " + config.CAFile
	case config.CAPEM == nil:
		return nil, nil
	}
	if config.PlainHTTP {
		return nil, errors.New("a ca has no use with plainHTTP; remove one of the two")
	}
	if !x509.NewCertPool().AppendCertsFromPEM(encoded) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", source)
	}
	return encoded, nil
}
