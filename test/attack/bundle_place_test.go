package attack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestPolicyBundleOffline: a restart without network goes on with what was in force, if it is still signed.
func TestPolicyBundleOffline(t *testing.T) {
	t.Parallel() // they wait for polls
	key, server := newPolicyKey(t), newPolicyServer(t)
	const path = "/a.tar.gz"
	server.put(path, key.sign(t, rules("host", "kept")))
	cache := filepath.Join(t.TempDir(), "cache")
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, func(text string) string {
		return bundled(server.entry(path, key))(text) + fmt.Sprintf("cache: {dir: %q}\n", cache)
	})
	must(t, err)
	t.Cleanup(func() { _ = f.Registry.Close() })
	served := func(do func(world)) {
		t.Helper()
		hook, err := harness.Serve(context.WithoutCancel(t.Context()), binary, f)
		must(t, err)
		do(world{f, hook})
		if err := hook.Stop(); err != nil || t.Failed() {
			t.Errorf("stop: %v; log:\n%s", err, hook.Log())
		}
	}
	served(func(w world) {
		w.says(t, "kept")
		server.put(path, key.sign(t, regoBundle("host", "package hallmark.rules.host\n\ndeny contains {\"message\": \"x\"} if input.objekt\n")))
		w.logs(t, "undefined ref: input.objekt")
	})
	server.put(path, nil)
	served(func(w world) {
		denied("kept").check(t, w.hostNetwork(t))
		allowed().check(t, w.admit(t, w.pod()))
		if !w.ready(t) {
			t.Error("the webhook is not ready")
		}
		server.put(path, key.sign(t, rules("host", "newer")))
		w.says(t, "newer")
	})
	server.put(path, nil)
	files, err := filepath.Glob(filepath.Join(cache, "bundles", "*"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("kept %q", files)
	}
	must(t, os.WriteFile(files[0], newPolicyKey(t).sign(t, rules("host", "evil")), 0o600))
	served(func(w world) {
		w.logs(t, "the server answered 503")
		want{code: 503, says: []string{"no valid configuration yet"}}.check(t, w.hostNetwork(t))
		if w.ready(t) {
			t.Error("the webhook is ready")
		}
	})
	t.Run("image pull", func(t *testing.T) {
		pull := func() (string, error) {
			out, err := exec.CommandContext(t.Context(), binary, "image", "pull", "--config", filepath.Join(f.Dir, "hallmark.yaml"),
				"--dir", cache, f.Ref("golden/ws:v1.0.0")).CombinedOutput()
			return string(out), err
		}
		if out, err := pull(); err == nil || !strings.Contains(out, "the server answered 503") {
			t.Errorf("without the bundle: %v\n%s", err, out)
		}
		server.put(path, key.sign(t, rules("host", "pulled")))
		if out, err := pull(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		server.put(path, nil)
		served(func(w world) { denied("pulled").check(t, w.hostNetwork(t)) })
	})
}

// TestPolicyBundleInRegistry: the same by OCI, as oras pushes it, over the connections of the configured registry.
func TestPolicyBundleInRegistry(t *testing.T) {
	t.Parallel() // they wait for polls
	key := newPolicyKey(t)
	const repository, layer = "policies/workspaces", "application/vnd.oci.image.layer.v1.tar+gzip"
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	must(t, err)
	t.Cleanup(func() { _ = f.Registry.Close() })
	must(t, f.Write("hallmark.yaml", []byte(bundled(fmt.Sprintf("    - {oci: %q, every: 1s, verification: {keyFile: %q}}\n",
		f.Ref(repository+":v1"), key.file))(f.Configuration()))))
	push := func(archive []byte, mediaTypes ...string) {
		t.Helper()
		config, err := f.Registry.PushBlob(t.Context(), repository, []byte("{}"))
		must(t, err)
		digest, err := f.Registry.PushBlob(t.Context(), repository, archive)
		must(t, err)
		var list []string
		for _, mediaType := range mediaTypes {
			list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest, len(archive)))
		}
		_, err = f.Registry.PushManifest(t.Context(), repository, "v1", registrytest.Manifest{
			MediaType: "application/vnd.oci.image.manifest.v1+json",
			Body: fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
				`"config":{"mediaType":"application/vnd.cncf.openpolicyagent.config.v1+json","digest":%q,"size":2},"layers":[%s]}`,
				config, strings.Join(list, ",")),
		})
		must(t, err)
	}
	push(key.sign(t, rules("host", "first")), layer)
	hook, err := harness.Serve(context.WithoutCancel(t.Context()), binary, f)
	must(t, err)
	w := world{f, hook}
	defer func() {
		if err := hook.Stop(); err != nil || t.Failed() {
			t.Errorf("stop: %v; log:\n%s", err, hook.Log())
		}
	}()
	w.says(t, "first")
	push(key.sign(t, rules("host", "second")), layer)
	w.says(t, "second")
	t.Run("check", func(t *testing.T) {
		manifest := filepath.Join(t.TempDir(), "pod.json")
		must(t, os.WriteFile(manifest, encode(t, w.pod(with("hostNetwork", true))), 0o600))
		for flag, want := range map[string]string{"--offline=false": "object: host: second", "--offline": "the rules of 1 policy bundle"} {
			out, _ := exec.CommandContext(t.Context(), binary, // its exit code is another test's
				"check", "--config", filepath.Join(f.Dir, "hallmark.yaml"), flag, manifest).CombinedOutput()
			if !strings.Contains(string(out), want) {
				t.Errorf("check %s: want %q in\n%s", flag, want, out)
			}
		}
	})
	t.Run("unchanged", func(t *testing.T) {
		f.Registry.Reset()
		count := func(part string) (n int) {
			for _, r := range f.Registry.Requests() {
				if strings.Contains(r.Path, repository+part) {
					n++
				}
			}
			return n
		}
		eventually(t, "another poll", func() bool { return count("/manifests/") > 1 })
		if n := count("/blobs/"); n > 0 {
			t.Errorf("%d blobs were read again", n)
		}
	})
	for _, c := range []struct {
		name, log string
		push      func()
	}{
		{"by another key", "failed to verify JWT signature", func() { push(newPolicyKey(t).sign(t, rules("host", "evil")), layer) }},
		{"an artifact of another kind", "has 0 layers of type", func() {
			push(key.sign(t, rules("host", "evil")), "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego")
		}},
		{"two layers", "has 2 layers of type", func() { push(key.sign(t, rules("host", "evil")), layer, layer) }},
		{"no tag", "has no tag v1 of " + repository, func() { must(t, f.Registry.Delete(t.Context(), repository, "v1")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.push()
			w.logs(t, c.log)
			denied("second").check(t, w.hostNetwork(t))
		})
	}
	push(key.sign(t, rules("host", "third")), layer)
	w.says(t, "third")
	must(t, f.Registry.Close())
	w.logs(t, "refused the connection")
	if got := w.hostNetwork(t); got.Allowed || !w.ready(t) {
		t.Errorf("without the registry: %+v", got)
	}
}

// TestPolicyBundleUnsigned: only where that is said, and then it is not believed after a restart.
func TestPolicyBundleUnsigned(t *testing.T) {
	t.Parallel() // they wait for polls
	server := newPolicyServer(t)
	server.put("/a.tar.gz", archived(t, rules("host", "by nobody")))
	cache := filepath.Join(t.TempDir(), "cache")
	w := newWorld(t, registrytest.Config{}, func(text string) string {
		entry := fmt.Sprintf("    - {url: \"https://%s/a.tar.gz\", ca: %q, every: 1s, unsigned: true}\n", server.Host(), server.ca)
		return bundled(entry)(text) + fmt.Sprintf("cache: {dir: %q}\n", cache)
	})
	w.says(t, "by nobody")
	w.logs(t, "whoever can write there decides what is admitted")
	if files, err := filepath.Glob(filepath.Join(cache, "bundles", "*")); err != nil || len(files) > 0 {
		t.Errorf("kept %q, %v", files, err)
	}
}
