package main

import (
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// cosigns are the programs of cosign v2 and v3.
func cosigns(t *testing.T) map[string]string {
	t.Helper()
	out, err := output("../cosign", nil, "go", "run", "./cmd/cosignbin")
	must(t, err)
	v2, v3, _ := strings.Cut(out, "\n")
	return map[string]string{"v2": v2, "v3": v3}
}

// emptyRoot is a trusted root with nobody in it. cosign v2.6 wants one before it looks at a bundle, and would fetch it.
const emptyRoot = `{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`

// A desk is a directory with a key pair that cosign made, under a password.
type desk struct {
	t       *testing.T
	dir     string
	program string
}

func newDesk(t *testing.T, program string) desk {
	t.Helper()
	d := desk{t, t.TempDir(), program}
	t.Setenv(passwordVariable, "open sesame")
	_, err := d.run("generate-key-pair")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(d.dir, "root.json"), []byte(emptyRoot), 0o600))
	return d
}

// run runs cosign where no configuration of the user or the machine reaches it.
func (d desk) run(args ...string) (string, error) {
	return output(d.dir, []string{"HOME=" + d.dir, "TUF_ROOT=" + filepath.Join(d.dir, "tuf")}, d.program, args...)
}

// serve starts a registry with all of a release in it, and gives the repository.
func serve(t *testing.T, release string, options ...registry.Option) string {
	t.Helper()
	server := httptest.NewServer(registry.New(append(options, registry.Logger(silent()))...))
	t.Cleanup(server.Close)
	repository := strings.TrimPrefix(server.URL, "http://") + "/mirror/hallmark"
	must(t, runPush(t.Context(), []string{"-layout", filepath.Join(release, "hallmark-image.tar"), repository}, io.Discard))
	return repository
}

// TestCosign: both programs, by themselves, verify the image, each of its platforms, and what is attested of them; and nothing
// that somebody else has signed.
func TestCosign(t *testing.T) {
	w := open(t)
	for name, program := range cosigns(t) {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, program)
			dir, _ := w.release(t, "-key", filepath.Join(d.dir, "cosign.key"))
			public := "--key=" + filepath.Join(dir, "hallmark.pub")
			stranger := "--key=" + filepath.Join(newDesk(t, program).dir, "cosign.pub")
			contents, err := readImage(filepath.Join(w.dir, "image"))
			must(t, err)
			for registryName, repository := range map[string]string{
				"referrers API": serve(t, dir, registry.WithReferrersSupport(true)), "list at a tag": serve(t, dir),
			} {
				images := []string{repository + ":" + version}
				for _, of := range contents.digests() {
					images = append(images, repository+"@"+of.Digest.String())
				}
				for i, image := range images {
					of := contents.digests()[max(i-1, 0)].Digest
					t.Run(registryName+" "+image, func(t *testing.T) { d.in(t).verifyImage(image, of.Hex, public, stranger) })
				}
			}
		})
	}
}

func (d desk) in(t *testing.T) desk {
	d.t = t
	return d
}

func (d desk) verifyImage(image, hex, public, stranger string) {
	d.t.Helper()
	common := []string{"--insecure-ignore-tlog", "--allow-http-registry", "--trusted-root=root.json", image}
	got, err := d.run(append([]string{"verify", public}, common...)...)
	if err != nil || !strings.Contains(got, hex) {
		d.t.Errorf("verify: %v\n%s", err, got)
	}
	if _, err := d.run(append([]string{"verify", stranger}, common...)...); err == nil {
		d.t.Error("verify: somebody else's key verifies it, too")
	}
	for kind, want := range map[string]string{"https://spdx.dev/Document": `"spdxVersion":"SPDX-2.3"`, "slsaprovenance1": buildType} {
		args := append([]string{"verify-attestation", "--type=" + kind}, common...)
		got, err := d.run(append(args, public)...)
		if err != nil || !strings.Contains(payloads(got), want) || !strings.Contains(payloads(got), hex) {
			d.t.Errorf("verify-attestation of %s: %v\n%.2000s", kind, err, payloads(got))
		}
		if _, err := d.run(append(args, stranger)...); err == nil {
			d.t.Errorf("verify-attestation of %s: somebody else's key verifies it, too", kind)
		}
	}
}

// payloads are what envelopes hold, one after the other.
func payloads(envelopes string) string {
	var all strings.Builder
	for decoder := json.NewDecoder(strings.NewReader(envelopes)); ; {
		var envelope struct{ Payload []byte }
		if err := decoder.Decode(&envelope); err != nil {
			return all.String()
		}
		all.Write(envelope.Payload)
	}
}

// TestCosignFiles: the commands of SECURITY.md for files, and for the layout as it is on disk.
func TestCosignFiles(t *testing.T) {
	w := open(t)
	program := cosigns(t)["v3"]
	d := newDesk(t, program)
	dir, _ := w.release(t, "-key", filepath.Join(d.dir, "cosign.key"))
	in := func(args ...string) error {
		_, err := output(dir, []string{"HOME=" + d.dir}, program, append(args, "--key=hallmark.pub", "--insecure-ignore-tlog")...)
		return err
	}
	must(t, in("verify-blob", "--bundle=SHA256SUMS.sigstore.json", "SHA256SUMS"))
	attested := []string{"verify-blob-attestation", "--bundle=provenance.sigstore.json", "--type=slsaprovenance1"}
	for _, name := range []string{"hallmark-linux-amd64", "hallmark-1.2.3.tgz", "hallmark-image.json"} {
		must(t, in(append(attested, name)...))
	}
	must(t, os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte("else\n"), 0o600))
	if in("verify-blob", "--bundle=SHA256SUMS.sigstore.json", "SHA256SUMS") == nil || in(append(attested, "SHA256SUMS")...) == nil {
		t.Error("another file is verified, too")
	}
	layout := t.TempDir()
	must(t, unpackTar(filepath.Join(dir, "hallmark-image.tar"), layout))
	args := []string{"verify", "--key=hallmark.pub", "--insecure-ignore-tlog", "--local-image", layout}
	if _, err := output(dir, []string{"HOME=" + d.dir}, cosigns(t)["v2"], args...); err != nil {
		t.Errorf("v2 of the layout on disk: %v", err)
	}
}

// TestHallmark: Hallmark admits its own image, from a mirror, as the configuration of SECURITY.md demands; and not with another
// key.
func TestHallmark(t *testing.T) {
	w := open(t)
	hallmark := filepath.Join(t.TempDir(), "hallmark")
	_, err := output("../..", nil, "go", "build", "-o", hallmark, "./cmd/hallmark")
	must(t, err)
	dir, _ := w.release(t, "-key", newKey(t, "P-256"))
	repository := serve(t, dir)
	host, _, _ := strings.Cut(repository, "/")
	const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hallmark"}, "spec": {"containers": [
	{"name": "webhook", "image": "ghcr.io/hallmark-admission/hallmark:v1.2.3"}]}}`
	security, err := os.ReadFile("../../SECURITY.md")
	must(t, err)
	_, demand, _ := strings.Cut(string(security), "```yaml\n")
	demand, _, _ = strings.Cut(demand, "```")
	if !strings.Contains(demand, "spdx.dev") {
		t.Fatalf("SECURITY.md has no configuration: %q", demand)
	}
	configuration := `apiVersion: hallmark.dev/v1alpha1
kind: Configuration
registries: [{host: "` + host + `", plainHTTP: true}]
rewrites: [{from: ghcr.io/hallmark-admission, to: "` + host + `/mirror"}]
tags: {allow: [exact]}
limits: {deadline: 29s}
` + strings.ReplaceAll(demand, "ghcr.io/hallmark-admission/", host+"/mirror/")
	for _, tc := range []struct{ name, public, decision, message string }{
		{"our key", filepath.Join(dir, "hallmark.pub"), "allowed", ""},
		{"another key", publicOf(t, newKey(t, "P-256")), "denied", "not signed by hallmark"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := t.TempDir()
			config := strings.ReplaceAll(configuration, "keyFile: hallmark.pub", "keyFile: "+tc.public)
			must(t, os.WriteFile(filepath.Join(at, "hallmark.yaml"), []byte(config), 0o600))
			must(t, os.WriteFile(filepath.Join(at, "pod.json"), []byte(pod), 0o600))
			// The exit code is 1 when the pod is denied; what it prints tells that, too.
			printed, err := output(at, nil, "sh", "-c", `"$0" check --config hallmark.yaml -o json pod.json; test $? -le 1`, hallmark)
			must(t, err)
			var got []struct {
				Decision, Message string
				Patch             []struct{ Value any }
			}
			must(t, json.Unmarshal([]byte(printed), &got))
			if len(got) != 1 || got[0].Decision != tc.decision || !strings.Contains(got[0].Message, tc.message) {
				t.Fatalf("got %s, want %s with %q", printed, tc.decision, tc.message)
			}
			contents, err := readImage(filepath.Join(w.dir, "image"))
			must(t, err)
			if tc.decision == "allowed" && !strings.Contains(printed, repository+":v1.2.3@"+contents.top.Digest.String()) {
				t.Errorf("it is not pinned: %s", printed)
			}
		})
	}
}
