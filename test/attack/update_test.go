package attack

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// meta replaces the metadata of an object.
func meta(o, metadata object) object {
	o = maps.Clone(o)
	o["metadata"] = metadata
	return o
}

// update sends a change through both halves.
func (w world) update(t *testing.T, subResource string, old, changed any) servertest.Admission {
	t.Helper()
	return w.admitObject(t, servertest.Object{
		Operation: "UPDATE", SubResource: subResource, JSON: encode(t, changed), Old: encode(t, old),
	})
}

// TestUpdatesWithoutNewImages: what starts nothing new passes, whatever runs there already, and asks nobody.
func TestUpdatesWithoutNewImages(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	bad := w.pod(image("evil.example/x:latest"))
	terminating := object{"name": "ws", "namespace": "team", "deletionTimestamp": "2026-11-21T00:00:00Z", "finalizers": []string{"a", "b"}}
	if err := w.Registry.Close(); err != nil {
		t.Fatal(err)
	}
	for title, c := range map[string]struct {
		subResource  string
		old, changed object
	}{
		"label on a bad pod": {"", bad, meta(bad, object{"name": "ws", "namespace": "team", "labels": object{"a": "b"}})},
		"finalizer of a terminating pod": {"", meta(bad, terminating), meta(bad, object{"name": "ws", "namespace": "team",
			"deletionTimestamp": "2026-11-21T00:00:00Z", "finalizers": []string{"a"}})},
		"toleration": {"", bad, w.pod(image("evil.example/x:latest"), with("tolerations", []any{object{"operator": "Exists"}}))},
		"replicas of a bad deployment": {"", template("apps/v1", "Deployment", bad["spec"].(object)),
			meta(template("apps/v1", "Deployment", bad["spec"].(object)), object{"name": "w", "namespace": "team", "generation": 2})},
		"status":            {"status", bad, w.pod(image("evil.example/y:latest"))},
		"resize":            {"resize", bad, w.pod(image("evil.example/x:latest"), with("resources", object{}))},
		"unpinned and good": {"", w.pod(), meta(w.pod(), object{"name": "ws", "namespace": "team", "labels": object{"a": "b"}})},
	} {
		t.Run(title, func(t *testing.T) {
			w.Registry.Reset()
			a := w.update(t, c.subResource, c.old, c.changed)
			allowed().check(t, a)
			if a.Patch != nil {
				t.Errorf("patched: %s", a.Patch)
			}
			w.noRequests(t)
		})
	}
	t.Run("delete", func(t *testing.T) {
		allowed().check(t, w.admitObject(t, servertest.Object{Operation: "DELETE", Old: encode(t, bad)}))
	})
	t.Run("connect", func(t *testing.T) {
		options := object{"apiVersion": "v1", "kind": "PodExecOptions", "command": []string{"sh"}}
		allowed().check(t, w.admitObject(t, servertest.Object{Operation: "CONNECT", SubResource: "exec", JSON: encode(t, options)}))
	})
}

// TestUpdatesWithNewImages: what starts something new is judged, by place and not by having been seen before.
func TestUpdatesWithNewImages(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	good, evil := w.Pinned("golden/ws:v1.0.0"), "evil.example/x:v1.0.0"
	two := func(a, b string) object {
		return w.pod(with("containers", []any{foreign("a", a), foreign("b", b)}))
	}
	ephemeral := func(images ...string) object {
		var list []any
		for i, image := range images {
			list = append(list, foreign("debug-"+string(rune('a'+i)), image))
		}
		return w.pod(image(good), with("ephemeralContainers", list))
	}
	security := func(uid int) object {
		return template("apps/v1", "Deployment", w.pod(with("securityContext", object{"runAsUser": uid}))["spec"].(object))
	}
	for title, c := range map[string]struct {
		subResource  string
		old, changed any
		want         want
	}{
		"image to a tag":                    {"", w.pod(image(good)), w.pod(image(w.Ref("golden/ws:v1.0.1"))), allowed()},
		"image to a bad one":                {"", w.pod(image(good)), w.pod(image(evil)), denied("evil.example")},
		"image of a terminating pod":        {"", meta(w.pod(image(good)), object{"name": "ws", "deletionTimestamp": "2026-11-21T00:00:00Z"}), meta(w.pod(image(evil)), object{"name": "ws", "deletionTimestamp": "2026-11-21T00:00:00Z"}), denied("evil.example")},
		"swap between containers":           {"", two(evil, good), two(good, evil), denied("containers[b]: registry:").and("containers[a]")},
		"image moves to a new name":         {"", w.pod(image(evil)), w.pod(with("containers", []any{foreign("other", evil)})), denied("containers[other]")},
		"no old object":                     {"", nil, w.pod(image(evil)), denied("evil.example")},
		"old object of another shape":       {"", object{"apiVersion": "v1", "kind": "Pod", "spec": object{"containers": 7}}, w.pod(image(good)), denied("malformed")},
		"bad ephemeral container":           {"ephemeralcontainers", ephemeral(), ephemeral(evil), denied("ephemeralContainers[debug-a]: registry:")},
		"good one beside an old bad one":    {"ephemeralcontainers", ephemeral(evil), ephemeral(evil, w.Ref("golden/tools:v1.0.0")), allowed()},
		"unsigned ephemeral container":      {"ephemeralcontainers", ephemeral(), ephemeral(w.Ref("golden/ws:v9.9.9")), denied("ephemeralContainers[debug-a]: signature:")},
		"template becomes root":             {"", security(1000), security(0), denied("user: runs as root")},
		"template stays as it is":           {"", security(0), security(0), allowed()},
		"digest replaced by another":        {"", w.pod(image(good)), w.pod(image(w.Ref("golden/ws:v1.0.0@" + w.Digests["golden/ws:v9.9.9"]))), denied("")},
		"tag of a pinned pod is sent again": {"", w.pod(image(good)), w.pod(), allowed()},
	} {
		t.Run(title, func(t *testing.T) {
			o := servertest.Object{Operation: "UPDATE", SubResource: c.subResource, JSON: encode(t, c.changed)}
			if c.old != nil {
				o.Old = encode(t, c.old)
			}
			a := w.admitObject(t, o)
			c.want.check(t, a)
			if title == "tag of a pinned pod is sent again" && !strings.Contains(string(a.Object), good) {
				t.Errorf("the same tag became another digest: %s", a.Object)
			}
		})
	}
	t.Run("root ephemeral container", func(t *testing.T) {
		changed := ephemeral(w.Ref("golden/tools:v1.0.0"))
		changed["spec"].(object)["ephemeralContainers"].([]any)[0].(object)["securityContext"] = object{"runAsUser": 0, "privileged": true}
		denied("ephemeralContainers[debug-a]: user: runs as root").check(t, w.update(t, "ephemeralcontainers", ephemeral(), changed))
	})
}

// and adds what the message may not say.
func (want want) and(without string) want {
	want.without = append(want.without, without)
	return want
}

// TestTagsAndDigests: a digest decides what runs, and a tag beside it must be true.
func TestTagsAndDigests(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	signed, unsigned := w.Digests["golden/ws:v1.0.0"], w.Digests["golden/ws:v9.9.9"]
	for title, c := range map[string]struct {
		image string
		want  want
	}{
		"good tag":                                {w.Ref("golden/ws:v1.0.0"), allowed()},
		"good tag with its digest":                {w.Pinned("golden/ws:v1.0.0"), allowed()},
		"good tag with an unsigned digest":        {w.Ref("golden/ws:v1.0.0@" + unsigned), denied("signature: not signed by ci", "tag: ", unsigned[:19])},
		"decorative tag":                          {w.Ref("golden/ws:v1.0.0@" + w.Digests["golden/ws:v1.0.1"]), denied("tag: ", "in the registry")},
		"rolling tag":                             {w.Ref("golden/ws:latest"), denied(`tag: "latest" names whatever is newest; allowed here: exact`)},
		"rolling tag behind a digest":             {w.Ref("golden/ws:latest@" + signed), denied(`tag: "latest"`)},
		"no tag":                                  {w.Ref("golden/ws"), denied("the tag is missing, which means latest")},
		"digest alone":                            {w.Ref("golden/ws@" + signed), denied("tag: ", "names no tag")},
		"digest alone, where that is allowed":     {w.Ref("golden/old@" + w.Digests["golden/old:v1.0.0"]), allowed()},
		"signature as an image":                   {w.Ref("golden/ws:" + strings.Replace(signed, ":", "-", 1) + ".sig"), denied("tag: ")},
		"tag that does not exist":                 {w.Ref("golden/ws:v4.0.4"), denied("does not exist", "v4.0.4")},
		"digest that does not exist":              {w.Ref("golden/old@sha256:" + strings.Repeat("0", 64)), denied("does not exist")},
		"digest of another repository":            {w.Ref("golden/old@" + signed), denied("does not exist")},
		"image of nobody's":                       {w.Ref("golden/ws:v9.9.9"), denied("signature: not signed by ci (no signature found)")},
		"repository that is not in the catalogue": {w.Ref("sandbox/evil:v1.0.0"), denied("golden: sandbox/evil is not a golden image")},
	} {
		t.Run(title, func(t *testing.T) { c.want.check(t, w.admit(t, w.pod(image(c.image)))) })
	}
	t.Run("validating half alone", func(t *testing.T) {
		response, err := w.Client.Review(t.Context(), "/validate", servertest.Object{JSON: encode(t, w.pod())})
		if err != nil {
			t.Fatal(err)
		}
		if response.Allowed || response.Patch != nil || !strings.Contains(response.Result.Message, "must be pinned by digest") {
			t.Errorf("an unpinned pod got %+v", response)
		}
	})
	t.Run("dry run", func(t *testing.T) {
		allowed().check(t, w.admitObject(t, servertest.Object{JSON: encode(t, w.pod()), DryRun: true}))
		denied("signature").check(t, w.admitObject(t, servertest.Object{JSON: encode(t, w.pod(image(w.Ref("golden/ws:v9.9.9")))), DryRun: true}))
	})
}

// TestTagMoves: a tag that moves between the two halves, or after it was proved, never lets another digest in.
func TestTagMoves(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, func(text string) string { return text + "cache: {tagTTL: 1ns}\n" })
	response, err := w.Client.Review(t.Context(), "/mutate", servertest.Object{JSON: encode(t, w.pod())})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(response.Patch), w.Digests["golden/ws:v1.0.0"]) {
		t.Fatalf("not pinned: %s", response.Patch)
	}
	if err := w.Registry.Tag(t.Context(), "golden/ws", "v1.0.0", w.Digests["golden/ws:v9.9.9"]); err != nil {
		t.Fatal(err)
	}
	t.Run("pinned before the move", func(t *testing.T) {
		a, err := w.Client.Review(t.Context(), "/validate", servertest.Object{JSON: encode(t, w.pod(image(w.Pinned("golden/ws:v1.0.0"))))})
		if err != nil {
			t.Fatal(err)
		}
		// The digest is signed, but the tag no longer names it and bare digests are not allowed.
		if a.Allowed || !strings.Contains(a.Result.Message, "tag: ") {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("new pod after the move", func(t *testing.T) {
		denied("signature: not signed by ci").check(t, w.admit(t, w.pod()))
	})
}

// TestProtocol: what is no review gets a 4xx that says why, and the process lives.
func TestProtocol(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	get := func(url string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		status, _, err := w.Client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	for path, want := range map[string]int{
		"/mutate": 405, "/validate": 405, "/metrics": 404, "/debug/pprof/": 404, "/": 404, "/livez": 200, "/readyz": 200,
	} {
		if status := get(w.URL + path); status != want {
			t.Errorf("GET %s is %d, want %d", path, status, want)
		}
	}
	for path, want := range map[string]int{"/metrics": 200, "/livez": 200, "/readyz": 200, "/validate": 404, "/debug/pprof/": 404} {
		if status := get(w.MetricsURL + path); status != want {
			t.Errorf("GET %s on the metrics port is %d, want %d", path, status, want)
		}
	}
	review := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":`
	for title, c := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"empty":            {"", 400, "the body is empty"},
		"no JSON":          {"hello", 400, "malformed"},
		"truncated":        {review + `{"uid":"1"`, 400, "malformed"},
		"another kind":     {`{"apiVersion":"v1","kind":"Pod"}`, 400, "want kind AdmissionReview"},
		"v1beta1":          {`{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"1"}}`, 400, "admission.k8s.io/v1"},
		"no request":       {`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, 400, "/request: is missing"},
		"request null":     {review + `null}`, 400, "/request: is missing"},
		"no uid":           {review + `{"operation":"CREATE"}}`, 400, "/request/uid: is missing"},
		"no operation":     {review + `{"uid":"1"}}`, 400, "/request/operation"},
		"duplicate keys":   {review + `{"uid":"1","uid":"2","operation":"CREATE"}}`, 400, "duplicate"},
		"duplicate image":  {review + `{"uid":"1","operation":"CREATE","kind":{"kind":"Pod"},"object":{"spec":{"containers":[{"image":"a","image":"b"}]}}}}`, 200, "/spec/containers/0/image: duplicate name"},
		"other case":       {review + `{"uid":"1","operation":"CREATE","Object":{}}}`, 400, "upper and lower case"},
		"two documents":    {review + `{"uid":"1","operation":"CREATE"}}{}`, 400, "more than one JSON value"},
		"deep nesting":     {review + strings.Repeat("[", 100_000), 400, "malformed"},
		"invalid UTF-8":    {review + "{\"uid\":\"\xff\"}}", 400, "malformed"},
		"larger than 7MiB": {review + `{"uid":"` + strings.Repeat("a", 8<<20) + `"}}`, 413, "larger than"},
	} {
		t.Run(title, func(t *testing.T) {
			for _, path := range []string{"/mutate", "/validate"} {
				status, text, err := w.Client.Post(t.Context(), path, []byte(c.body))
				if err != nil {
					t.Fatal(err)
				}
				if status != c.status || !strings.Contains(string(text), c.says) {
					t.Errorf("%s answered %d %q, want %d and %q", path, status, text, c.status, c.says)
				}
			}
		})
	}
	t.Run("two objects of the largest size", func(t *testing.T) {
		big := meta(w.pod(), object{"name": "ws", "namespace": "team", "annotations": object{"a": strings.Repeat("x", 3<<20)}})
		allowed().check(t, w.admitObject(t, servertest.Object{Operation: "UPDATE", JSON: encode(t, big), Old: encode(t, big)}))
	})
	t.Run("kind that nobody should have registered", func(t *testing.T) {
		a := w.admit(t, object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "x"}})
		allowed().check(t, a)
		if len(a.Warnings) == 0 || !strings.Contains(a.Warnings[0], "ConfigMap") {
			t.Errorf("warnings: %q", a.Warnings)
		}
	})
	t.Run("still alive", func(t *testing.T) { allowed().check(t, w.admit(t, w.pod())) })
}

// TestModes: the same bad pod by the mode of its namespace.
func TestModes(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	in := func(namespace string) object {
		return meta(w.pod(image(w.Ref("golden/ws:v9.9.9"))), object{"name": "ws", "namespace": namespace})
	}
	denied("signature").check(t, w.admit(t, in("team")))
	denied("signature").check(t, w.admit(t, in("xaudit-team")))
	warned := w.admit(t, in("warn-team"))
	allowed().check(t, warned)
	if len(warned.Warnings) != 1 || !strings.Contains(warned.Warnings[0], "signature: not signed by ci") ||
		len(warned.Warnings[0]) > 256 || strings.Contains(warned.Warnings[0], "\n") {
		t.Errorf("warnings: %q", warned.Warnings)
	}
	audited := w.admit(t, in("audit-team"))
	allowed().check(t, audited)
	if len(audited.Warnings) != 0 || !strings.Contains(audited.Audit["findings"], `"rule":"signature"`) {
		t.Errorf("warnings %q, audit %q", audited.Warnings, audited.Audit)
	}
}
