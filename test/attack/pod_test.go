package attack

import (
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// template puts a pod spec into a workload, with the template at the kind's place.
func template(apiVersion, kind string, spec object) object {
	pod := object{"metadata": object{"labels": object{"app": "x"}}, "spec": spec}
	o := object{"apiVersion": apiVersion, "kind": kind, "metadata": object{"name": "w", "namespace": "team"}}
	switch kind {
	case "CronJob":
		o["spec"] = object{"jobTemplate": object{"spec": object{"template": pod}}}
	case "PodTemplate":
		o["template"] = pod
	default:
		o["spec"] = object{"template": pod}
	}
	return o
}

// workloads are all kinds that have a pod template.
func workloads() [][2]string {
	return [][2]string{
		{"apps/v1", "Deployment"}, {"apps/v1", "StatefulSet"}, {"apps/v1", "DaemonSet"}, {"apps/v1", "ReplicaSet"},
		{"v1", "ReplicationController"}, {"batch/v1", "Job"}, {"batch/v1", "CronJob"}, {"v1", "PodTemplate"},
	}
}

// TestEveryPlaceOfAnImage: a bad image is found wherever a pod can name one.
func TestEveryPlaceOfAnImage(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	const bad = "evil.example/x:v1.0.0"
	env := func(name, value string) []any { return []any{object{"name": name, "value": value}} }
	whole := func(prefix string) []any { return []any{object{"prefix": prefix, "configMapRef": object{"name": "c"}}} }
	dev := func(set ...func(object)) []any {
		c := w.container("dev", "golden/coder:v1.0.0")
		c["securityContext"] = object{"runAsUser": 1000}
		for _, f := range set {
			f(c)
		}
		return []any{c}
	}
	places := map[string]struct {
		spec  func(object)
		where string
	}{
		"init container":      {with("initContainers", []any{foreign("setup", bad)}), "initContainers[setup]: registry: evil.example"},
		"second container":    {with("containers", []any{w.container("dev", "golden/ws:v1.0.0"), foreign("side", bad)}), "containers[side]: "},
		"ephemeral container": {with("ephemeralContainers", []any{foreign("debug", bad)}), "ephemeralContainers[debug]: "},
		"image volume":        {with("volumes", []any{object{"name": "data", "image": object{"reference": bad}}}), "volumes[data]: "},
		"env of envbox": {with("containers", dev(with("env", env("CODER_INNER_IMAGE", bad)))),
			"containers[dev]: env CODER_INNER_IMAGE evil.example/x:v1.0.0: registry: "},
		"env of envbuilder": {with("containers", dev(with("env", env("ENVBUILDER_FALLBACK_IMAGE", bad)))),
			"env ENVBUILDER_FALLBACK_IMAGE"},
		"argument of envbox, joined": {with("containers", dev(with("command", []any{"/envbox", "docker", "--image=" + bad}))),
			"containers[dev]: arg --image "},
		"argument of envbox, apart": {with("containers", dev(with("command", []any{"/envbox"}), with("args", []any{"docker", "--image", bad}))),
			"containers[dev]: arg --image "},
		"argument of envbuilder": {with("containers", dev(with("command", []any{"/.envbuilder/bin/envbuilder"}), with("args", []any{"--fallback-image=" + bad}))),
			"containers[dev]: arg --fallback-image "},
		"env from a secret": {with("containers", dev(with("env", []any{object{"name": "CODER_INNER_IMAGE",
			"valueFrom": object{"secretKeyRef": object{"name": "s", "key": "k"}}}}))), "comes from a Secret or ConfigMap"},
		"env from a whole ConfigMap": {with("containers", dev(with("command", []any{"/envbox", "docker"}), with("envFrom", whole("")))),
			"containers[dev]: env CODER_INNER_IMAGE: reference: the image comes from a Secret or ConfigMap"},
		"env from a whole ConfigMap, by its prefix": {with("containers", dev(with("envFrom", whole("CODER_INNER_")))), "env CODER_INNER_IMAGE"},
		"env of envbuilder from a whole ConfigMap":  {with("containers", dev(with("command", []any{"/envbuilder"}), with("envFrom", whole("ENV")))), "env ENVBUILDER_FALLBACK_IMAGE"},
		"argument of envbox, cut between command and args": {with("containers", dev(with("command", []any{"/envbox", "docker", "--image"}), with("args", []any{bad}))),
			"containers[dev]: arg --image "},
		"argument of envbuilder that looks like envbox": {with("containers", dev(with("command", []any{"/envbuilder", "--fallback-image=" + bad}), with("env", env("CODER_INNER_HOSTNAME", "x")))),
			"containers[dev]: arg --fallback-image "},
		"argument from a variable": {with("containers", dev(with("command", []any{"/envbox", "docker", "$(MORE)"}), with("env", env("MORE", "--image="+bad)))),
			"arg --image: reference: an image or a user may be hidden in this argument"},
		"argument from a variable in part": {with("containers", dev(with("command", []any{"/envbox", "docker", "--im$(MORE)"}), with("env", env("MORE", "age="+bad)))), "arg --image"},
		"argument in a script": {with("containers", dev(with("image", w.Ref("golden/envbox:v1.0.0")), with("command", []any{"sh", "-c", "exec /envbox docker --image " + bad}))),
			"arg --image"},
		"env in a script": {with("containers", dev(with("image", w.Ref("golden/envbox:v1.0.0")), with("command", []any{"sh", "-c", "CODER_INNER_IMAGE=" + bad + " /envbox docker"}))),
			"arg --image"},
		"env set twice": {with("containers", dev(with("env", []any{
			object{"name": "CODER_INNER_IMAGE", "value": w.Ref("golden/coder:v1.0.0")}, object{"name": "CODER_INNER_IMAGE", "value": bad}}))),
			"evil.example"},
	}
	for title, place := range places {
		t.Run(title, func(t *testing.T) {
			denied("evil.example").or(place.where).check(t, w.admit(t, w.pod(place.spec)))
			for _, kind := range workloads() {
				if strings.Contains(title, "ephemeral") {
					continue // no template has ephemeral containers
				}
				spec := object{"containers": []any{w.container("dev", "golden/ws:v1.0.0")}}
				place.spec(spec)
				o := template(kind[0], kind[1], spec)
				denied(place.where).check(t, w.admit(t, o))
			}
		})
	}
}

// or is for messages in which the place says more than the registry.
func (want want) or(part string) want {
	want.says = []string{part}
	return want
}

// TestGoodPods: what should be admitted is, pinned in every place and nowhere else.
func TestGoodPods(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	inner := object{"name": "CODER_INNER_IMAGE", "value": w.Ref("golden/coder:v1.0.0")}
	box := w.container("box", "golden/envbox:v1.0.0")
	box["env"] = []any{object{"name": "CODER_AGENT_TOKEN", "value": "s3cret"}, inner}
	box["args"] = []any{"docker", "--image=" + w.Ref("golden/coder:v1.0.0")}
	good := w.pod(
		with("initContainers", []any{w.container("setup", "golden/tools:v1.0.0")}),
		with("containers", []any{w.container("dev", "golden/ws:v1.0.0"), box}),
		with("volumes", []any{object{"name": "data", "image": object{"reference": w.Ref("golden/data:v1.0.0")}}}),
	)
	a := w.admit(t, good)
	allowed().check(t, a)
	pinned := map[string]string{}
	for _, r := range a.Replaced {
		pinned[r.Pointer] = r.Value
	}
	for pointer, value := range map[string]string{
		"/spec/initContainers/0/image":    w.Pinned("golden/tools:v1.0.0"),
		"/spec/containers/0/image":        w.Pinned("golden/ws:v1.0.0"),
		"/spec/containers/1/image":        w.Pinned("golden/envbox:v1.0.0"),
		"/spec/containers/1/env/1/value":  w.Pinned("golden/coder:v1.0.0"),
		"/spec/containers/1/args/1":       "--image=" + w.Pinned("golden/coder:v1.0.0"),
		"/spec/volumes/0/image/reference": w.Pinned("golden/data:v1.0.0"),
	} {
		if pinned[pointer] != value {
			t.Errorf("%s is %q, want %q", pointer, pinned[pointer], value)
		}
		delete(pinned, pointer)
	}
	if len(pinned) > 0 {
		t.Errorf("patched besides: %v", pinned)
	}
	if strings.Contains(w.Log(), "s3cret") || strings.Contains(string(a.Patch), "s3cret") {
		t.Error("an env value reached log or patch")
	}

	t.Run("again", func(t *testing.T) {
		again := w.admitObject(t, servertest.Object{JSON: a.Object})
		allowed().check(t, again)
		if again.Patch != nil {
			t.Errorf("the second patch is not empty: %s", again.Patch)
		}
	})
	t.Run("index of two platforms", func(t *testing.T) {
		allowed().check(t, w.admit(t, w.pod(image(w.Ref("golden/multi:v1.0.0")))))
	})
	for _, kind := range workloads() {
		t.Run(kind[1], func(t *testing.T) {
			a := w.admit(t, template(kind[0], kind[1], good["spec"].(object)))
			allowed().check(t, a)
			if a.Patch != nil {
				t.Errorf("a workload was mutated: %s", a.Patch)
			}
		})
	}
	t.Run("generateName only", func(t *testing.T) {
		p := w.pod()
		p["metadata"] = object{"generateName": "ws-", "namespace": "team"}
		allowed().check(t, w.admit(t, p))
	})
	t.Run("empty image volume in a template", func(t *testing.T) {
		spec := w.pod(with("volumes", []any{object{"name": "data", "image": object{"reference": ""}}}))["spec"].(object)
		allowed().check(t, w.admit(t, template("apps/v1", "Deployment", spec)))
	})
	t.Run("sidecar injected before the first container", func(t *testing.T) {
		p := w.pod(with("containers", []any{w.container("injected", "golden/tools:v1.0.0"), foreign("dev", w.Pinned("golden/ws:v1.0.0"))}))
		a := w.admit(t, p)
		allowed().check(t, a)
		if len(a.Replaced) != 1 || a.Replaced[0].Pointer != "/spec/containers/0/image" {
			t.Errorf("patched %v, want the injected container alone", a.Replaced)
		}
	})
	t.Run("labels of a workspace change nothing", func(t *testing.T) {
		p := w.pod(image("evil.example/x:v1.0.0"))
		p["metadata"] = object{"name": "x", "namespace": "team", "labels": object{"com.coder.resource": "true", "hallmark.dev/exempt": "true"}}
		denied("evil.example").check(t, w.admit(t, p))
	})
}

// TestSeveralBadImages: every problem is named at once, and a good or exempt image does not hide a bad one.
func TestSeveralBadImages(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	p := w.pod(with("containers", []any{
		w.container("a", "golden/ws:v1.0.0"), w.container("b", "golden/tools:v1.0.0"), w.container("c", "golden/ws:v1.0.1"),
		w.container("d", "golden/ws:v9.9.9"), foreign("e", "evil.example/x"),
	}))
	denied("containers[d]: signature:", "containers[e]: registry:", "and 1 more image").check(t, w.admit(t, p))

	many := make([]any, 0, 40)
	for i := range 40 {
		many = append(many, foreign(fmt.Sprintf("c%02d", i), fmt.Sprintf("evil.example/very/long/name/of/an/image/%d:latest", i)))
	}
	denied("and 39 more images", " more\n").check(t, w.admit(t, w.pod(with("containers", many))))
	first := w.admit(t, w.pod(with("containers", many))).Message
	second := w.admit(t, w.pod(with("containers", many))).Message
	if strip(first) != strip(second) {
		t.Errorf("the same pod got two messages:\n%s\n%s", first, second)
	}
	t.Run("more images than any workspace has", func(t *testing.T) {
		for len(many) < 1000 {
			many = append(many, foreign(fmt.Sprint("c", len(many)), "evil.example/x"))
		}
		denied("names more than 256 images").check(t, w.admit(t, w.pod(with("containers", many))))
	})
}

// strip removes the decision's id, which differs.
func strip(message string) string {
	before, _, _ := strings.Cut(message, " · decision ")
	return before
}

// TestMalformedPods: what cannot be read is denied with its place, and never panics.
func TestMalformedPods(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	good := w.Ref("golden/ws:v1.0.0")
	for title, c := range map[string]struct{ json, want string }{
		"spec null":            {`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":null}`, "/spec/containers"},
		"no spec":              {`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}`, "/spec/containers"},
		"containers null":      {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":null}}`, "/spec/containers"},
		"container null":       {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[null]}}`, "it is empty"},
		"containers an object": {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":{}}}`, "/spec/containers: want an array, not an object"},
		"image null":           {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"c","image":null}]}}`, "it is empty"},
		"image a number":       {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"c","image":7}]}}`, "/spec/containers/0/image: want a string, not a number"},
		"security context a list": {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"c","image":"` + good + `","securityContext":[]}]}}`,
			"/spec/containers/0/securityContext: want an object"},
		"uid with a fraction": {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"c","image":"` + good + `","securityContext":{"runAsUser":0.5}}]}}`,
			"/spec/containers/0/securityContext/runAsUser"},
		"image in other case besides": {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"c","image":"` + good + `","Image":"evil.example/x"}]}}`,
			"differs from a known one only in upper and lower case"},
		"containers in other case": {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"c","image":"` + good + `"}],"Containers":[]}}`,
			"differs from a known one only in upper and lower case"},
	} {
		t.Run(title, func(t *testing.T) {
			denied(c.want).check(t, w.admitObject(t, servertest.Object{JSON: []byte(c.json)}))
		})
	}
	t.Run("null security context", func(t *testing.T) {
		json := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"team"},"spec":{"securityContext":null,"containers":[{"name":"c","image":"` +
			good + `","securityContext":null}]}}`
		allowed().check(t, w.admitObject(t, servertest.Object{JSON: []byte(json)}))
	})
	t.Run("fields that are not known", func(t *testing.T) {
		p := w.pod(with("sparkles", object{"image": object{"reference": 7}}))
		allowed().check(t, w.admit(t, p))
	})
	t.Run("escaped name of a field", func(t *testing.T) {
		json := `{"apiVersion":"v1","kind":"Pod","spec":{"cont\u0061iners":[{"name":"c","im\u0061ge":"evil.example/x:v1.0.0"}]}}`
		denied("evil.example").check(t, w.admitObject(t, servertest.Object{JSON: []byte(json)}))
	})
}

// TestForgedOrigins: neither annotation nor owner exempts a pod; only a kubelet may create a mirror pod.
func TestForgedOrigins(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	mirror := w.pod(image("evil.example/x:v1.0.0"))
	mirror["metadata"] = object{"name": "x", "namespace": "team", "annotations": object{"kubernetes.io/config.mirror": "abc"}}
	mirror["spec"].(object)["nodeName"] = "n1"
	owned := w.pod(image("evil.example/x:v1.0.0"))
	owned["metadata"] = object{"name": "x", "namespace": "team", "ownerReferences": []any{
		object{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "y", "controller": true}}}
	forged := w.pod(image(w.Ref("golden/ws:v1.0.0") + "@sha256:" + strings.Repeat("0", 64)))
	forged["metadata"] = object{"name": "x", "namespace": "team", "annotations": object{
		"hallmark.dev/images": `{"containers[dev]":{"digest":"sha256:` + strings.Repeat("0", 64) + `"}}`}}
	user := authenticationv1.UserInfo{Username: "mallory", Groups: []string{"system:authenticated"}}
	for title, o := range map[string]object{"mirror": mirror, "owner": owned, "our own annotation": forged} {
		t.Run(title, func(t *testing.T) {
			want{}.check(t, w.admitObject(t, servertest.Object{JSON: encode(t, o), User: user}))
		})
	}
	t.Run("user who calls himself a node", func(t *testing.T) {
		fake := authenticationv1.UserInfo{Username: "system:node:n1", Groups: []string{"system:authenticated"}}
		want{}.check(t, w.admitObject(t, servertest.Object{JSON: encode(t, mirror), User: fake}))
	})
	t.Run("real mirror pod", func(t *testing.T) {
		node := authenticationv1.UserInfo{Username: "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"}}
		a := w.admitObject(t, servertest.Object{JSON: encode(t, mirror), User: node})
		allowed().check(t, a)
		if a.Patch != nil {
			t.Errorf("a mirror pod was mutated: %s", a.Patch)
		}
	})
	t.Run("pod of a node without the annotation", func(t *testing.T) {
		node := authenticationv1.UserInfo{Username: "system:node:n1", Groups: []string{"system:nodes"}}
		want{}.check(t, w.admitObject(t, servertest.Object{JSON: encode(t, w.pod(image("evil.example/x:v1.0.0"))), User: node}))
	})
}

// TestInnerUser: as whom envbox starts its image counts as it would run, wherever it is said.
func TestInnerUser(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	env := func(name, value string) object { return object{"name": name, "value": value} }
	image := env("CODER_INNER_IMAGE", w.Ref("golden/ws:v1.0.0"))
	coder := env("CODER_INNER_IMAGE", w.Ref("golden/coder:v1.0.0"))
	user := func(value string) object { return env("CODER_INNER_USERNAME", value) }
	whole := func(prefix string) []any { return []any{object{"prefix": prefix, "secretRef": object{"name": "s"}}} }
	for title, c := range map[string]struct {
		env, envFrom, args []any
		want               want
	}{
		"of the image":            {env: []any{image}, want: allowed()},
		"by variable":             {env: []any{image, user("1000")}, want: allowed()},
		"root by variable":        {env: []any{image, user("root")}, want: denied("user: runs as root")},
		"root by a later one":     {env: []any{user("1000"), image, user("root")}, want: denied("user: runs as root")},
		"root by flag":            {env: []any{image, user("1000")}, args: []any{"docker", "--username=root"}, want: denied("user: runs as root")},
		"root by flag, apart":     {env: []any{image}, args: []any{"docker", "--username", "0"}, want: denied("user: runs as ")},
		"root by a later flag":    {env: []any{image}, args: []any{"docker", "--username=1000", "--username=root"}, want: denied("user: runs as root")},
		"by flag over root":       {env: []any{image, user("root")}, args: []any{"docker", "--username=1000"}, want: allowed()},
		"by a flag in a variable": {env: []any{env("F", "--username=root"), image}, args: []any{"docker", "$(F)"}, want: denied("may be hidden in this argument")},
		"by a variable":           {env: []any{env("F", "root"), image}, args: []any{"docker", "--username=$(F)"}, want: denied("user: runs as ")},
		"name of the catalogue":   {env: []any{coder, user("coder")}, want: allowed()},
		"unseen, whatever the catalogue says": {env: []any{coder, object{"name": "CODER_INNER_USERNAME",
			"valueFrom": object{"secretKeyRef": object{"name": "s", "key": "k"}}}}, want: denied("user: runs as ")},
		"variable, whatever the catalogue says": {env: []any{coder, env("F", "root"), user("$(F)")}, want: denied("user: runs as ")},
		"from a whole Secret":                   {env: []any{image}, envFrom: whole(""), want: denied("user: runs as ")},
		"over a whole Secret":                   {env: []any{image, user("1000")}, envFrom: whole(""), want: allowed()},
		"beside a whole Secret":                 {env: []any{image}, envFrom: whole("GIT_"), want: allowed()},
		"image over one":                        {env: []any{user("1000"), image}, envFrom: whole("CODER_"), want: allowed()},
	} {
		t.Run(title, func(t *testing.T) {
			box := w.container("box", "golden/envbox:v1.0.0")
			box["env"], box["args"] = c.env, c.args
			if c.envFrom != nil {
				box["envFrom"] = c.envFrom
			}
			c.want.check(t, w.admit(t, w.pod(with("containers", []any{box}))))
		})
	}
}
