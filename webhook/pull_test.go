package webhook

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
)

// TestPull: the puller is asked once, for what the pod says in the namespace of the request, and only when an image has to
// be fetched.
func TestPull(t *testing.T) {
	image := "r.io/a:v1@" + someDigest
	pod := func(spec m) m {
		spec["containers"] = []m{{"name": "a", "image": image}, {"name": "b", "image": image}, {"name": "c", "image": image}}
		return spec
	}
	denyAll := func(in *Input) (found []Finding) {
		for _, i := range in.Images {
			found = append(found, Finding{Rule: "registry", Image: i, Message: "no"})
		}
		return found
	}
	for title, c := range map[string]struct {
		spec m
		find func(*Input) []Finding
		want []Pull
	}{
		"nothing":             {pod(m{}), nil, []Pull{{Namespace: "team"}}},
		"secrets":             {pod(m{"imagePullSecrets": []m{{"name": "x"}, {"name": "y"}}}), nil, []Pull{{Namespace: "team", Secrets: []string{"x", "y"}}}},
		"secrets with none":   {pod(m{"imagePullSecrets": []any{m{}, nil}}), nil, []Pull{{Namespace: "team", Secrets: []string{"", ""}}}},
		"a service account":   {pod(m{"serviceAccountName": "new", "serviceAccount": "old"}), nil, []Pull{{Namespace: "team", ServiceAccount: "new"}}},
		"by its older name":   {pod(m{"serviceAccount": "old"}), nil, []Pull{{Namespace: "team", ServiceAccount: "old"}}},
		"nulls":               {pod(m{"serviceAccountName": nil, "imagePullSecrets": nil}), nil, []Pull{{Namespace: "team"}}},
		"denied early":        {pod(m{}), denyAll, nil},
		"another namespace's": {pod(m{"imagePullSecrets": []m{{"name": "x", "namespace": "kube-system"}}}), nil, []Pull{{Namespace: "team", Secrets: []string{"x"}}}},
	} {
		t.Run(title, func(t *testing.T) {
			if c.find == nil {
				c.find = func(*Input) []Finding { return nil }
			}
			r := reviewerWith(t, c.find)
			r.Rules = []Rule{{Name: "registry"}, {Name: "signature", Needs: FactSignatures}, {Name: "user", Needs: FactUser}}
			r.Catalogue = CataloguerFunc(covered)
			r.Reader = ImageReaderFunc(func(context.Context, Reference, Depth) (*Content, error) {
				t.Error("the shared reader was asked")
				return nil, errors.New("x")
			})
			var got []Pull
			var reads, verifies atomic.Int32
			r.Puller = PullerFunc(func(_ context.Context, pull Pull) (Sources, error) {
				got = append(got, pull)
				return Sources{
					Reader: ImageReaderFunc(func(context.Context, Reference, Depth) (*Content, error) {
						reads.Add(1)
						return &Content{Digest: someDigest, Platforms: []Platform{{User: "1000"}}}, nil
					}),
					Verifier: VerifierFunc(func(context.Context, Reference, []SignatureRule) (Signatures, error) {
						verifies.Add(1)
						return Signatures{}, nil
					}),
				}, nil
			})
			r.Validate(t.Context(), podOf(t, c.spec))
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("asked for %+v, want %+v", got, c.want)
			}
			if want := int32(3 * len(c.want)); reads.Load() != want || verifies.Load() != want {
				t.Errorf("%d reads and %d verifications, want %d each", reads.Load(), verifies.Load(), want)
			}
		})
	}
}

// TestPullFails: what the credentials of the pod cannot be known for is undecided, and never read with others.
func TestPullFails(t *testing.T) {
	for title, c := range map[string]struct {
		err     error
		outcome Outcome
		says    string
	}{
		"passing":   {&PullError{Reason: `the pull secret "x" could not be read: busy`, Retry: true, Err: errors.New("inside")}, Undecided, `could not be checked: the pull secret "x" could not be read: busy; try again (and 1 more image).`},
		"for good":  {&PullError{Reason: `the service account "x" could not be read: it does not exist`}, Denied, `could not be checked: the service account "x" could not be read: it does not exist (and 1 more image).`},
		"something": {errors.New("inside"), Undecided, "could not be checked: internal error; try again (and 1 more image)."},
	} {
		t.Run(title, func(t *testing.T) {
			r := reviewerWith(t, func(*Input) []Finding { return nil })
			r.Catalogue = CataloguerFunc(covered)
			asked := 0
			r.Puller = PullerFunc(func(context.Context, Pull) (Sources, error) {
				asked++
				return Sources{}, c.err
			})
			request := podOf(t, m{"containers": []m{{"name": "a", "image": "r.io/a:v1@" + someDigest}, {"name": "b", "image": "r.io/b:v1"}}})
			d := r.Validate(t.Context(), request)
			if d.Outcome != c.outcome || !strings.Contains(d.Message, c.says) || strings.Contains(d.Message, "inside") || asked != 1 {
				t.Errorf("asked %d times, %s:\n%s", asked, d.Outcome, d.Message)
			}
			if d := r.Mutate(t.Context(), request); len(d.Patch) > 0 || !d.Allow() {
				t.Errorf("mutate: %s %s", d.Outcome, d.Patch)
			}
		})
	}
}

// TestPullPanics: whoever comes after a panic gets no reader.
func TestPullPanics(t *testing.T) {
	r := reviewerWith(t, func(*Input) []Finding { return nil })
	r.Catalogue = CataloguerFunc(covered)
	r.Puller = PullerFunc(func(context.Context, Pull) (Sources, error) { panic("puller") })
	defer func() {
		if p, ok := recover().(string); !ok || !strings.Contains(p, "puller") {
			t.Errorf("recovered %v", p)
		}
	}()
	r.Validate(t.Context(), podOf(t, m{"containers": []m{{"name": "a", "image": "r.io/a:v1@" + someDigest}, {"name": "b", "image": "r.io/b:v1"}}}))
}
