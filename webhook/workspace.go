package webhook

import "slices"

// A Workspace is what could be recognised of the workspace that a pod belongs to. It is for people, recordings and
// rules that want to name an owner; being recognised never exempts a pod, nor does not being recognised.
type Workspace struct {
	Product, Owner, Name, Template string
}

// productLabels: which labels or annotations tell owner and name. The names are those that the products' controllers
// and templates set on their pods.
var productLabels = [...]struct {
	product, owner, name, template string
}{
	{"coder", "com.coder.user.username", "com.coder.workspace.name", "com.coder.template.name"},
	{"che", "controller.devfile.io/creator", "controller.devfile.io/devworkspace_name", ""},
	{"jupyterhub", "hub.jupyter.org/username", "hub.jupyter.org/servername", ""},
	{"kubeflow", "", "notebook-name", ""},
	{"kubeflow", "", "notebooks.kubeflow.org/workspace-name", "notebooks.kubeflow.org/workspace-kind"},
	{"jupyter-k8s", "", "workspace.jupyter.org/workspace-name", ""},
	{"devpod", "", "devpod.sh/workspace-uid", ""},
	{"gitpod", "owner", "gitpod.io/instanceID", ""},
	{"okteto", "", "dev.okteto.com/deployment", ""},
	{"okteto", "", "interactive.dev.okteto.com", ""},
}

// keptLabels are the labels and annotations that a decision looks at; decoding drops the others.
var keptLabels = labelNames()

func labelNames() []string {
	names := []string{mirrorAnnotation, ImagesAnnotation}
	for _, p := range productLabels {
		names = append(names, p.owner, p.name, p.template)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}

// workspaceOf recognises a workspace by labels and annotations of object or template, then by a Coder agent.
func workspaceOf(o *object) Workspace {
	value := func(key string) string {
		return firstOf(o.template.labels[key], o.meta.labels[key], o.template.annotations[key], o.meta.annotations[key])
	}
	has := func(key string) bool {
		_, a := o.template.labels[key]
		_, b := o.meta.labels[key]
		_, c := o.template.annotations[key]
		return key != "" && (a || b || c)
	}
	for _, p := range productLabels {
		if has(p.name) || p.product != "gitpod" && has(p.owner) {
			return Workspace{Product: p.product, Owner: value(p.owner), Name: value(p.name), Template: value(p.template)}
		}
	}
	if slices.ContainsFunc(o.spec.containers, hasAgent) {
		return Workspace{Product: "coder", Name: o.meta.name}
	}
	return Workspace{}
}
