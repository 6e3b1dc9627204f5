package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// An Inspector reads what hallmark doctor looks at, with the rights of whoever runs it. It writes nothing. What does not exist
// is nil. An error that is a *MissingRightError names the right that is needed.
type Inspector struct{ api *api }

// NewInspector finds the cluster as kubectl does: by the kubeconfig that is named, that of KUBECONFIG or of the home directory,
// or as a pod does. A context of "" is the current one.
func NewInspector(kubeconfig, kubeContext, agent string) (*Inspector, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: kubeContext}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	a, err := newAPI(config, agent)
	return &Inspector{a}, err
}

// A MissingRightError says what the user must be allowed to do.
type MissingRightError struct {
	Verb, Resource, Namespace string // Namespace is "" for the whole cluster
	Err                       error
}

// Error names verb and resource as kubectl auth can-i wants them.
func (e *MissingRightError) Error() string {
	where := "in the whole cluster"
	if e.Namespace != "" {
		where = "in namespace " + e.Namespace
	}
	return fmt.Sprintf("the right to %s %s %s is missing", e.Verb, e.Resource, where)
}

// Unwrap gives what the API server said.
func (e *MissingRightError) Unwrap() error { return e.Err }

// A resource is where objects of a kind are.
type resource struct{ group, name, namespace string }

func (r resource) path(object string) string {
	path := "/api/v1"
	if r.group != "" {
		path = "/apis/" + r.group + "/v1"
	}
	if r.namespace != "" {
		path += "/namespaces/" + url.PathEscape(r.namespace)
	}
	path += "/" + r.name
	if object != "" {
		path += "/" + url.PathEscape(object)
	}
	return path
}

// get reads an object. False is that it does not exist.
func (i *Inspector) get(ctx context.Context, r resource, name string, into any) (bool, error) {
	err := i.api.do(ctx, call{method: http.MethodGet, path: r.path(name)}, into)
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, r.failed("get", err)
	}
	return true, nil
}

func (r resource) failed(verb string, err error) error {
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		name := r.name
		if r.group != "" {
			name += "." + r.group
		}
		return &MissingRightError{Verb: verb, Resource: name, Namespace: r.namespace, Err: err}
	}
	return fmt.Errorf("%s %s: %w", verb, r.name, err)
}

// A Registration is one of the two webhook configurations.
type Registration struct {
	Kind     string // MutatingWebhookConfiguration or ValidatingWebhookConfiguration
	Mutating bool
	Webhooks []Webhook `json:"webhooks"`
}

// A Webhook is an entry of it.
type Webhook struct {
	Name         string `json:"name"`
	ClientConfig struct {
		CABundle []byte  `json:"caBundle"`
		URL      *string `json:"url"`
		Service  *struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"service"`
	} `json:"clientConfig"`
	FailurePolicy     string                `json:"failurePolicy"`
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector"`
	ObjectSelector    *metav1.LabelSelector `json:"objectSelector"`
	TimeoutSeconds    int                   `json:"timeoutSeconds"`
	Rules             []struct {
		Operations []string `json:"operations"`
		Resources  []string `json:"resources"`
	} `json:"rules"`
}

// Registration reads one of the two.
func (i *Inspector) Registration(ctx context.Context, mutate bool, name string) (*Registration, error) {
	r := &Registration{Kind: "ValidatingWebhookConfiguration", Mutating: mutate}
	where := resource{group: "admissionregistration.k8s.io", name: string(validating)}
	if mutate {
		r.Kind, where.name = "MutatingWebhookConfiguration", string(mutating)
	}
	found, err := i.get(ctx, where, name, r)
	if !found {
		return nil, err
	}
	return r, nil
}

// Secret reads the data of a Secret.
func (i *Inspector) Secret(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	var secret corev1.Secret
	found, err := i.get(ctx, resource{name: "secrets", namespace: namespace}, name, &secret)
	if !found {
		return nil, err
	}
	return secret.Data, nil
}

// ConfigMap reads the data of a ConfigMap.
func (i *Inspector) ConfigMap(ctx context.Context, namespace, name string) (map[string]string, error) {
	var configMap corev1.ConfigMap
	found, err := i.get(ctx, resource{name: "configmaps", namespace: namespace}, name, &configMap)
	if !found {
		return nil, err
	}
	return configMap.Data, nil
}

// Replicas are the pods of a Deployment.
type Replicas struct {
	Wanted, Ready int
	Nodes         map[string]int // how many ready ones a node has
}

// Replicas reads a Deployment and where its pods are.
func (i *Inspector) Replicas(ctx context.Context, namespace, name string) (*Replicas, error) {
	var deployment struct {
		Spec struct {
			Replicas *int                  `json:"replicas"`
			Selector *metav1.LabelSelector `json:"selector"`
		} `json:"spec"`
		Status struct {
			ReadyReplicas int `json:"readyReplicas"`
		} `json:"status"`
	}
	found, err := i.get(ctx, resource{group: "apps", name: "deployments", namespace: namespace}, name, &deployment)
	if !found {
		return nil, err
	}
	r := &Replicas{Wanted: 1, Ready: deployment.Status.ReadyReplicas, Nodes: map[string]int{}}
	if deployment.Spec.Replicas != nil {
		r.Wanted = *deployment.Spec.Replicas
	}
	selector, err := metav1.LabelSelectorAsSelector(deployment.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("selector of Deployment %s: %w", name, err)
	}
	query := url.Values{"labelSelector": {selector.String()}}
	err = i.list(ctx, resource{name: "pods", namespace: namespace}, query, func(item json.RawMessage) error {
		var pod struct {
			Spec struct {
				NodeName string `json:"nodeName"`
			} `json:"spec"`
			Status struct {
				Conditions []metav1.Condition `json:"conditions"`
			} `json:"status"`
		}
		if err := json.Unmarshal(item, &pod); err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == "Ready" && c.Status == metav1.ConditionTrue {
				r.Nodes[pod.Spec.NodeName]++
			}
		}
		return nil
	})
	return r, err
}

// Namespaces gives the labels of all namespaces by their names.
func (i *Inspector) Namespaces(ctx context.Context) (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	err := i.list(ctx, resource{name: "namespaces"}, url.Values{}, func(item json.RawMessage) error {
		var namespace metav1.PartialObjectMetadata
		err := json.Unmarshal(item, &namespace)
		all[namespace.Name] = namespace.Labels
		return err
	})
	return all, err
}

// Pods hands on every pod that has not ended, as JSON.
func (i *Inspector) Pods(ctx context.Context, each func(pod json.RawMessage) error) error {
	return i.list(ctx, resource{name: "pods"}, url.Values{"fieldSelector": {"status.phase!=Succeeded,status.phase!=Failed"}}, each)
}

// pageSize keeps an answer at some megabytes, and the API server's work short.
const pageSize = 250

// list reads page by page. A list that takes so long that the API server has forgotten how it began goes on with what there is
// then, as its token for that says.
func (i *Inspector) list(ctx context.Context, r resource, query url.Values, each func(json.RawMessage) error) error {
	query.Set("limit", strconv.Itoa(pageSize))
	for {
		var page struct {
			Metadata metav1.ListMeta   `json:"metadata"`
			Items    []json.RawMessage `json:"items"`
		}
		err := i.api.do(ctx, call{method: http.MethodGet, path: r.path(""), query: query}, &page)
		if next := continuation(err); next != "" {
			query.Set("continue", next)
			continue
		}
		if err != nil {
			return r.failed("list", err)
		}
		for _, item := range page.Items {
			if err := each(item); err != nil {
				return fmt.Errorf("understand an item of %s: %w", r.name, err)
			}
		}
		if page.Metadata.Continue == "" {
			return nil
		}
		query.Set("continue", page.Metadata.Continue)
	}
}

// continuation is the token with which an expired list (410) says that it can go on.
func continuation(err error) string {
	status, ok := err.(apierrors.APIStatus) //nolint:errorlint // it comes as it is
	if !ok || !apierrors.IsResourceExpired(err) {
		return ""
	}
	return strings.TrimSpace(status.Status().ListMeta.Continue)
}
