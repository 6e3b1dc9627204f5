package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// fieldManager is under which managedFields show what the controller wrote.
const fieldManager = "hallmark-controller"

const (
	requestTimeout = 15 * time.Second
	maxAnswer      = 16 << 20
	// clockTolerance is what the Date of an answer, in whole seconds and some time on its way, may differ from now.
	clockTolerance = 3 * time.Second
)

// api makes single requests with the credentials, the trust and the proxies of client-go. The clients that client-go
// generates would make the binary 20 MB larger.
type api struct {
	http   *http.Client
	server *url.URL
	offset atomic.Int64 // of the API server's clock from this one, as a time.Duration
}

// connect finds the API server: by a kubeconfig, or, for "", that of the pod. It contacts nobody. It gives the namespace of
// the kubeconfig's context or of the pod as well.
func connect(kubeconfig, agent string) (*api, string, error) {
	config, namespace, err := load(kubeconfig)
	if err != nil {
		return nil, "", err
	}
	a, err := newAPI(config, agent)
	return a, namespace, err
}

func newAPI(config *rest.Config, agent string) (*api, error) {
	config.UserAgent = agent
	config.Timeout = requestTimeout
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the Kubernetes API: %w", err)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // the API has none
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("address of the Kubernetes API: %w", err)
	}
	return &api{http: client, server: server}, nil
}

func load(kubeconfig string) (*rest.Config, string, error) {
	if kubeconfig != "" {
		loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}, &clientcmd.ConfigOverrides{})
		config, err := loaded.ClientConfig()
		if err != nil {
			return nil, "", fmt.Errorf("read kubeconfig: %w", err)
		}
		namespace, _, err := loaded.Namespace()
		return config, namespace, err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, "", fmt.Errorf("%w; outside a cluster --kubeconfig is needed", err)
	}
	namespace, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, "", err
	}
	return config, strings.TrimSpace(string(namespace)), nil
}

// A call is one request.
type call struct {
	method string
	path   string
	query  url.Values
	media  string // of the body; "" for JSON
	body   any    // []byte as it is, anything else as JSON
}

// do makes a request and decodes the answer. An answer that is none is an *apierrors.StatusError.
func (a *api) do(ctx context.Context, c call, into any) error {
	request, err := a.request(ctx, c)
	if err != nil {
		return err
	}
	response, err := a.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the answer to %s %s: %w", c.method, c.path, err)
	case len(text) > maxAnswer:
		return fmt.Errorf("the answer to %s %s is larger than %d bytes", c.method, c.path, maxAnswer)
	}
	a.observeClock(response.Header.Get("Date"))
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return refusal(response.StatusCode, c, text)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("understand the answer to %s %s: %w", c.method, c.path, err)
	}
	return nil
}

func (a *api) request(ctx context.Context, c call) (*http.Request, error) {
	text, isText := c.body.([]byte)
	if c.body != nil && !isText {
		var err error
		if text, err = json.Marshal(c.body); err != nil {
			return nil, err
		}
	}
	target := *a.server
	target.Path = strings.TrimSuffix(target.Path, "/") + c.path
	target.RawQuery = c.query.Encode()
	request, err := http.NewRequestWithContext(ctx, c.method, target.String(), bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if c.media == "" {
		c.media = "application/json"
	}
	if c.body != nil {
		request.Header.Set("Content-Type", c.media)
	}
	return request, nil
}

// refusal is what the API server says, or a word for its number when something else answered.
func refusal(code int, c call, text []byte) error {
	var status metav1.Status
	if json.Unmarshal(text, &status) == nil && status.Kind == "Status" && status.Message != "" {
		return &apierrors.StatusError{ErrStatus: status}
	}
	status = metav1.Status{
		Status: metav1.StatusFailure, Code: int32(code), Reason: metav1.StatusReasonUnknown,
		Message: fmt.Sprintf("%s %s: the server answered %d", c.method, c.path, code),
	}
	return &apierrors.StatusError{ErrStatus: status}
}

// observeClock compares clocks. API servers verify what the controller issues, so it is their clock that counts, and one that
// all replicas of the controller share.
func (a *api) observeClock(date string) {
	there, err := http.ParseTime(date)
	if err != nil {
		return
	}
	offset := time.Until(there)
	if offset.Abs() < clockTolerance {
		offset = 0
	}
	a.offset.Store(int64(offset))
}

// now is the API server's time.
func (a *api) now() time.Time { return time.Now().Add(time.Duration(a.offset.Load())) }

func secretPath(namespace, name string) string {
	path := "/api/v1/namespaces/" + url.PathEscape(namespace) + "/secrets"
	if name != "" {
		path += "/" + url.PathEscape(name)
	}
	return path
}

// A kind is one of the two kinds of webhook configurations, by its plural in a path.
type kind string

const (
	mutating   kind = "mutatingwebhookconfigurations"
	validating kind = "validatingwebhookconfigurations"
)

func (k kind) path(name string) string {
	return "/apis/admissionregistration.k8s.io/v1/" + string(k) + "/" + url.PathEscape(name)
}
