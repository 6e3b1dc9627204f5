package cluster

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// authoritiesKey is where the Secret of authorities holds them.
const authoritiesKey = "authorities.json"

// apply makes the write of a step.
func (c *Controller) apply(ctx context.Context, o observed, s step) error {
	switch s.task {
	case storeAuthorities:
		list, err := s.store(c.api.now(), c.config.Lifetimes)
		if err != nil {
			return err
		}
		return c.writeAuthorities(ctx, o, list)
	case publish:
		target := o.configurations[s.target]
		body, err := target.bundlePatch(s.bundle)
		if err != nil {
			return err
		}
		return c.patch(ctx, target.kind, body)
	case issueServing:
		next, err := s.issue(c.api.now(), c.config.Lifetimes, o.serving, c.names())
		if err != nil {
			return err
		}
		return c.writeServing(ctx, o, next)
	case ownSecrets:
		if o.tls != nil && !owned(o.tls, *o.owner) {
			return c.writeServing(ctx, o, *o.serving)
		}
		return c.writeAuthorities(ctx, o, s.authorities)
	}
	return nil
}

// store gives what a step stores.
func (s step) store(now time.Time, l Lifetimes) ([]authority, error) {
	if !s.mint {
		return s.authorities, nil
	}
	made, err := mint(now, l.CA)
	return append(slices.Clip(s.authorities), made), err
}

// issue gives the serving certificate of a step: a new one, or the one that there is with another ca.crt.
func (s step) issue(now time.Time, l Lifetimes, was *serving, names []string) (serving, error) {
	if len(s.authorities) == 0 {
		return serving{leaf: was.leaf, cert: was.cert, key: was.key, root: s.bundle}, nil
	}
	made, err := s.authorities[len(s.authorities)-1].issue(now, l.Serving, names)
	made.root = s.bundle
	return made, err
}

func (c *Controller) writeAuthorities(ctx context.Context, o observed, list []authority) error {
	text, err := encodeAuthorities(list)
	if err != nil {
		return err
	}
	return c.writeSecret(ctx, o, o.ca, corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: c.config.CASecret}, Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{authoritiesKey: text},
	})
}

func (c *Controller) writeServing(ctx context.Context, o observed, s serving) error {
	return c.writeSecret(ctx, o, o.tls, corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: c.config.TLSSecret}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: s.cert, corev1.TLSPrivateKeyKey: s.key, "ca.crt": s.root},
	})
}

// writeSecret creates a Secret, or updates the one that was read if nobody has since.
func (c *Controller) writeSecret(ctx context.Context, o observed, was *corev1.Secret, secret corev1.Secret) error {
	to := call{method: http.MethodPost, path: secretPath(c.config.Namespace, ""), query: manager()}
	name := secret.Name
	secret.APIVersion, secret.Kind = "v1", "Secret"
	secret.Labels = map[string]string{"app.kubernetes.io/managed-by": fieldManager, "app.kubernetes.io/part-of": "hallmark"}
	if was != nil {
		to.method, to.path = http.MethodPut, secretPath(c.config.Namespace, name)
		secret.ObjectMeta, secret.Type = was.ObjectMeta, was.Type // the type cannot be changed
	}
	if o.owner != nil && !owned(&secret, *o.owner) {
		secret.OwnerReferences = append(slices.DeleteFunc(slices.Clone(secret.OwnerReferences), func(r metav1.OwnerReference) bool {
			return r.Kind == o.owner.Kind && r.Name == o.owner.Name // of the Deployment's life before
		}), *o.owner)
	}
	to.body = secret
	if err := c.api.do(ctx, to, nil); err != nil {
		return fmt.Errorf("write Secret %s: %w", name, err)
	}
	return nil
}

// patch changes one of the webhook configurations.
func (c *Controller) patch(ctx context.Context, k kind, body []byte) error {
	err := c.api.do(ctx, call{
		method: http.MethodPatch, path: k.path(c.config.WebhookConfiguration), query: manager(),
		media: "application/strategic-merge-patch+json", body: body,
	}, nil)
	if err != nil {
		return fmt.Errorf("patch the webhook configuration: %w", err)
	}
	return nil
}

func manager() url.Values { return url.Values{"fieldManager": {fieldManager}} }
