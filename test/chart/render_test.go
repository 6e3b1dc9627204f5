package chart

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/release"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const (
	chartDir  = "../../charts/hallmark"
	namespace = "hallmark-system" // of the release, whose name is hallmark
)

// sets are values as admins would write them. What holds for all installations is tested with each.
func sets() map[string]string {
	return map[string]string{
		"default": ``,
		"enforce": enforceValues,
		"single":  `{webhook: {replicas: 1, podDisruptionBudget: {enabled: false}, priorityClassName: ""}, controller: {priorityClassName: ""}}`,
		"all": `{scope: {mode: all, exclude: [istio-system]}, webhook: {autoscaling: {enabled: true}, hostNetwork: true, port: 10250},
			cacheVolume: {source: {persistentVolumeClaim: {claimName: images}}}, backstop: {when: always}}`,
		"cert-manager":        `{certificates: {certManager: {enabled: true}}}`,
		"cert-manager issuer": `{certificates: {certManager: {enabled: true, issuerRef: {kind: ClusterIssuer, name: corp}}}}`,
		"no controller": `{controller: {enabled: false}, config: {mode: warn}, certificates: {existingSecret: corp-tls, caBundle: "-----BEGIN CERTIFICATE-----\n"},
			cacheVolume: {enabled: false}, networkPolicy: {enabled: false}, backstop: {enabled: false}, namespaceGuard: {enabled: false}}`,
		"monitored": `{metrics: {monitor: {enabled: true, labels: {release: prometheus}}, rules: {enabled: true, labels: {role: alerts}},
			dashboard: {enabled: true, annotations: {grafana_folder: Security}}}}`,
		"pod monitor": `{metrics: {monitor: {enabled: true, kind: PodMonitor}}}`,
		"modes": `{config: {mode: enforce, rules: {registry: warn}, namespaces: [{match: ["sandbox-*", demo], mode: audit}, {match: [strict], mode: enforce}],
			registries: [{host: docker.io, repositories: ["codercom/**", library/nginx]}, {host: localhost:5000, plainHTTP: true}], pin: {pods: annotate}}}`,
		"off": `{config: {rules: {registry: "off"}}}`,
	}
}

// enforceValues are those of an organisation at the end of the way.
const enforceValues = `
image: {digest: "sha256:1111111111111111111111111111111111111111111111111111111111111111"}
imagePullSecrets: [{name: regcred}]
commonLabels: {team: devex}
config:
  mode: enforce
  registries:
    - {host: "registry.corp.example:5000", repositories: ["golden/**", "apps/*/tools", devex/base], ca: /etc/hallmark/registry/ca.pem, tokenHosts: ["auth.corp.example:8443"]}
    - {host: mirror.corp.example}
  signers: {ci: {keyFile: /etc/hallmark/signers/ci.pub}}
  signatures: [{match: ["registry.corp.example:5000/**"], anyOf: [ci]}]
  goldenImages: [{name: base, repository: "registry.corp.example:5000/golden/base", owner: devex, uid: 1000650000, defaultTag: v3.2.1, scope: all of it}]
  breakGlass: {groups: ["hallmark:break-glass"]}
  exemptions:
    - {name: matlab, namespaces: ["research-*"], images: ["legacy.corp.example/matlab/**"], rules: [registry, golden, pinned, signature], reason: old, owner: research, expires: 2099-03-31}
  pullSecrets: {enabled: true}
  message: {helpURL: "https://wiki.corp.example/images"}
files: {registry: {secret: registry-ca}, signers: {configMap: signer-keys}}
policies:
  inline:
    team.rego: |
      # METADATA
      # title: Team
      # description: Nothing is against it.
      # custom:
      #   id: team
      #   fix: nothing
      package hallmark.rules.team

      deny contains finding if {
        some image in input.images
        image.name == "never"
        finding := {"image": image.where, "message": "never"}
      }
  configMaps: [team-policies]
pullSecretRoles: [{namespace: team-a, secrets: [corp-registry]}, {namespace: team-b}]
scope: {exclude: [istio-system]}
namespaceGuard: {require: ["coder-*"]}
webhook:
  env: [{name: VAULT_ADDR, value: "https://vault.corp.example"}]
  tolerations: [{key: infra, operator: Exists}]
  podLabels: {sidecar.istio.io/inject: "false"}
networkPolicy: {apiServerCIDRs: [10.0.0.0/28], registryCIDRs: [10.1.0.0/16], registryPorts: [8200], metricsFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}
`

// installed is a rendered release.
type installed struct {
	*testing.T
	objects []runtime.Object
	hooks   *installed // what is there while a hook runs
	text    string
	notes   string
}

// load reads the chart and values over its defaults.
func load(t *testing.T, values string) (*chart.Chart, map[string]any) {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	return c, v
}

// oldest is the first version of Kubernetes that the chart is for. Helm knows its own only in a release of Helm.
func oldest() *chartutil.KubeVersion {
	return &chartutil.KubeVersion{Version: "v1.30.0", Major: "1", Minor: "30"}
}

// template does what helm template does.
func template(t *testing.T, values string) (*release.Release, error) {
	t.Helper()
	c, v := load(t, values)
	install := action.NewInstall(new(action.Configuration))
	install.ReleaseName, install.Namespace = "hallmark", namespace
	install.DryRun, install.ClientOnly, install.Replace = true, true, true
	install.KubeVersion = oldest()
	return install.Run(c, v)
}

// install renders the chart and decodes strictly what comes out.
func install(t *testing.T, values string) *installed {
	t.Helper()
	r, err := template(t, values)
	if err != nil {
		t.Fatal(err)
	}
	i := decode(t, r.Manifest)
	i.notes, i.hooks = r.Info.Notes, decode(t, hooks(r))
	return i
}

// hooks are the manifests of all hooks.
func hooks(r *release.Release) string {
	var text strings.Builder
	for _, hook := range r.Hooks {
		fmt.Fprintf(&text, "---\n%s\n", hook.Manifest)
	}
	return text.String()
}

func decode(t *testing.T, text string) *installed {
	t.Helper()
	i := &installed{T: t, text: text}
	decoder := strictDecoder(t)
	documents := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return i
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if runtime.IsNotRegisteredError(err) {
			object, err = generic(document)
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		i.objects = append(i.objects, object)
	}
}

func strictDecoder(t *testing.T) runtime.Decoder {
	t.Helper()
	all := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(all), monitoringv1.AddToScheme(all)); err != nil {
		t.Fatal(err)
	}
	return serializer.NewCodecFactory(all, serializer.EnableStrict).UniversalDeserializer()
}

// generic decodes what no module here has types for: the objects of cert-manager.
func generic(document []byte) (runtime.Object, error) {
	var u unstructured.Unstructured
	if err := yaml.UnmarshalStrict(document, &u.Object); err != nil {
		return nil, err
	}
	if group := u.GroupVersionKind().Group; group != "cert-manager.io" {
		return nil, fmt.Errorf("nobody knows the group %q", group)
	}
	return &u, nil
}

// get finds an object by type and name.
func get[T runtime.Object](i *installed, name string) T {
	i.Helper()
	for _, object := range all[T](i) {
		if accessor, err := meta.Accessor(object); err == nil && accessor.GetName() == name {
			return object
		}
	}
	var none T
	i.Fatalf("there is no %s %s", reflect.TypeOf(none).Elem().Name(), name)
	return none
}

// all finds the objects of a type.
func all[T runtime.Object](i *installed) []T {
	var found []T
	for _, object := range i.objects {
		if o, ok := object.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

// names are "Kind/name" of all objects.
func (i *installed) names() map[string]bool {
	names := map[string]bool{}
	for _, object := range i.objects {
		if accessor, err := meta.Accessor(object); err == nil {
			names[object.GetObjectKind().GroupVersionKind().Kind+"/"+accessor.GetName()] = true
		}
	}
	return names
}

// config is the rendered configuration file.
func (i *installed) config() string {
	i.Helper()
	return get[*corev1.ConfigMap](i, "hallmark-config").Data["config.yaml"]
}

// everySet runs a test with each set of values.
func everySet(t *testing.T, test func(i *installed)) {
	for name, values := range sets() {
		t.Run(name, func(t *testing.T) { test(install(t, values)) })
	}
}
