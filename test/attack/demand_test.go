package attack

import (
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestDemand: what no rule in force needs of an image is not asked for.
func TestDemand(t *testing.T) {
	const (
		byTag     = "GET manifests v1.0.0"
		config    = "GET blobs config"
		signature = "GET manifests .sig"
		payload   = "GET blobs payload"
	)
	for title, c := range map[string]struct {
		rules string
		user  bool // the pod says which user it is
		want  []string
	}{
		"all rules":                        {"", false, []string{config, payload, signature, byTag}},
		"the pod says its user":            {"", true, []string{payload, signature, byTag}},
		"rule user is off":                 {"rules: {user: off}", false, []string{payload, signature, byTag}},
		"rule signature is off":            {"rules: {signature: off}", false, []string{config, byTag}},
		"neither":                          {"rules: {signature: off, user: off}", false, []string{byTag}},
		"pods are not pinned, and neither": {"rules: {signature: off, user: off, golden: off}\npin: {pods: off}", false, nil},
		"an exemption from rule signature": {"exemptions: [{name: e, namespaces: [team], images: [\"HOST/golden/**\"], rules: [signature], reason: r, owner: o, expires: 2099-12-31}]", false, []string{config, byTag}},
	} {
		t.Run(title, func(t *testing.T) {
			w := newWorld(t, registrytest.Config{}, func(text string) string {
				host := strings.SplitN(strings.SplitN(text, `host: "`, 2)[1], `"`, 2)[0]
				return text + "\n" + strings.ReplaceAll(c.rules, "HOST", host) + "\n"
			})
			w.Registry.Reset()
			pod := w.pod()
			if c.user {
				pod = w.pod(with("securityContext", object{"runAsUser": 1000}))
			}
			allowed().check(t, w.admit(t, pod))
			if got := asked(w.Registry.Requests()); !slices.Equal(got, c.want) {
				t.Errorf("asked for %q, want %q", got, c.want)
			}
		})
	}
}

// asked names requests by what they are for, sorted. The first blob without a signature is the config, the other the payload.
func asked(requests []registrytest.Request) []string {
	var names []string
	signed := slices.ContainsFunc(requests, func(r registrytest.Request) bool { return strings.HasSuffix(r.Path, ".sig") })
	blobs := 0
	for _, r := range requests {
		switch parts := strings.Split(r.Path, "/"); {
		case strings.HasSuffix(r.Path, ".sig"):
			names = append(names, r.Method+" manifests .sig")
		case strings.Contains(r.Path, "/manifests/"):
			names = append(names, r.Method+" manifests "+parts[len(parts)-1])
		case strings.Contains(r.Path, "/blobs/"):
			blobs++
		}
	}
	if signed && blobs > 0 {
		names = append(names, "GET blobs payload")
		blobs--
	}
	if blobs > 0 {
		names = append(names, "GET blobs config")
	}
	slices.Sort(names)
	return names
}
