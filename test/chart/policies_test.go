package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
)

const digest = "@sha256:1111111111111111111111111111111111111111111111111111111111111111"

// backstops are the policies about images.
func (i *installed) backstops() []*admissionv1.ValidatingAdmissionPolicy {
	return slices.DeleteFunc(all[*admissionv1.ValidatingAdmissionPolicy](i), func(p *admissionv1.ValidatingAdmissionPolicy) bool {
		return !strings.HasPrefix(p.Name, "hallmark-backstop")
	})
}

// refused gives the answers of all backstops, with what their bindings do: "[Deny] Forbidden: …".
func (i *installed) refused(t *testing.T, r request) []string {
	t.Helper()
	var found []string
	for _, p := range i.backstops() {
		if !constrains(p, r) {
			continue
		}
		binding := get[*admissionv1.ValidatingAdmissionPolicyBinding](i, p.Name)
		for _, refusal := range refusals(t, p, r) {
			found = append(found, fmt.Sprintf("%v %s", binding.Spec.ValidationActions, refusal))
		}
	}
	return found
}

// constrains says whether a policy is about a request, by its resource rules.
func constrains(p *admissionv1.ValidatingAdmissionPolicy, r request) bool {
	resource := strings.Trim(r.resource+"/"+r.subresource, "/")
	return slices.ContainsFunc(p.Spec.MatchConstraints.ResourceRules, func(n admissionv1.NamedRuleWithOperations) bool {
		return slices.Contains(n.Resources, resource) && slices.Contains(n.Operations, admissionv1.OperationType(r.operation))
	})
}

func create(object *corev1.Pod) request {
	return request{operation: admission.Create, resource: "pods", object: object, namespace: "dev", user: "eve"}
}

// TestBackstop: by itself the API server refuses what comes from elsewhere or has no digest, wherever it stands in the pod.
func TestBackstop(t *testing.T) {
	i := install(t, enforceValues)
	const good = "registry.corp.example:5000/golden/base:v3.2.1" + digest
	const allowed = " is not allowed: use one of registry.corp.example:5000/golden/**, registry.corp.example:5000/apps/*/tools, " +
		"registry.corp.example:5000/devex/base and 1 more"
	foreign := func(image string) string {
		return `[Deny] Forbidden: Image "` + image + `"` + allowed
	}
	unpinned := func(image string) string {
		return `[Deny] Forbidden: Image "` + image + `" has no digest: the webhook of Hallmark, which pins images, did not answer; try again`
	}
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want []string
	}{
		"good":                     {podOf(good), nil},
		"good, without a tag":      {podOf("mirror.corp.example/any/thing" + digest), nil},
		"whole name":               {podOf("registry.corp.example:5000/devex/base:v1" + digest), nil},
		"wildcard in the middle":   {podOf("registry.corp.example:5000/apps/x/tools" + digest), nil},
		"no digest":                {podOf("registry.corp.example:5000/golden/base:v3.2.1"), []string{unpinned("registry.corp.example:5000/golden/base:v3.2.1")}},
		"broken digest":            {podOf("mirror.corp.example/a@sha256:11"), []string{unpinned("mirror.corp.example/a@sha256:11")}},
		"digest in the middle":     {podOf("mirror.corp.example/a" + digest + "x"), []string{unpinned("mirror.corp.example/a" + digest + "x")}},
		"foreign":                  {podOf("evil.example/x" + digest), []string{foreign("evil.example/x" + digest)}},
		"docker hub":               {podOf("nginx" + digest), []string{foreign("nginx" + digest)}},
		"longer host":              {podOf("registry.corp.example:5000.evil.example/golden/base" + digest), []string{foreign("registry.corp.example:5000.evil.example/golden/base" + digest)}},
		"longer port":              {podOf("registry.corp.example:50001/golden/base" + digest), []string{foreign("registry.corp.example:50001/golden/base" + digest)}},
		"host as a path":           {podOf("evil.example/registry.corp.example:5000/golden/base" + digest), []string{foreign("evil.example/registry.corp.example:5000/golden/base" + digest)}},
		"longer segment":           {podOf("registry.corp.example:5000/golden-evil/base" + digest), []string{foreign("registry.corp.example:5000/golden-evil/base" + digest)}},
		"longer than a whole name": {podOf("registry.corp.example:5000/devex/base2" + digest), []string{foreign("registry.corp.example:5000/devex/base2" + digest)}},
		"deeper than a whole name": {podOf("registry.corp.example:5000/devex/base/x" + digest), []string{foreign("registry.corp.example:5000/devex/base/x" + digest)}},
		"other case":               {podOf("Mirror.corp.example/a" + digest), []string{foreign("Mirror.corp.example/a" + digest)}},
		"control characters":       {podOf("evil.example/\n\x1b" + digest), []string{foreign(`evil.example/\n` + "\x1b" + digest)}},
		"init container":           {changed(podOf(good), func(p *corev1.Pod) { p.Spec.InitContainers = podOf("evil.example/i" + digest).Spec.Containers }), []string{foreign("evil.example/i" + digest)}},
		"ephemeral container": {changed(podOf(good), func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Image: "evil.example/e" + digest}}}
		}), []string{foreign("evil.example/e" + digest)}},
		"image volume": {changed(podOf(good), func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "evil.example/v" + digest}}}}
		}), []string{foreign("evil.example/v" + digest)}},
		"several": {podOf("evil.example/a"+digest, good, "b"), []string{
			`[Deny] Forbidden: Image "evil.example/a` + digest + `" (and 1 more)` + allowed, unpinned("b")}},
		"huge name": {podOf("mirror.corp.example/" + strings.Repeat("a", 1<<20) + digest), []string{
			foreign("mirror.corp.example/" + strings.Repeat("a", 180)), unpinned("mirror.corp.example/" + strings.Repeat("a", 180))}},
		"100 images": {podOf(slices.Repeat([]string{good}, 100)...), nil},
		"101 images": {podOf(slices.Repeat([]string{good}, 101)...), []string{
			"[Deny] Forbidden: the pod has more than 100 images; while the webhook of Hallmark is not there, at most 100 are judged"}},
		"100 bad images": {podOf(slices.Repeat([]string{"evil.example/" + strings.Repeat("a", 400)}, 100)...), []string{
			`[Deny] Forbidden: Image "evil.example/` + strings.Repeat("a", 187) + `" (and 99 more)` + allowed,
			`[Deny] Forbidden: Image "evil.example/` + strings.Repeat("a", 187) + `" (and 99 more) has no digest: the webhook of Hallmark, which pins images, did not answer; try again`}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := i.refused(t, create(tc.pod)); !slices.Equal(got, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// TestBackstopOfUpdates: what a pod has is left to it; what is new is judged.
func TestBackstopOfUpdates(t *testing.T) {
	i := install(t, enforceValues)
	old := podOf("evil.example/old:v1")
	update := func(subresource string, change func(*corev1.Pod)) []string {
		r := create(changed(old, change))
		r.operation, r.subresource, r.old = admission.Update, subresource, old
		return i.refused(t, r)
	}
	if got := update("", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }); got != nil {
		t.Errorf("a label: %q", got)
	}
	if got := update("", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "evil.example/new" + digest }); len(got) != 1 || !strings.Contains(got[0], "evil.example/new") {
		t.Errorf("an image: %q", got)
	}
	if got := update("ephemeralcontainers", func(p *corev1.Pod) {
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Image: "evil.example/e" + digest}}}
	}); len(got) != 1 || !strings.Contains(got[0], "evil.example/e") {
		t.Errorf("an ephemeral container: %q", got)
	}
}

// TestBackstopAndWebhook: while the webhook is registered and has to answer, developers read its message; when it is not, the
// backstop has the say. It never depends on it when it is to have the say always, nor for updates of pods.
func TestBackstopAndWebhook(t *testing.T) {
	active := get[*admissionv1.ValidatingWebhookConfiguration](install(t, enforceValues), "hallmark")
	active.Webhooks[0].Rules = install(t, ``).rules()["judge.hallmark.dev"]
	without := func(change func(*admissionv1.ValidatingWebhook)) *admissionv1.ValidatingWebhookConfiguration {
		return changed(active, func(c *admissionv1.ValidatingWebhookConfiguration) { change(&c.Webhooks[0]) })
	}
	ignore := admissionv1.Ignore
	noRules := func(w *admissionv1.ValidatingWebhook) { w.Rules = nil }
	wasActive := func(c *admissionv1.ValidatingWebhookConfiguration) *admissionv1.ValidatingWebhookConfiguration {
		c.Annotations = map[string]string{"other": "x", "hallmark.dev/activated": "2026-01-02T03:04:05Z"}
		return c
	}
	annotated := changed(without(noRules), func(c *admissionv1.ValidatingWebhookConfiguration) {
		c.Annotations = map[string]string{"meta.helm.sh/release-name": "hallmark"}
	})
	otherName := func(w *admissionv1.ValidatingWebhook) { w.Name = "other.example" }
	for name, tc := range map[string]struct {
		values string
		params *admissionv1.ValidatingWebhookConfiguration
		want   bool
	}{
		"active":                {enforceValues, active, false},
		"not active yet":        {enforceValues, without(noRules), false},
		"not yet, annotated":    {enforceValues, annotated, false},
		"no longer active":      {enforceValues, wasActive(without(noRules)), true},
		"may be ignored":        {enforceValues, without(func(w *admissionv1.ValidatingWebhook) { w.FailurePolicy = &ignore }), true},
		"of another name":       {enforceValues, wasActive(without(otherName)), true},
		"without entries":       {enforceValues, wasActive(&admissionv1.ValidatingWebhookConfiguration{}), true},
		"of nobody":             {enforceValues, &admissionv1.ValidatingWebhookConfiguration{}, false},
		"active, mode warn":     {`{config: {mode: warn}}`, without(func(w *admissionv1.ValidatingWebhook) { w.FailurePolicy = &ignore }), false},
		"not active, mode warn": {`{config: {mode: warn}}`, wasActive(without(noRules)), true},
		"always":                {enforceValues + "\nbackstop: {when: always}", active, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := create(podOf("evil.example/x"))
			r.params = tc.params
			if got := install(t, tc.values).refused(t, r); (got != nil) != tc.want {
				t.Errorf("refused: %q, want that it is: %t", got, tc.want)
			}
		})
	}
	i := install(t, enforceValues)
	for _, p := range i.backstops() {
		ref := get[*admissionv1.ValidatingAdmissionPolicyBinding](i, p.Name).Spec.ParamRef
		update := slices.Contains(p.Spec.MatchConstraints.ResourceRules[0].Operations, admissionv1.Update)
		if update && (ref != nil || p.Spec.ParamKind != nil) || !update && (ref.Name != "hallmark" || *ref.ParameterNotFoundAction != admissionv1.DenyAction) {
			t.Errorf("%s depends on %+v", p.Name, ref)
		}
	}
}

// TestBackstopFollowsConfig: modes of namespaces, exemptions, broken glass and static pods are not fought.
func TestBackstopFollowsConfig(t *testing.T) {
	modes := sets()["modes"]
	for name, tc := range map[string]struct {
		values, namespace, image, user string
		groups                         []string
		want                           []string // actions
	}{
		"audit":                   {``, "dev", "x", "", nil, []string{"[Audit]", "[Audit]"}},
		"warn":                    {`{config: {mode: warn}}`, "dev", "x", "", nil, []string{"[Warn Audit]", "[Warn Audit]"}},
		"the mode of a rule":      {modes, "dev", "evil.example/x", "", nil, []string{"[Warn Audit]"}},
		"a namespace in audit":    {modes, "sandbox-7", "evil.example/x", "", nil, []string{"[Audit]"}},
		"another":                 {modes, "demo", "evil.example/x", "", nil, []string{"[Audit]"}},
		"not a part of its name":  {modes, "a-sandbox-7", "evil.example/x", "", nil, []string{"[Warn Audit]"}},
		"a stricter namespace":    {modes, "strict", "evil.example/x", "", nil, []string{"[Warn Audit]"}},
		"docker.io, not pinned":   {modes, "dev", "docker.io/codercom/x:v1", "", nil, nil},
		"docker.io, for short":    {modes, "dev", "codercom/x", "", nil, nil},
		"its old name":            {modes, "dev", "index.docker.io/codercom/x", "", nil, nil},
		"library":                 {modes, "dev", "nginx", "", nil, nil},
		"library, with a tag":     {modes, "dev", "nginx:1.27", "", nil, nil},
		"library, the other":      {modes, "dev", "nginx2", "", nil, []string{"[Warn Audit]"}},
		"docker.io, the rest":     {modes, "dev", "evil/x", "", nil, []string{"[Warn Audit]"}},
		"a host like a path":      {modes, "dev", "codercom.evil.example/x", "", nil, []string{"[Warn Audit]"}},
		"localhost":               {modes, "dev", "localhost:5000/x", "", nil, nil},
		"localhost without port":  {modes, "dev", "localhost/codercom/x", "", nil, []string{"[Warn Audit]"}},
		"exempt":                  {enforceValues, "research-1", "legacy.corp.example/matlab/r2024:v1", "", nil, nil},
		"exempt, deeper":          {enforceValues, "research-1", "legacy.corp.example/matlab/a/b" + digest, "", nil, nil},
		"exempt elsewhere":        {enforceValues, "dev", "legacy.corp.example/matlab/r2024:v1", "", nil, []string{"[Deny]", "[Deny]"}},
		"like the exempt one":     {enforceValues, "research-1", "legacy.corp.example/matlab2/r2024:v1", "", nil, []string{"[Deny]", "[Deny]"}},
		"the exempt one's host":   {enforceValues, "research-1", "evil.example/legacy.corp.example/matlab/x", "", nil, []string{"[Deny]", "[Deny]"}},
		"broken glass":            {enforceValues, "dev", "x", "admin", []string{"hallmark:break-glass"}, nil},
		"another group":           {enforceValues, "dev", "x", "admin", []string{"hallmark:break"}, []string{"[Deny]", "[Deny]"}},
		"a kubelet":               {enforceValues, "dev", "x", "system:node:n1", []string{"system:nodes"}, nil},
		"who calls himself so":    {enforceValues, "dev", "x", "system:node:n1", []string{"devs"}, []string{"[Deny]", "[Deny]"}},
		"not for registry":        {`{config: {mode: enforce, rules: {registry: "off"}}}`, "dev", "x", "", nil, nil},
		"not even in a namespace": {`{config: {mode: enforce, rules: {pinned: "off"}, namespaces: [{match: [dev], mode: enforce}]}}`, "dev", "x", "", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := create(changed(podOf(tc.image), func(p *corev1.Pod) { p.Annotations = map[string]string{"kubernetes.io/config.mirror": "x"} }))
			r.namespace, r.user, r.groups = tc.namespace, tc.user, tc.groups
			var got []string
			for _, refusal := range install(t, tc.values).refused(t, r) {
				got = append(got, refusal[:strings.Index(refusal, "]")+1])
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestBackstopScope: policies of the API server are about the namespaces that the webhook is about.
func TestBackstopScope(t *testing.T) {
	everySet(t, func(i *installed) {
		want := fmt.Sprint(i.judge().namespaceSelector)
		for _, p := range i.backstops() {
			if got := fmt.Sprint(p.Spec.MatchConstraints.NamespaceSelector); got != want {
				i.Errorf("%s is about %s, the webhook about %s", p.Name, got, want)
			}
			binding := get[*admissionv1.ValidatingAdmissionPolicyBinding](i, p.Name)
			denies := slices.Contains(binding.Spec.ValidationActions, admissionv1.Deny)
			if fails := *p.Spec.FailurePolicy == admissionv1.Fail; fails != denies || binding.Spec.PolicyName != p.Name {
				i.Errorf("%s: failure policy %s, %v", p.Name, *p.Spec.FailurePolicy, binding.Spec.ValidationActions)
			}
		}
	})
}

// TestNamespaceGuard: who may not release namespaces neither takes the label away nor makes a namespace without it.
func TestNamespaceGuard(t *testing.T) {
	named := func(name string, labels map[string]string) *corev1.Namespace {
		n := &corev1.Namespace{}
		n.Name, n.Labels = name, labels
		return n
	}
	on, off := map[string]string{"hallmark.dev/enforce": "true", "a": "b"}, map[string]string{"hallmark.dev/enforce": "false"}
	const (
		stays = "Forbidden: the label hallmark.dev/enforce=true has Hallmark judge the images of this namespace and stays; " +
			"ask a cluster admin, who may release namespaces.hallmark.dev"
		wanted = "Forbidden: a namespace of this name is for workspaces, whose images Hallmark judges: give it the label hallmark.dev/enforce=true"
	)
	for name, tc := range map[string]struct {
		object, old *corev1.Namespace
		may         []string
		want        []string
	}{
		"label removed":           {named("dev", map[string]string{"a": "b"}), named("dev", on), nil, []string{stays}},
		"all labels removed":      {named("dev", nil), named("dev", on), nil, []string{stays}},
		"label changed":           {named("dev", off), named("dev", on), nil, []string{stays}},
		"by who may":              {named("dev", nil), named("dev", on), []string{"release"}, nil},
		"by who may other things": {named("dev", nil), named("dev", on), []string{"update", "create"}, []string{stays}},
		"label stays":             {named("dev", map[string]string{"hallmark.dev/enforce": "true"}), named("dev", on), nil, nil},
		"label added":             {named("dev", on), named("dev", nil), nil, nil},
		"never had it":            {named("dev", nil), named("dev", off), nil, nil},
		"new":                     {named("dev", nil), nil, nil, nil},
		"new, to have it":         {named("coder-eve", nil), nil, nil, []string{wanted}},
		"new, with it":            {named("coder-eve", on), nil, nil, nil},
		"new, with another value": {named("coder-eve", off), nil, nil, []string{wanted}},
		"new, by who may":         {named("coder-eve", nil), nil, []string{"release"}, nil},
		"new, like it":            {named("xcoder-eve", nil), nil, nil, nil},
		"old, without it":         {named("coder-eve", off), named("coder-eve", nil), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			i := install(t, enforceValues)
			r := request{operation: admission.Create, resource: "namespaces", object: tc.object, namespace: tc.object.Name, user: "eve", may: tc.may}
			if tc.old != nil {
				r.operation, r.old = admission.Update, tc.old
			}
			got := refusals(t, get[*admissionv1.ValidatingAdmissionPolicy](i, "hallmark-namespaces"), r)
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	for values, want := range map[string]admissionv1.ValidationAction{``: admissionv1.Audit, `{config: {mode: enforce}}`: admissionv1.Deny} {
		if got := get[*admissionv1.ValidatingAdmissionPolicyBinding](install(t, values), "hallmark-namespaces").Spec.ValidationActions; got[0] != want {
			t.Errorf("%s: %v, want %s", values, got, want)
		}
	}
	if install(t, `{scope: {mode: all}}`).names()["ValidatingAdmissionPolicy/hallmark-namespaces"] {
		t.Error("it guards a label that means nothing")
	}
}
