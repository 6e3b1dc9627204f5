package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An observed is a state and the objects that it was read from, which a write goes on from.
type observed struct {
	state
	ca, tls *corev1.Secret // nil when they do not exist
	owner   *metav1.OwnerReference
	spoilt  []string // what stands in a Secret and cannot be understood
}

// A registration is the part of a webhook configuration that matters here.
type registration struct {
	Metadata struct {
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Webhooks []struct {
		Name         string `json:"name"`
		ClientConfig struct {
			CABundle []byte  `json:"caBundle"`
			URL      *string `json:"url"`
			Service  *struct {
				Port *int32 `json:"port"`
			} `json:"service"`
		} `json:"clientConfig"`
		Rules []rule `json:"rules"`
	} `json:"webhooks"`
}

// observe reads everything, and the Secret of authorities last: see the package's documentation.
func (c *Controller) observe(ctx context.Context) (observed, error) {
	var o observed
	for _, k := range []kind{mutating, validating} {
		found, err := c.configuration(ctx, k)
		if err != nil {
			return o, err
		}
		if found != nil {
			o.configurations = append(o.configurations, *found)
		}
	}
	var err error
	if o.owner, err = c.owner(ctx); err != nil || !c.issues() {
		return o, err
	}
	if o.tls, err = c.secret(ctx, c.config.TLSSecret); err != nil {
		return o, err
	}
	if o.ca, err = c.secret(ctx, c.config.CASecret); err != nil {
		return o, err
	}
	o.understand()
	return o, nil
}

// understand decodes the Secrets. One that cannot be understood counts as absent and is noted.
func (o *observed) understand() {
	var err error
	if o.tls != nil {
		o.serving, err = readServing(o.tls.Data[corev1.TLSCertKey], o.tls.Data[corev1.TLSPrivateKeyKey], o.tls.Data["ca.crt"])
		if err != nil {
			o.spoilt = append(o.spoilt, fmt.Sprintf("Secret %s: %v", o.tls.Name, err))
		}
	}
	if o.ca != nil {
		o.authorities, err = decodeAuthorities(o.ca.Data[authoritiesKey])
		if err != nil {
			o.spoilt = append(o.spoilt, fmt.Sprintf("Secret %s: %s: %v", o.ca.Name, authoritiesKey, err))
		}
	}
	for _, secret := range []*corev1.Secret{o.tls, o.ca} {
		o.disowned = o.disowned || secret != nil && o.owner != nil && !owned(secret, *o.owner)
	}
}

func owned(secret *corev1.Secret, owner metav1.OwnerReference) bool {
	return slices.ContainsFunc(secret.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == owner.UID })
}

// configuration reads one of the two, nil for there is none.
func (c *Controller) configuration(ctx context.Context, k kind) (*configuration, error) {
	var r registration
	err := c.api.do(ctx, call{method: http.MethodGet, path: k.path(c.config.WebhookConfiguration)}, &r)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the webhook configuration: %w", err)
	}
	_, activated := r.Metadata.Annotations[activatedAnnotation]
	found := &configuration{kind: k, version: r.Metadata.ResourceVersion, activated: activated}
	for _, w := range r.Webhooks {
		e := entry{name: w.Name, bundle: w.ClientConfig.CABundle, rules: w.Rules, address: c.server() + ":443"}
		switch client := w.ClientConfig; {
		case client.Service != nil && client.Service.Port != nil:
			e.address = net.JoinHostPort(c.server(), strconv.Itoa(int(*client.Service.Port)))
		case client.URL != nil:
			if u, err := url.Parse(*client.URL); err == nil {
				e.address = u.Host
			}
		}
		found.entries = append(found.entries, e)
	}
	return found, nil
}

// secret reads one, nil for there is none.
func (c *Controller) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	var secret corev1.Secret
	err := c.api.do(ctx, call{method: http.MethodGet, path: secretPath(c.config.Namespace, name)}, &secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", name, err)
	}
	return &secret, nil
}

// owner is the Deployment with which the Secrets are to be deleted, nil for none.
func (c *Controller) owner(ctx context.Context) (*metav1.OwnerReference, error) {
	if c.config.Deployment == "" {
		return nil, nil
	}
	var deployment metav1.PartialObjectMetadata
	path := "/apis/apps/v1/namespaces/" + url.PathEscape(c.config.Namespace) + "/deployments/" + url.PathEscape(c.config.Deployment)
	err := c.api.do(ctx, call{method: http.MethodGet, path: path}, &deployment)
	if apierrors.IsNotFound(err) || err == nil && deployment.DeletionTimestamp != nil {
		return nil, nil // then the Secrets outlive it, which is better than to have none
	}
	if err != nil {
		return nil, fmt.Errorf("read Deployment %s: %w", c.config.Deployment, err)
	}
	return &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: deployment.Name, UID: deployment.UID}, nil
}
