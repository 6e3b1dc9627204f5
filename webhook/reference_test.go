package webhook

import (
	"errors"
	"strings"
	"testing"

	distribution "github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParseReference(t *testing.T) {
	tests := map[string]Reference{
		"registry.corp:5000/golden/base:v1":   {"registry.corp:5000", "golden/base", "v1", ""},
		"registry.corp/base":                  {"registry.corp", "base", "", ""},
		"registry.corp/base@" + someDigest:    {"registry.corp", "base", "", someDigest},
		"registry.corp/base:v1@" + someDigest: {"registry.corp", "base", "v1", someDigest},
		"localhost/base:v1":                   {"localhost", "base", "v1", ""},
		"localhost:5000/base":                 {"localhost:5000", "base", "", ""},
		"127.0.0.1:5000/a/b/c:v1":             {"127.0.0.1:5000", "a/b/c", "v1", ""},
		"ubuntu":                              {"docker.io", "library/ubuntu", "", ""},
		"ubuntu:24.04":                        {"docker.io", "library/ubuntu", "24.04", ""},
		"codercom/base":                       {"docker.io", "codercom/base", "", ""},
		"docker.io/ubuntu":                    {"docker.io", "library/ubuntu", "", ""},
		"index.docker.io/library/ubuntu":      {"docker.io", "library/ubuntu", "", ""},
		"registry-1.docker.io/library/ubuntu": {"docker.io", "library/ubuntu", "", ""},
		"r.io/a_b/c__d/e--f/g.h:A_.-z":        {"r.io", "a_b/c__d/e--f/g.h", "A_.-z", ""},
	}
	for text, want := range tests {
		got, err := ParseReference(text)
		if err != nil || got != want {
			t.Errorf("ParseReference(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for _, text := range []string{
		"", ":", "@", "/", "a:", "a@", "a:b:c", "A", "a//b", "r.io/", "r.io/a/", "r.io/_a", "r.io/a_", "r.io/a___b", "r.io/a..b",
		"r.io/a._b", "R.io/a", "-r.io/a", "r-.io/a", "r..io/a", "r.io:/a", "r.io:0/a", "r.io:080/a", "r.io:65536/a", "r.io:+80/a",
		"r_.io/a", "[::1]/a", "http://r.io/a", "r.io/a@sha256:short", "r.io/a@" + strings.ToUpper(someDigest), "r.io/a@sha512:00",
		"r.io/a:" + strings.Repeat("x", 129), "r.io/" + strings.Repeat("x", 251), strings.Repeat("a", 64), "r.io/ä", "r.io/a\n",
	} {
		if got, err := ParseReference(text); !errors.Is(err, ErrReference) {
			t.Errorf("ParseReference(%q) = %+v, %v; want an ErrReference", text, got, err)
		}
	}
}

func TestReferenceShort(t *testing.T) {
	ref := Reference{"r.io", "a", "v1", someDigest}
	if got, want := ref.Short(), "r.io/a:v1@sha256:e3b0c44298fc"; got != want {
		t.Errorf("Short() = %q, want %q", got, want)
	}
}

// FuzzParseReference: whatever is accepted, the kubelet's parser accepts with the same parts, and the canonical form
// parses to the same reference.
func FuzzParseReference(f *testing.F) {
	for _, seed := range []string{
		"ubuntu", "docker.io/ubuntu:latest", "registry-1.docker.io/a/b", "r.io:5000/a/b:v1@" + someDigest, "Golden/ws:v1", "a:5000/b",
		"localhost/x", "r.io/a__b/c--d:t", "registry.hub.docker.com/library/x@" + someDigest,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseReference(text)
		if err != nil {
			return
		}
		again, err := ParseReference(got.String())
		if err != nil || again != got {
			t.Fatalf("%q parses to %+v, and its canonical form to %+v, %v", text, got, again, err)
		}
		want, err := distribution.ParseNormalizedNamed(text)
		if err != nil {
			t.Fatalf("%q is accepted as %+v, but distribution/reference says %v", text, got, err)
		}
		parts := Reference{Registry: distribution.Domain(want), Repository: distribution.Path(want)}
		if tagged, ok := want.(distribution.Tagged); ok {
			parts.Tag = tagged.Tag()
		}
		if digested, ok := want.(distribution.Digested); ok {
			parts.Digest = digested.Digest().String()
		}
		// Docker Hub has more names than distribution/reference knows.
		if isDockerHub(parts.Registry) {
			parts.Registry = DockerHub
			if !strings.Contains(parts.Repository, "/") {
				parts.Repository = "library/" + parts.Repository
			}
		}
		if diff := cmp.Diff(parts, got); diff != "" {
			t.Fatalf("%q (-distribution/reference +got):\n%s", text, diff)
		}
	})
}

func TestPatterns(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"golden/**", "golden/base", true}, {"golden/**", "golden/a/b", true}, {"golden/**", "golden", false},
		{"golden/**", "golden-evil/base", false}, {"golden/*", "golden/base", true}, {"golden/*", "golden/a/b", false},
		{"**", "a", true}, {"**", "a/b", true}, {"**/base", "base", true}, {"**/base", "a/b/base", true}, {"**/base", "a/base/b", false},
		{"*/base", "a/base", true}, {"*/base", "base", false}, {"golden/base", "golden/base", true}, {"golden/base", "golden/base2", false},
		{"r.io:5000/golden/**", "r.io:5000/golden/x", true}, {"r.io/golden/**", "r.io.evil/golden/x", false},
		{"a/**/z", "a/z", true}, {"a/**/z", "a/b/c/z", true}, {"a/**/z", "a/b", false},
	}
	for _, test := range tests {
		p, err := ParsePattern(test.pattern)
		if err != nil {
			t.Errorf("ParsePattern(%q): %v", test.pattern, err)
			continue
		}
		if got := p.Match(test.name); got != test.want {
			t.Errorf("%q matches %q: %t, want %t", test.pattern, test.name, got, test.want)
		}
	}
	for _, bad := range []string{"", "/", "a/", "golden*", "gol*den/x", "a//b", "a/**/**", "A/b", "a/b:tag", "**x"} {
		if _, err := ParsePattern(bad); err == nil {
			t.Errorf("ParsePattern(%q) found nothing wrong", bad)
		}
	}
	for _, bad := range []string{"golden/base", "registry.corp", "base"} {
		if _, err := ParseImagePattern(bad); err == nil {
			t.Errorf("ParseImagePattern(%q) found nothing wrong", bad)
		}
	}
	for glob, names := range map[string][2]string{
		"kube-system": {"kube-system", "kube-system-x"}, "audit-*": {"audit-a", "xaudit-a"}, "*-dev": {"a-dev", "a-dev2"}, "*": {"", "\x00never"},
		"a*b*c": {"a1b2c", "a1c2b"},
	} {
		if !MatchName(glob, names[0]) || glob != "*" && MatchName(glob, names[1]) {
			t.Errorf("%q: want a match with %q and none with %q", glob, names[0], names[1])
		}
	}
}

func BenchmarkParseReference(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseReference("registry.corp.example:5000/golden/base:v3.2.1@" + someDigest); err != nil {
			b.Fatal(err)
		}
	}
}
