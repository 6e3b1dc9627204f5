package distribution

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// attach stores something that refers to an image, as cosign stores a bundle: the library that pushes it keeps the list of
// it at the tag that stands for the referrers API, which this registry does not have.
func (r *registry) attach(repository, digest, text string) string {
	r.t.Helper()
	subject, err := remote.Head(r.reference(repository+"@"+digest), r.options...)
	if err != nil {
		r.t.Fatal(err)
	}
	const bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.oci.empty.v1+json")
	with, err := mutate.AppendLayers(base, static.NewLayer([]byte(text), bundle))
	if err != nil {
		r.t.Fatal(err)
	}
	attached := mutate.Subject(with, *subject).(v1.Image)
	own := r.digest(attached)
	return r.push(repository+"@"+own, attached)
}

// TestReferrers: without a referrers API the list at the tag counts, and the API is asked for only once.
func TestReferrers(t *testing.T) {
	program := filepath.Join(t.TempDir(), "referrers")
	build := exec.Command("go", "build", "-o", program, "./test/distribution/testdata/referrers/main.go")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, locked := range map[string]bool{"open": false, "with a password": true} {
		t.Run(name, func(t *testing.T) {
			r := startRegistry(t, "inmemory", locked)
			args, requests := []string{"-ca", r.caFile}, []string{"referrers 404"} // which it says before it wants a password
			if locked {
				args = append(args, "-credentials", credentials(t, r.host, password))
				requests = append(requests, "manifest 401")
			}
			digest := r.push("golden/ws:v1.0.0", image(t, "1000", "amd64", types.OCIManifestSchema1))
			list := func() ([]byte, error) {
				return exec.Command(program, append(args, r.host+"/golden/ws@"+digest)...).CombinedOutput()
			}
			if out, err := list(); err == nil || !strings.Contains(string(out), "has no referrers of "+digest[:19]+" of golden/ws") {
				t.Errorf("nothing refers to it: %s, %v", out, err)
			}
			want := []string{r.attach("golden/ws", digest, "one"), r.attach("golden/ws", digest, "two")}
			out, err := list()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var got struct{ Referrers, Requests []string }
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			slices.Sort(got.Referrers)
			slices.Sort(want)
			if !slices.Equal(got.Referrers, want) {
				t.Errorf("got %v, want %v", got.Referrers, want)
			}
			requests = append(requests, "manifest 200", "manifest 200", "manifest 200", "manifest 200")
			if !slices.Equal(got.Requests, requests) {
				t.Errorf("asked for %v, want %v", got.Requests, requests)
			}
		})
	}
}
