package pullsecrets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Config of a Client. What is empty is what Kubernetes gives to every pod.
type Config struct {
	Server    string // "https://10.0.0.1:443"; "" from KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT
	TokenFile string // the process's own service-account token
	CAFile    string // PEM; the authority of the API server

	CacheTTL time.Duration    // how long an answer is used again; 0 for not at all
	Timeout  time.Duration    // of one request, from dialling to the last byte; 0 for 3s
	Now      func() time.Time // nil is time.Now
}

// Where Kubernetes puts the credentials of a pod's service account.
const (
	mountedToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	mountedCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

// Bounds of what one pod costs: its secrets, and the bytes of their Docker configs together. Real ones name one or two, of
// some hundred bytes.
const (
	maxSecrets     = 32
	maxConfigBytes = 256 << 10
)

// A Client reads pull secrets. It may be used concurrently. Close it.
type Client struct {
	api    *api
	shared *shared
}

// Found is what a pod may show to registries.
type Found struct {
	Configs [][]byte // Docker configs (JSON objects with "auths"), the first counts first
	Notes   []string // what was passed over and why, for a developer: `pull secret "corp" does not exist`
}

// New checks the configuration and the files that it names. It contacts nobody.
func New(config Config) (*Client, error) {
	if config.Server == "" {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return nil, errors.New("pull secrets: this is not a pod: KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set")
		}
		config.Server = "https://" + net.JoinHostPort(host, port)
	}
	if config.TokenFile == "" {
		config.TokenFile = mountedToken
	}
	if config.CAFile == "" {
		config.CAFile = mountedCA
	}
	if config.Timeout <= 0 {
		config.Timeout = 3 * time.Second
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	server, err := url.Parse(config.Server)
	if err != nil || server.Scheme != "https" || server.Host == "" || server.Path != "" || server.User != nil || server.RawQuery != "" {
		err = errors.New("want the address of the API server, such as https://10.0.0.1:443")
	}
	a := &api{server: server, tokenFile: config.TokenFile, caFile: config.CAFile, timeout: config.Timeout}
	_, tokenErr := a.token()
	_, caErr := a.connect()
	if err := errors.Join(err, tokenErr, caErr); err != nil {
		return nil, fmt.Errorf("pull secrets: %w", err)
	}
	return &Client{api: a, shared: newShared(config, a.read)}, nil
}

// Close waits for requests that outlived their callers, at most Config.Timeout, and closes idle connections.
func (c *Client) Close() {
	c.shared.close()
	c.api.closeIdle()
}

// Read gives the credentials of a pod. Errors are *webhook.PullError.
func (c *Client) Read(ctx context.Context, pull webhook.Pull) (Found, error) {
	if !isLabel(pull.Namespace) {
		return Found{}, &webhook.PullError{Reason: "the pull secrets could not be read: the request has no proper namespace"}
	}
	names := pull.Secrets
	if len(names) == 0 {
		account := object{pull.Namespace, serviceAccounts, pull.ServiceAccount}
		if account.name == "" {
			account.name = "default"
		}
		got, err := c.shared.get(ctx, account)
		if err != nil {
			return Found{}, err
		}
		names = got.names
	}
	if len(names) > maxSecrets {
		return Found{}, &webhook.PullError{
			Reason: fmt.Sprintf("the pull secrets could not be read: there are %d, and more than %d are not", len(names), maxSecrets),
		}
	}
	var found Found
	size := 0
	for _, name := range names {
		if name == "" {
			continue // the API server lets it pass, and so does the kubelet
		}
		got, err := c.shared.get(ctx, object{pull.Namespace, secrets, name})
		switch {
		case err != nil:
			return Found{}, err
		case got.note != "":
			found.Notes = append(found.Notes, got.note)
		default:
			found.Configs = append(found.Configs, got.config)
		}
		if size += len(got.config); size > maxConfigBytes {
			return Found{}, &webhook.PullError{Reason: "the pull secrets could not be read: together they are larger than 256 KiB"}
		}
	}
	return found, nil
}
