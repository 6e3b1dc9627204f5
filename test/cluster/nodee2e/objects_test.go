package nodee2e

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// objects lists everything in the cluster as "deployments.apps/namespace/name", except events, which come and go, and
// what is in namespaces of tests.
func (w *world) objects(ctx context.Context) (map[string]bool, error) {
	config, err := w.RESTConfig("admin")
	if err != nil {
		return nil, err
	}
	config.WarningHandler = rest.NoWarnings{} // that some kinds are old
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	lists, err := discovery.ServerPreferredResources(w.Client().Discovery())
	if err != nil {
		return nil, err
	}
	all := map[string]bool{}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, resource := range list.APIResources {
			if resource.Name == "events" || !slices.Contains(resource.Verbs, "list") {
				continue
			}
			found, err := client.Resource(version.WithResource(resource.Name)).List(ctx, metav1.ListOptions{})
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", resource.Name, err)
			}
			for _, object := range found.Items {
				if strings.HasPrefix(object.Namespace, testPrefix) || strings.HasPrefix(object.Name, testPrefix) {
					continue
				}
				all[fmt.Sprintf("%s.%s/%s/%s", resource.Name, version.Group, object.Namespace, object.Name)] = true
			}
		}
	}
	return all, nil
}
