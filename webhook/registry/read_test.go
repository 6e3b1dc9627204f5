package registry_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

func TestReadImage(t *testing.T) {
	created := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	image := registrytest.Image{
		Repository: "golden/base", Tag: "v1.2.3", User: "1000:1000", Arch: "arm64", Variant: "v8", Created: created,
		Labels: map[string]string{"org.opencontainers.image.title": "base"},
		Env:    []string{"PATH=/bin", "EMPTY=", "SECRET=hunter2", "PATH=/usr/bin"},
		Layers: []string{"one", "two"},
	}
	for _, docker := range []bool{false, true} {
		t.Run(fmt.Sprintf("docker=%v", docker), func(t *testing.T) {
			r := serve(t, registrytest.Config{})
			image := image
			image.Docker = docker
			digest := push(t, r, image)
			client := connect(t, r, nil)
			for _, reference := range []string{":v1.2.3", "@" + digest, ":decorative@" + digest} {
				got, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base"+reference), webhook.WithConfig)
				if err != nil {
					t.Fatal(err)
				}
				if got.Digest != digest || len(got.Platforms) != 1 {
					t.Fatalf("got %+v, want one platform of %s", got, digest)
				}
				p := got.Platforms[0]
				layers := p.Layers
				p.Layers = nil
				want := webhook.Platform{
					OS: "linux", Architecture: "arm64", Variant: "v8", Digest: digest, User: "1000:1000",
					Labels: image.Labels, EnvNames: []string{"EMPTY", "PATH", "SECRET"}, Created: created,
				}
				if !reflect.DeepEqual(p, want) {
					t.Errorf("got  %+v\nwant %+v", p, want)
				}
				if len(layers) != 2 || layers[0] == layers[1] || !strings.HasPrefix(layers[0], "sha256:") {
					t.Errorf("got layers %v, want two diff IDs", layers)
				}
			}
		})
	}
}

func TestDigestOnlyIsOneRequest(t *testing.T) {
	r := serve(t, registrytest.Config{})
	digest := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	got, err := connect(t, r, nil).ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.DigestOnly)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != digest || got.Platforms != nil {
		t.Errorf("got %+v, want %s and no platforms", got, digest)
	}
	want := []registrytest.Request{{Method: "GET", Path: "/v2/golden/base/manifests/v1", Status: 200}}
	if requests := r.Requests(); !slices.Equal(requests, want) {
		t.Errorf("got requests %v, want %v", requests, want)
	}
}

func TestReadIndex(t *testing.T) {
	r := serve(t, registrytest.Config{})
	digest, err := r.PushIndex(t.Context(), "golden/base", "v1",
		registrytest.Image{User: "1000"},
		registrytest.Image{User: "0", Arch: "arm64"},
		registrytest.Image{OS: "unknown", Arch: "unknown"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := connect(t, r, nil).ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
	if err != nil {
		t.Fatal(err)
	}
	var users []string
	for _, p := range got.Platforms {
		users = append(users, p.Name()+" "+p.User)
	}
	if want := []string{"linux/amd64 1000", "linux/arm64 0"}; got.Digest != digest || !slices.Equal(users, want) {
		t.Errorf("got %s %v, want %s %v", got.Digest, users, digest, want)
	}
	if n := len(r.Requests()); n != 5 {
		t.Errorf("got %d requests, want 5: the index, two manifests, two configs", n)
	}
}

// pushIndexBody pushes an index of images whose descriptors are changed by replacing text.
func pushIndexBody(t *testing.T, r *registrytest.Registry, replace ...string) {
	t.Helper()
	if _, err := r.PushIndex(t.Context(), "golden/base", "v1", registrytest.Image{User: "1000"}, registrytest.Image{Arch: "arm64"}); err != nil {
		t.Fatal(err)
	}
	index, err := r.Manifest(t.Context(), "golden/base", "v1")
	if err != nil {
		t.Fatal(err)
	}
	index.Body = []byte(strings.NewReplacer(replace...).Replace(string(index.Body)))
	if _, err := r.PushManifest(t.Context(), "golden/base", "v1", index); err != nil {
		t.Fatal(err)
	}
}

func TestIndexPlatforms(t *testing.T) {
	amd64 := `"platform":{"architecture":"amd64","os":"linux"}`
	tests := []struct {
		name    string
		replace []string
		want    []string
		reason  string
	}{
		{name: "none declared: the config says", replace: []string{"," + amd64, ""}, want: []string{"linux/amd64", "linux/arm64"}},
		{name: "another spelling", replace: []string{`"amd64"`, `"x86_64"`}, want: []string{"linux/amd64", "linux/arm64"}},
		{name: "a variant only in the index", replace: []string{`"arm64"`, `"arm64","variant":"v8"`}, want: []string{"linux/amd64", "linux/arm64/v8"}},
		{
			name: "marked as attestation, yet a platform", want: []string{"linux/amd64", "linux/arm64"},
			replace: []string{amd64, amd64 + `,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}`},
		},
		{name: "another os than the config", replace: []string{amd64, `"platform":{"architecture":"amd64","os":"windows"}`},
			reason: "sent an index that says windows/amd64 of an image for linux/amd64"},
		{name: "another architecture than the config", replace: []string{`"arm64"`, `"s390x"`},
			reason: "sent an index that says linux/s390x of an image for linux/arm64"},
		{name: "hidden as unknown", replace: []string{amd64, `"platform":{"architecture":"unknown","os":"unknown"}`}, want: []string{"linux/arm64"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := serve(t, registrytest.Config{})
			pushIndexBody(t, r, test.replace...)
			got, err := connect(t, r, nil).ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			wantPlatforms(t, got, test.want, err, r.Host(), test.reason)
		})
	}
}

func TestIndexOfUnknownsOnly(t *testing.T) {
	r := serve(t, registrytest.Config{})
	unknown := registrytest.Image{OS: "unknown", Arch: "unknown"}
	if _, err := r.PushIndex(t.Context(), "golden/base", "v1", unknown); err != nil {
		t.Fatal(err)
	}
	for _, depth := range []webhook.Depth{webhook.DigestOnly, webhook.WithConfig} {
		_, err := connect(t, r, nil).ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), depth)
		wantReadError(t, err, webhook.Invalid, r.Host(), "sent an index without any platform")
	}
}

func TestSignatureIsNotAnImage(t *testing.T) {
	r := serve(t, registrytest.Config{})
	digest := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	key, _, err := registrytest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Sign(t.Context(), "golden/base", digest, key, registrytest.SignOptions{}); err != nil {
		t.Fatal(err)
	}
	ref := parse(t, r.Host()+"/golden/base:"+registrytest.SignatureTag(digest))
	_, err = connect(t, r, nil).ReadImage(t.Context(), ref, webhook.WithConfig)
	wantReadError(t, err, webhook.Invalid, r.Host(), "is not a runnable image (layer type application/vnd.dev.cosign.simplesigning.v1+json)")
}

func TestTagMoves(t *testing.T) {
	r := serve(t, registrytest.Config{})
	first := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	second := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1", User: "0"})
	client := connect(t, r, nil)
	for _, digest := range []string{first, second, first} {
		if err := r.Tag(t.Context(), "golden/base", "v1", digest); err != nil {
			t.Fatal(err)
		}
		got, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.DigestOnly)
		if err != nil || got.Digest != digest {
			t.Errorf("got %+v, %v; want %s", got, err, digest)
		}
	}
	if err := r.Delete(t.Context(), "golden/base", "v1"); err != nil {
		t.Fatal(err)
	}
	_, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.DigestOnly)
	wantReadError(t, err, webhook.NotFound, r.Host(), "has no tag v1 of golden/base")
	_, err = client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base@sha256:"+strings.Repeat("a", 64)), webhook.DigestOnly)
	wantReadError(t, err, webhook.NotFound, r.Host(), "has no sha256:aaaaaaaaaaaa of golden/base")
}

func TestPlainHTTP(t *testing.T) {
	for name, auth := range map[string]*registrytest.Auth{
		"anonymous": nil, "basic": {User: "u", Password: "p"}, "bearer": {User: "u", Password: "p", Bearer: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := serve(t, registrytest.Config{PlainHTTP: true, Auth: auth})
			digest := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
			client := connect(t, r, withLogin(t, r, "u", "p"))
			got, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			if err != nil || got.Digest != digest {
				t.Errorf("got %+v, %v; want %s", got, err, digest)
			}
		})
	}
}

func TestManyAtOnce(t *testing.T) {
	r := serve(t, registrytest.Config{Auth: &registrytest.Auth{User: "u", Password: "p", Bearer: true}})
	digest := push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	client := connect(t, r, withLogin(t, r, "u", "p"))
	var group sync.WaitGroup
	for range 30 {
		group.Go(func() {
			got, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
			if err != nil || got.Digest != digest {
				t.Errorf("got %+v, %v; want %s", got, err, digest)
			}
		})
	}
	group.Wait()
	if n := countPath(r, "/token"); n != 1 {
		t.Errorf("the token was fetched %d times, want once", n)
	}
}

func TestObserve(t *testing.T) {
	r := serve(t, registrytest.Config{Auth: &registrytest.Auth{User: "u", Password: "p", Bearer: true}})
	push(t, r, registrytest.Image{Repository: "golden/base", Tag: "v1"})
	var seen []string
	login := withLogin(t, r, "u", "p")
	client := connect(t, r, func(c *registry.Config) {
		login(c)
		c.Observe = func(_ context.Context, host, operation string, code int, d time.Duration) {
			if host != r.Host() || d <= 0 {
				t.Errorf("observed %s %s %d %v", host, operation, code, d)
			}
			seen = append(seen, fmt.Sprint(operation, " ", code))
		}
	})
	if _, err := client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig); err != nil {
		t.Fatal(err)
	}
	want := []string{"manifest 401", "token 200", "manifest 200", "blob 200"}
	if !slices.Equal(seen, want) {
		t.Errorf("got %v, want %v", seen, want)
	}
}

func TestCallerGivesUp(t *testing.T) {
	r := serve(t, registrytest.Config{Intercept: intercept("/v2/", hang)})
	client := connect(t, r, nil)
	ctx, cancel := context.WithTimeout(t.Context(), shortTimeout)
	defer cancel()
	_, err := client.ReadImage(ctx, parse(t, r.Host()+"/golden/base:v1"), webhook.WithConfig)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the error of the context", err)
	}
	var read *webhook.ReadError
	if errors.As(err, &read) {
		t.Errorf("got the ReadError %v, want the error of the context: the registry is not to blame", read)
	}
}
