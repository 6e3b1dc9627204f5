package pullsecrets

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hallmark-admission/hallmark/webhook"
)

const (
	maxBody        = 1 << 20  // of an answer; Kubernetes' own limit of a secret
	maxHeaderBytes = 64 << 10 // of an answer
	maxTokenBytes  = 64 << 10 // of the token file
	maxCABytes     = 1 << 20  // of the authority's file
	idleTimeout    = time.Minute
	maxIdleConns   = 8
)

// The resources that are asked for, as they stand in paths.
const (
	secrets         = "secrets"
	serviceAccounts = "serviceaccounts"
)

// An object is what one request asks for.
type object struct{ namespace, resource, name string }

// String names it in messages, whose lines are short.
func (o object) String() string {
	name := webhook.Quote(o.name)
	if len(name) > 64 {
		name = name[:60] + `…"`
	}
	if o.resource == secrets {
		return "pull secret " + name
	}
	return "service account " + name
}

// missing is the answer for what is not there, which the kubelet passes over, or the error.
func (o object) missing(why string) (answer, error) {
	if o.resource == secrets {
		return answer{note: o.String() + " " + why}, nil
	}
	return answer{}, o.failed("it "+why, false, nil)
}

// What Kubernetes allows in the names of namespaces (RFC 1123 label), and of secrets and service accounts (subdomain).
var (
	label     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

func isLabel(s string) bool { return label.MatchString(s) }

func isName(s string) bool { return len(s) <= 253 && subdomain.MatchString(s) }

// An answer is what an object says: the names that a service account has, or the Docker config of a secret, or why a
// secret is passed over.
type answer struct {
	names  []string
	config []byte
	note   string
}

func (a answer) size() int {
	size := len(a.config)
	for _, name := range a.names {
		size += len(name)
	}
	return size
}

// api speaks to the API server.
type api struct {
	server    *url.URL
	tokenFile string
	caFile    string
	timeout   time.Duration

	mutex     sync.Mutex
	authority string          // what the file held when transport was made
	transport *http.Transport // nil before the first request
}

// token reads the process's own token. Kubernetes replaces the file well before the token expires.
func (a *api) token() (string, error) {
	text, err := readFile(a.tokenFile, maxTokenBytes)
	token := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the service-account token: %w", err)
	case token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "", fmt.Errorf("%s holds no token", a.tokenFile)
	}
	return token, nil
}

// connect gives the connections that trust the cluster's authority as it is now.
func (a *api) connect() (*http.Transport, error) {
	text, err := readFile(a.caFile, maxCABytes)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.transport != nil && a.authority == string(text) {
		return a.transport, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", a.caFile)
	}
	if a.transport != nil {
		a.transport.CloseIdleConnections()
	}
	dialer := &net.Dialer{Timeout: a.timeout}
	a.authority, a.transport = string(text), &http.Transport{
		Proxy:       nil, // the token goes to the API server and through nobody's hands
		DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
		TLSHandshakeTimeout: a.timeout, MaxResponseHeaderBytes: maxHeaderBytes,
		MaxIdleConns: maxIdleConns, MaxIdleConnsPerHost: maxIdleConns, IdleConnTimeout: idleTimeout,
		DisableCompression: true, ForceAttemptHTTP2: true,
	}
	return a.transport, nil
}

func (a *api) closeIdle() {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.transport != nil {
		a.transport.CloseIdleConnections()
	}
}

// read asks for an object. Errors are *webhook.PullError.
func (a *api) read(ctx context.Context, o object) (answer, error) {
	status, body, err := a.get(ctx, o)
	var own *webhook.PullError
	switch {
	case errors.As(err, &own):
		return answer{}, err
	case err != nil && ctx.Err() != nil:
		return answer{}, o.failed(fmt.Sprintf("the Kubernetes API did not answer within %s", a.timeout), true, err)
	case err != nil:
		return answer{}, o.failed("the Kubernetes API could not be reached", true, err)
	case status == http.StatusNotFound:
		return o.missing("does not exist")
	case status == http.StatusForbidden:
		return answer{}, o.failed("the Kubernetes API does not allow it to Hallmark (403)", false, nil)
	case status != http.StatusOK:
		again := status == http.StatusUnauthorized || status == http.StatusTooManyRequests || status >= 500
		return answer{}, o.failed(fmt.Sprintf("the Kubernetes API answered %d", status), again, nil)
	case o.resource == secrets:
		return o.secret(body)
	}
	return o.account(body)
}

// get makes the request. The names were checked before, and are escaped all the same.
func (a *api) get(ctx context.Context, o object) (status int, body []byte, err error) {
	token, err := a.token()
	if err != nil {
		return 0, nil, o.failed("Hallmark has no token for the Kubernetes API", true, err)
	}
	transport, err := a.connect()
	if err != nil {
		return 0, nil, o.failed("Hallmark has no authority for the Kubernetes API", true, err)
	}
	target := a.server.JoinPath("api", "v1", "namespaces", url.PathEscape(o.namespace), o.resource, url.PathEscape(o.name))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "hallmark")
	response, err := transport.RoundTrip(request) // which follows no redirect
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	switch {
	case err != nil:
		return 0, nil, err
	case response.StatusCode == http.StatusOK && len(body) > maxBody:
		return 0, nil, o.failed("it is larger than 1 MiB", false, nil)
	}
	return response.StatusCode, body, nil
}

// secret takes the Docker config out of a secret.
func (o object) secret(body []byte) (answer, error) {
	var secret struct {
		Type string `json:"type"`
		Data struct {
			ConfigJSON []byte `json:".dockerconfigjson"`
			Config     []byte `json:".dockercfg"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &secret) != nil {
		return answer{}, o.failed("the answer of the Kubernetes API cannot be read", true, nil)
	}
	config := secret.Data.ConfigJSON
	switch {
	case secret.Type == "kubernetes.io/dockerconfigjson" && len(config) > 0:
	case secret.Type == "kubernetes.io/dockercfg" && len(secret.Data.Config) > 0:
		// The older format is what stands under "auths" in the newer.
		config = append(append([]byte(`{"auths":`), secret.Data.Config...), '}')
	default:
		return answer{note: o.String() + " is of another type"}, nil
	}
	var known struct {
		Auths map[string]jsontext.Value `json:"auths"`
	}
	if json.Unmarshal(config, &known) != nil {
		return answer{}, o.failed(`it is not a Docker config (a JSON object with "auths")`, false, nil)
	}
	return answer{config: config}, nil
}

// account takes the names of secrets out of a service account.
func (o object) account(body []byte) (answer, error) {
	var account struct {
		ImagePullSecrets []struct {
			Name string `json:"name"`
		} `json:"imagePullSecrets"`
	}
	if json.Unmarshal(body, &account) != nil {
		return answer{}, o.failed("the answer of the Kubernetes API cannot be read", true, nil)
	}
	var got answer
	for _, secret := range account.ImagePullSecrets {
		got.names = append(got.names, secret.Name)
	}
	return got, nil
}

func readFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return text, err
}
