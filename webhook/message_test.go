package webhook

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// reviewerWith makes a reviewer whose rules find what is given, for the image of that place.
func reviewerWith(t testing.TB, find func(in *Input) []Finding) *Reviewer {
	t.Helper()
	r, err := New(Config{
		Revision: "3f9c2e1", HelpURL: "https://wiki.corp.example/workspace-images",
		Rules: []Rule{{Name: "golden"}, {Name: "registry"}, {Name: "signature", Needs: FactSignatures}, {Name: "tag"}},
		Modes: ModerFunc(func(string, string) Mode { return Enforce }),
		Judge: JudgeFunc(func(_ context.Context, phase Phase, in *Input) ([]Finding, error) {
			if phase == LatePhase {
				return nil, nil
			}
			return find(in), nil
		}),
		Catalogue: CataloguerFunc(func(_ *Request, image *Image) { image.Entry.TagClass = "named" }),
		Reader: ImageReaderFunc(func(context.Context, Reference, Depth) (*Content, error) {
			return &Content{Digest: someDigest}, nil
		}),
		Verifier: VerifierFunc(func(context.Context, Reference, []SignatureRule) (Signatures, error) { return Signatures{}, nil }),
		Attester: AttesterFunc(func(context.Context, Reference, []AttestationRule) (Attestations, error) { return Attestations{}, nil }),
		Suggest: SuggesterFunc(func(image *Image) string {
			if strings.HasSuffix(image.Ref.Repository, "enterprise-base") {
				return "registry.corp.example:5000/golden/base:v3.2.1"
			}
			return ""
		}),
		Env: EnvImages{Names: []string{"CODER_INNER_IMAGE"}}, Pin: PinRewrite, Now: func() time.Time { return time.Unix(1_800_000_000, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func podOf(t testing.TB, spec any) *Request {
	t.Helper()
	object, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "ws"}, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	return &Request{UID: "7f3a9c04-1111", Operation: Create, Kind: "Pod", Namespace: "team", Name: "ws", Object: object}
}

type m = map[string]any

// TestMessage is the text as a developer sees it.
func TestMessage(t *testing.T) {
	request := podOf(t, m{"containers": []m{{
		"name": "dev", "image": "codercom/enterprise-base:ubuntu",
		"env": []m{{"name": "CODER_INNER_IMAGE", "value": "codercom/oss-dogfood:latest"}},
	}}})
	r := reviewerWith(t, func(in *Input) []Finding {
		return []Finding{
			{Rule: "tag", Image: in.Images[0], Message: `"ubuntu" names a distribution and moves; allowed here: exact, dated`},
			{Rule: "signature", Image: in.Images[1], Message: "not signed by devex-ci"},
			{Rule: "registry", Image: in.Images[0], Message: "docker.io is not an internal registry"},
		}
	})
	d := r.Validate(t.Context(), request)
	want := `Image docker.io/codercom/enterprise-base:ubuntu is not allowed: use registry.corp.example:5000/golden/base:v3.2.1 (and 1 more image).
- containers[dev]: registry: docker.io is not an internal registry
- containers[dev]: tag: "ubuntu" names a distribution and moves; allowed here: exact, dated
- containers[dev]: env CODER_INNER_IMAGE docker.io/codercom/oss-dogfood:latest: signature: not signed by devex-ci
policy 3f9c2e1 · decision 7f3a9c04 · https://wiki.corp.example/workspace-images`
	if d.Message != want {
		t.Errorf("got:\n%s\nwant:\n%s", d.Message, want)
	}
	if d.Outcome != Denied || d.Code != 403 {
		t.Errorf("outcome %s, code %d", d.Outcome, d.Code)
	}
}

// FuzzMessage: whatever rules find and whatever the pod says, the message keeps its limits, and has no env value in it.
func FuzzMessage(f *testing.F) {
	f.Add("dev", "codercom/enterprise-base:ubuntu", "docker.io is not an internal registry", "use something", 3)
	f.Add("d\u202eev\n", "\x1b[31m", strings.Repeat("ä", 500), "\u2028", 100)
	const secret = "hunter2 is no image"
	f.Fuzz(func(t *testing.T, name, image, reason, fix string, n int) {
		n = min(max(n, 1), 200)
		containers := make([]m, 0, n)
		for range n {
			containers = append(containers, m{"name": name, "image": image, "env": []m{
				{"name": "TOKEN", "value": secret}, {"name": "CODER_INNER_IMAGE", "value": image},
			}})
		}
		r := reviewerWith(t, func(in *Input) []Finding {
			var findings []Finding
			for i, image := range in.Images {
				findings = append(findings, Finding{Rule: "tag", Image: image, Message: reason, Fix: fix, Undecided: i%3 == 1, Retry: i%2 == 0})
			}
			return findings
		})
		d := r.Validate(t.Context(), podOf(t, m{"containers": containers}))
		first, _, _ := strings.Cut(d.Message, "\n")
		if len(d.Message) > maxMessage || len(first) > maxLine || !utf8.ValidString(d.Message) {
			t.Fatalf("%d bytes, first line %d, valid %t:\n%q", len(d.Message), len(first), utf8.ValidString(d.Message), d.Message)
		}
		if strings.Contains(d.Message, "hunter2") && !strings.Contains(name+image+reason+fix, "hunter2") {
			t.Fatalf("it has the value of an env variable:\n%s", d.Message)
		}
		for _, line := range strings.Split(d.Message, "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("a line has what is not printable: %q", line)
			}
		}
	})
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "ä · é": "ä · é", "a\nb": `a\nb`, "\x1b[31m": `\x1b[31m`, "\u202e": `\u202e`, "\u2028": `\u2028`, "\xff": `\xff`, "\u00a0": `\u00a0`,
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}
