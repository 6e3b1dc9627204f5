package attack

import (
	"fmt"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// TestExemptions: scope, expiry, and what is told and counted of them.
func TestExemptions(t *testing.T) {
	day := func(days int) string { return time.Now().UTC().AddDate(0, 0, days).Format(time.DateOnly) }
	w := newWorld(t, registrytest.Config{}, func(text string) string {
		host := strings.SplitN(strings.SplitN(text, `host: "`, 2)[1], `"`, 2)[0]
		entry := func(name, namespaces, image, rules, expires string) string {
			return fmt.Sprintf("  - {name: %s, namespaces: [%s], images: [%q], rules: [%s], reason: r, owner: somebody, expires: %s}\n",
				name, namespaces, host+"/"+image, rules, expires)
		}
		return text + "\nexemptions:\n" +
			entry("everything", `"research-*"`, "**", "user", day(300)) +
			entry("root-in-research", "research-a", "golden/root", "user", day(300)) +
			entry("soon", "team", "golden/nouser", "user", day(3)) +
			entry("over", "team", "golden/named", "user", day(-3))
	})
	admit := func(namespace, name string) servertest.Admission {
		pod := w.pod(image(w.Ref("golden/" + name)))
		pod["metadata"].(object)["namespace"] = namespace
		return w.admit(t, pod)
	}
	for title, c := range map[string]struct {
		namespace, image string
		want             want
		warning          string
	}{
		"in another namespace":       {"team", "root:v1.0.0", denied("user: runs as root"), ""},
		"the narrowest is named":     {"research-a", "root:v1.0.0", allowed(), ""},
		"a wide one":                 {"research-b", "root:v1.0.0", allowed(), ""},
		"one that ends soon":         {"team", "nouser:v1.0.0", allowed(), "exemption soon ends on " + day(3) + "; its owner is somebody"},
		"one that has ended":         {"team", "named:v1.0.0", denied("user: runs as app", "(exemption over ended on "+day(-3)+")"), ""},
		"another rule of that image": {"research-a", "ws:v9.9.9", denied("signature"), ""},
	} {
		t.Run(title, func(t *testing.T) {
			got := admit(c.namespace, c.image)
			c.want.check(t, got)
			if c.warning != "" && !strings.Contains(strings.Join(got.Warnings, "\n"), c.warning) {
				t.Errorf("warnings %q, want %q", got.Warnings, c.warning)
			}
		})
	}
	metrics := w.metrics(t)
	for _, want := range []string{
		`hallmark_exemptions_total{exemption="root-in-research"}`, `hallmark_exemptions_total{exemption="everything"}`,
		`hallmark_exemption_expiry_timestamp_seconds{exemption="over"}`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if !strings.Contains(w.Log(), `"exemption":["root-in-research"]`) {
		t.Error("the log does not say which exemption was used")
	}
}

// TestBreakGlass: whoever is in the group has everything admitted, even what cannot be looked at; nobody else, and nothing
// in the object, does.
func TestBreakGlass(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, func(text string) string {
		return text + "\nbreakGlass: {groups: [\"hallmark:break-glass\"]}\n"
	})
	send := func(groups ...string) servertest.Admission {
		return w.admitObject(t, servertest.Object{
			User: authenticationv1.UserInfo{Username: "jane", Groups: groups},
			JSON: encode(t, w.pod(image("docker.io/evil/image:latest"))),
		})
	}
	denied("registry: docker.io is not an internal registry").check(t, send("developers"))
	denied("registry").check(t, send("hallmark:break-glass-not", "HALLMARK:BREAK-GLASS"))
	marked := w.pod(image("docker.io/evil/image:latest"))
	marks := object{"hallmark.dev/break-glass": "true", "break-glass": "incident 4711"}
	marked["metadata"] = object{"name": "ws", "namespace": "team", "annotations": marks, "labels": marks}
	denied("registry").check(t, w.admit(t, marked))
	got := send("developers", "hallmark:break-glass")
	allowed().check(t, got)
	if !strings.Contains(strings.Join(got.Warnings, "\n"), "admitted by break-glass") {
		t.Errorf("warnings %q", got.Warnings)
	}
	if metrics := w.metrics(t); !strings.Contains(metrics, `hallmark_exemptions_total{exemption="break-glass"}`) {
		t.Error("the metrics do not count it")
	}
	if !strings.Contains(w.Log(), `"exemption":["break-glass"]`) || !strings.Contains(w.Log(), `"mode":"audit"`) {
		t.Error("the log does not tell it")
	}
	if err := w.Registry.Close(); err != nil {
		t.Fatal(err)
	}
	allowed().check(t, w.admitObject(t, servertest.Object{
		User: authenticationv1.UserInfo{Username: "jane", Groups: []string{"hallmark:break-glass"}},
		JSON: encode(t, w.pod(image(w.Ref("golden/ws:v1.0.1")))),
	}))
}
