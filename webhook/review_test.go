package webhook

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func covered(_ *Request, image *Image) {
	image.Entry.Registry = RegistryMatch{Host: true, Repository: true}
	image.Entry.Signed = []SignatureRule{{AnyOf: []string{"ci"}, Threshold: 1}}
	image.Entry.Attested = []AttestationRule{{PredicateType: "slsa.dev/provenance/v1", AnyOf: []string{"ci"}}}
}

// TestUndecided: what a rule needed and nobody could read refuses the request, whatever the rule says, and in words that
// fit the failure.
func TestUndecided(t *testing.T) {
	pinned := podOf(t, m{"containers": []m{{"name": "dev", "image": "r.io/a:v1@" + someDigest}}})
	for title, c := range map[string]struct {
		err     error
		outcome Outcome
		code    int
		says    string
	}{
		"registry down": {&ReadError{Failure: Unavailable, Registry: "r.io", Reason: "did not answer within 3s"}, Undecided, 503, "could not be checked: r.io did not answer within 3s; try again."},
		"refused":       {&ReadError{Failure: Unauthorized, Registry: "r.io", Reason: "refused access to a (401)"}, Denied, 403, "could not be checked: r.io refused access to a (401)."},
		"broken":        {&ReadError{Failure: Invalid, Registry: "r.io", Reason: "sent a manifest larger than 4 MiB"}, Denied, 403, "could not be checked: r.io sent a manifest"},
		"missing":       {&ReadError{Failure: NotFound, Registry: "r.io", Reason: "has no tag v1 of a"}, Denied, 403, "does not exist: r.io has no tag v1 of a."},
		"deadline":      {context.DeadlineExceeded, Undecided, 503, "could not be checked: r.io did not answer in time; try again."},
		"something":     {errors.New("secret of the inside"), Undecided, 503, "could not be checked: internal error; try again."},
	} {
		t.Run(title, func(t *testing.T) {
			r := reviewerWith(t, func(*Input) []Finding { return nil })
			r.Catalogue = CataloguerFunc(covered)
			r.Verifier = VerifierFunc(func(context.Context, Reference, []SignatureRule) (Signatures, error) { return Signatures{}, c.err })
			r.Judge = JudgeFunc(func(_ context.Context, phase Phase, in *Input) ([]Finding, error) {
				if phase == EarlyPhase {
					return nil, nil
				}
				return []Finding{{Rule: "signature", Image: in.Images[0], Message: "not signed"}}, nil
			})
			d := r.Validate(t.Context(), pinned)
			if d.Outcome != c.outcome || d.Code != c.code || !strings.Contains(d.Message, c.says) ||
				strings.Contains(d.Message, "not signed") || strings.Contains(d.Message, "secret") {
				t.Errorf("%s %d:\n%s\nwant %s %d and %q", d.Outcome, d.Code, d.Message, c.outcome, c.code, c.says)
			}
		})
	}
}

// TestFactsAreFetchedOnDemand: what no rule needs is not asked for, and what is denied early is not either.
func TestFactsAreFetchedOnDemand(t *testing.T) {
	request := podOf(t, m{"containers": []m{{"name": "dev", "image": "r.io/a:v1@" + someDigest}}})
	var reads, verifies atomic.Int32
	var attested []string
	reviewer := func(rules []Rule, find func(*Input) []Finding) *Reviewer {
		r := reviewerWith(t, find)
		r.Rules, r.Catalogue = rules, CataloguerFunc(covered)
		r.Reader = ImageReaderFunc(func(context.Context, Reference, Depth) (*Content, error) {
			reads.Add(1)
			return &Content{Digest: someDigest, Platforms: []Platform{{User: "1000"}}}, nil
		})
		r.Verifier = VerifierFunc(func(context.Context, Reference, []SignatureRule) (Signatures, error) {
			verifies.Add(1)
			return Signatures{}, nil
		})
		r.Attester = AttesterFunc(func(_ context.Context, _ Reference, rules []AttestationRule) (Attestations, error) {
			for _, rule := range rules {
				attested = append(attested, rule.PredicateType+" by "+strings.Join(rule.AnyOf, ","))
			}
			return Attestations{}, nil
		})
		return r
	}
	nothing := func(*Input) []Finding { return nil }
	for title, c := range map[string]struct {
		rules           []Rule
		find            func(*Input) []Finding
		reads, verifies int32
		attested        []string
	}{
		"no facts":   {[]Rule{{Name: "registry"}}, nothing, 0, 0, nil},
		"user":       {[]Rule{{Name: "user", Needs: FactUser}}, nothing, 1, 0, nil},
		"signatures": {[]Rule{{Name: "signature", Needs: FactSignatures}}, nothing, 0, 1, nil},
		"both":       {[]Rule{{Name: "signature", Needs: FactSignatures}, {Name: "user", Needs: FactUser}}, nothing, 1, 1, nil},
		"attested":   {[]Rule{{Name: "attestation", Needs: FactAttestations}}, nothing, 0, 0, []string{"slsa.dev/provenance/v1 by ci"}},
		"attested by the configuration and rules": {[]Rule{
			{Name: "attestation", Needs: FactAttestations},
			{Name: "scanned", Needs: FactAttestations, Attested: []string{"a/scan", "slsa.dev/provenance/v1"}},
			{Name: "off", Needs: FactAttestations, Attested: []string{"a/secret"}},
		}, nothing, 0, 0, []string{"slsa.dev/provenance/v1 by ci", "a/scan by "}},
		"denied early": {[]Rule{{Name: "registry"}, {Name: "signature", Needs: FactSignatures}}, func(in *Input) []Finding {
			return []Finding{{Rule: "registry", Image: in.Images[0], Message: "no"}}
		}, 0, 0, nil},
	} {
		t.Run(title, func(t *testing.T) {
			reads.Store(0)
			verifies.Store(0)
			attested = nil
			r := reviewer(c.rules, c.find)
			r.Modes = ModerFunc(func(rule, _ string) Mode {
				if rule == "off" {
					return Off
				}
				return Enforce
			})
			r.Validate(t.Context(), request)
			if !slices.Equal(attested, c.attested) {
				t.Errorf("attestations %q, want %q", attested, c.attested)
			}
			if reads.Load() != c.reads || verifies.Load() != c.verifies {
				t.Errorf("%d reads and %d verifications, want %d and %d", reads.Load(), verifies.Load(), c.reads, c.verifies)
			}
		})
	}
}

// TestExemptionsAndModes: an exempt finding is recorded and denies nothing; a warning never denies.
func TestExemptionsAndModes(t *testing.T) {
	request := podOf(t, m{"containers": []m{{"name": "dev", "image": "r.io/a:v1@" + someDigest}}})
	find := func(in *Input) []Finding {
		return []Finding{{Rule: "golden", Image: in.Images[0], Message: "is not golden", Fix: "use another"}}
	}
	r := reviewerWith(t, find)
	r.Rules = []Rule{{Name: "golden"}}
	r.Catalogue = CataloguerFunc(func(_ *Request, image *Image) {
		image.Entry.Exemptions = []Exemption{{Name: "matlab", Rules: []string{"golden"}}}
	})
	if d := r.Validate(t.Context(), request); !d.Allow() || len(d.Findings) != 1 || d.Findings[0].Exemption != "matlab" || d.Findings[0].Mode != Audit {
		t.Errorf("exempt: %+v", d)
	}
	r.Catalogue = CataloguerFunc(func(*Request, *Image) {})
	r.Modes = ModerFunc(func(string, string) Mode { return Warn })
	d := r.Validate(t.Context(), request)
	if want := []string{"hallmark: containers[dev]: golden: is not golden; use another"}; !d.Allow() || !slices.Equal(d.Warnings, want) {
		t.Errorf("warn: %s, %q; want %q", d.Outcome, d.Warnings, want)
	}
	r.Modes = ModerFunc(func(string, string) Mode { return Enforce })
	r.Judge = JudgeFunc(func(_ context.Context, _ Phase, in *Input) ([]Finding, error) {
		found := find(in)
		found[0].Warning = true
		return found, nil
	})
	if d := r.Validate(t.Context(), request); !d.Allow() || len(d.Warnings) != 1 {
		t.Errorf("warn set in enforce: %+v", d)
	}
}

// TestJudgeFails: a judge that cannot judge allows nothing.
func TestJudgeFails(t *testing.T) {
	r := reviewerWith(t, nil)
	r.Judge = JudgeFunc(func(context.Context, Phase, *Input) ([]Finding, error) { return nil, errors.New("broken") })
	d := r.Validate(t.Context(), podOf(t, m{"containers": []m{{"name": "dev", "image": "r.io/a:v1"}}}))
	if d.Allow() || d.Outcome != Failed || d.Code != 500 || d.Err == nil {
		t.Errorf("got %+v", d)
	}
}

// TestDeadlineWhileReading: what takes all the time is named as the reason, and is no fault of the policy.
func TestDeadlineWhileReading(t *testing.T) {
	r := reviewerWith(t, nil)
	r.Rules, r.Catalogue = []Rule{{Name: "signature", Needs: FactSignatures}}, CataloguerFunc(covered)
	r.Verifier = VerifierFunc(func(ctx context.Context, _ Reference, _ []SignatureRule) (Signatures, error) {
		<-ctx.Done()
		return Signatures{}, ctx.Err()
	})
	r.Judge = JudgeFunc(func(ctx context.Context, _ Phase, _ *Input) ([]Finding, error) { return nil, ctx.Err() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	d := r.Validate(ctx, podOf(t, m{"containers": []m{{"name": "dev", "image": "r.io/a:v1@" + someDigest}}}))
	if d.Outcome != Undecided || d.Code != 503 || !strings.Contains(d.Message, "could not be checked: r.io did not answer in time; try again.") {
		t.Errorf("got %s with %d: %s", d.Outcome, d.Code, d.Message)
	}
}

// TestTagJustMoved: a pod that was pinned to what its tag named until a moment ago is judged by that; any other digest is not.
func TestTagJustMoved(t *testing.T) {
	before, now := "sha256:"+strings.Repeat("b", 64), "sha256:"+strings.Repeat("c", 64)
	r := reviewerWith(t, nil)
	r.Rules, r.Catalogue = []Rule{{Name: "tag", Needs: FactTagDigest}}, CataloguerFunc(covered)
	r.Judge = JudgeFunc(func(context.Context, Phase, *Input) ([]Finding, error) { return nil, nil })
	r.Reader = ImageReaderFunc(func(context.Context, Reference, Depth) (*Content, error) {
		return &Content{Digest: now, Before: before}, nil
	})
	for written, want := range map[string]string{before: before, now: now, someDigest: now} {
		d := r.Validate(t.Context(), podOf(t, m{"containers": []m{{"name": "dev", "image": "r.io/a:v1@" + written}}}))
		if len(d.Images) != 1 || d.Images[0].TagDigest != want {
			t.Errorf("%s: the tag is taken to name %+v, want %s", written, d.Images, want)
		}
	}
}

// TestReadersRunTogether: the images of one pod are read side by side, and a panic in one comes up in the request.
func TestReadersRunTogether(t *testing.T) {
	request := podOf(t, m{"containers": []m{{"name": "a", "image": "r.io/a:v1"}, {"name": "b", "image": "r.io/b:v1"}}})
	r := reviewerWith(t, func(*Input) []Finding { return nil })
	r.Catalogue = CataloguerFunc(covered)
	both := make(chan struct{}, 2)
	r.Reader = ImageReaderFunc(func(ctx context.Context, _ Reference, _ Depth) (*Content, error) {
		both <- struct{}{}
		for len(both) < 2 {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			time.Sleep(time.Millisecond)
		}
		return &Content{Digest: someDigest}, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if d := r.Mutate(ctx, request); strings.Count(string(d.Patch), `"replace"`) != 2 {
		t.Errorf("patch %s", d.Patch)
	}
	r.Reader = ImageReaderFunc(func(context.Context, Reference, Depth) (*Content, error) { panic("reader") })
	defer func() {
		if p := recover(); p == nil || !strings.Contains(p.(string), "reader") {
			t.Errorf("recovered %v", p)
		}
	}()
	r.Mutate(ctx, request)
}

// TestImageFieldsOfKubernetes walks the pod type of the Kubernetes API and fails when a release adds a field that may
// name an image: then selection has to learn it.
func TestImageFieldsOfKubernetes(t *testing.T) {
	known := map[string]bool{
		"spec.containers.image": true, "spec.initContainers.image": true, "spec.volumes.image": true,
		"spec.volumes.image.reference":   true,
		"spec.ephemeralContainers.image": true, // embedded in EphemeralContainerCommon
		// Not container images: a block device of Ceph, and the pull policy of what is known already.
		"spec.volumes.rbd.image": true,
	}
	found := map[string]bool{}
	walkFields(reflect.TypeFor[corev1.PodSpec](), "spec", map[reflect.Type]int{}, func(path, name string) {
		lower := strings.ToLower(name)
		if lower == "image" || lower == "reference" || strings.HasSuffix(lower, "image") {
			found[path] = true
		}
	})
	for path := range found {
		if !known[path] {
			t.Errorf("%s may name an image and nobody looks at it", path)
		}
	}
	for path := range known {
		if !found[path] {
			t.Errorf("%s is no longer a field", path)
		}
	}
}

func walkFields(typ reflect.Type, path string, seen map[reflect.Type]int, visit func(path, name string)) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || seen[typ] > 2 {
		return
	}
	seen[typ]++
	defer func() { seen[typ]-- }()
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		next := path
		if name != "" {
			next = path + "." + name
			visit(next, name)
		}
		walkFields(field.Type, next, seen, visit)
	}
}

// FuzzReadReview: no input panics, and what is read can be decided.
func FuzzReadReview(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE","kind":{"kind":"Pod"},"object":{"spec":{"containers":[{"name":"a","image":"r.io/a:v1"}]}}}}`))
	f.Add([]byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"UPDATE","kind":{"group":"batch","kind":"CronJob"},"object":{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"volumes":[{"image":null}]}}}}}},"oldObject":{}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		request, err := ReadReview(body)
		if err != nil {
			if len(err.Error()) > 500 {
				t.Fatalf("an error of %d bytes: %v", len(err.Error()), err)
			}
			return
		}
		r := reviewerWith(t, func(*Input) []Finding { return nil })
		r.Mutate(t.Context(), request)
		r.Validate(t.Context(), request)
	})
}
