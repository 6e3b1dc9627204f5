package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"go.yaml.in/yaml/v3"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/policy"
)

// A suite is a *_suite.yaml file: admissions from end to end, with what the registry would answer. docs/policies.md
// describes it.
type suite struct {
	Configuration string                   `yaml:"configuration"` // file, beside the suite
	Time          time.Time                `yaml:"time"`          // of the decisions; now when left out
	Images        map[string]recordedImage `yaml:"images"`        // by reference, with a tag
	Cases         []suiteCase              `yaml:"cases"`
}

// A suiteCase is an object and what has to come of it.
type suiteCase struct {
	Name      string         `yaml:"name"`
	File      string         `yaml:"file"` // with the object, beside the suite
	Object    map[string]any `yaml:"object"`
	Old       map[string]any `yaml:"old"` // before, which makes it an UPDATE
	Namespace string         `yaml:"namespace"`
	User      struct {
		Name   string   `yaml:"name"`
		Groups []string `yaml:"groups"`
	} `yaml:"user"`
	Expect struct {
		Decision string             `yaml:"decision"` // allowed, denied or undecided
		Message  string             `yaml:"message"`  // a part of it
		Findings *[]expectedFinding `yaml:"findings"` // all of them, in any mode; not compared when left out
	} `yaml:"expect"`

	line int
}

type expectedFinding struct {
	Rule    string `yaml:"rule"`
	Where   string `yaml:"where"`
	Mode    string `yaml:"mode"`    // "" is any
	Message string `yaml:"message"` // a part of it
}

// UnmarshalYAML remembers where a case stands.
func (c *suiteCase) UnmarshalYAML(node *yaml.Node) error {
	type plain suiteCase
	c.line = node.Line
	return node.Decode((*plain)(c))
}

// runSuite runs the cases of a suite under the shipped rules and those of source that stand beside the suite or below. An outcome without a message has passed.
func runSuite(ctx context.Context, file string, source policy.Source, run string) ([]testOutcome, error) {
	only, err := regexp.Compile(run)
	if err != nil {
		return nil, fmt.Errorf("--run: %w", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var s suite
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&s); err != nil {
		return nil, err
	}
	reviewer, err := s.reviewer(ctx, filepath.Dir(file), source)
	if err != nil {
		return nil, err
	}
	var outcomes []testOutcome
	for _, c := range s.Cases {
		name := strings.TrimSuffix(filepath.Base(file), "_suite.yaml") + ": " + c.Name
		if !only.MatchString(name) {
			continue
		}
		o := testOutcome{Name: name, File: file, Line: c.line}
		decision, err := c.decide(ctx, reviewer, filepath.Dir(file))
		if err != nil {
			o.Message = err.Error()
		} else {
			o.Message = strings.Join(c.differences(decision), "\n")
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

func (s *suite) reviewer(ctx context.Context, dir string, own policy.Source) (*webhook.Reviewer, error) {
	if s.Configuration == "" {
		return nil, errors.New("configuration is missing: name the configuration file under which the cases are judged")
	}
	name := filepath.Join(dir, s.Configuration)
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	now := time.Now
	if !s.Time.IsZero() {
		now = func() time.Time { return s.Time }
	}
	c, _, err := config.Load(text, now())
	if err != nil {
		return nil, fmt.Errorf("%s:\n%w", name, err)
	}
	rules, err := shippedPolicies(nil)
	if err != nil {
		return nil, err
	}
	for file, text := range own {
		below := strings.HasPrefix(filepath.Clean(file), filepath.Clean(dir)+string(filepath.Separator)) || filepath.Clean(dir) == "."
		if below && !strings.HasSuffix(file, "_test.rego") {
			rules[file] = text
		}
	}
	rc, err := reviewing(ctx, c, rules, now)
	if err != nil {
		return nil, err
	}
	recorded, err := newAnswers(s.Images)
	if err != nil {
		return nil, err
	}
	rc.Reader, rc.Verifier, rc.Attester = recorded, recorded, recorded
	return webhook.New(rc)
}

// decide sends the object through both halves, as the API server does.
func (c *suiteCase) decide(ctx context.Context, reviewer *webhook.Reviewer, dir string) (webhook.Decision, error) {
	if c.File != "" {
		text, err := os.ReadFile(filepath.Join(dir, c.File))
		if err != nil {
			return webhook.Decision{}, err
		}
		if err := yaml.Unmarshal(text, &c.Object); err != nil {
			return webhook.Decision{}, fmt.Errorf("%s: %w", c.File, err)
		}
	}
	request, err := c.request()
	if err != nil {
		return webhook.Decision{}, err
	}
	mutated := reviewer.Mutate(ctx, request)
	if !mutated.Allow() {
		return mutated, nil
	}
	if mutated.Patch != nil {
		patch, err := jsonpatch.DecodePatch(mutated.Patch)
		if err != nil {
			return webhook.Decision{}, err
		}
		if request.Object, err = patch.Apply(request.Object); err != nil {
			return webhook.Decision{}, err
		}
	}
	return reviewer.Validate(ctx, request), nil
}

func (c *suiteCase) request() (*webhook.Request, error) {
	if c.Object == nil {
		return nil, errors.New("the case has neither an object nor a file")
	}
	object, err := json.Marshal(c.Object)
	if err != nil {
		return nil, err
	}
	var head struct {
		APIVersion string
		Kind       string
		Metadata   struct{ Name, Namespace string }
	}
	if err := json.Unmarshal(object, &head); err != nil {
		return nil, err
	}
	group, _, grouped := strings.Cut(head.APIVersion, "/")
	if !grouped {
		group = ""
	}
	request := &webhook.Request{
		UID: "00000000-0000-4000-8000-000000000000", Operation: webhook.Create, Group: group, Kind: head.Kind, Name: head.Metadata.Name,
		Namespace: c.Namespace, Object: object, User: webhook.RequestUser{Name: c.User.Name, Groups: c.User.Groups},
	}
	if request.Namespace == "" {
		request.Namespace = head.Metadata.Namespace
	}
	if c.Old != nil {
		request.Operation = webhook.Update
		request.OldObject, err = json.Marshal(c.Old)
	}
	return request, err
}

// differences says what came out otherwise than expected.
func (c *suiteCase) differences(d webhook.Decision) []string {
	var differ []string
	decision := string(d.Outcome)
	if d.Allow() {
		decision = "allowed"
	}
	if want := c.Expect.Decision; want != "" && want != decision {
		differ = append(differ, fmt.Sprintf("decision: got %s, want %s", decision, want))
	}
	if !strings.Contains(d.Message, c.Expect.Message) {
		differ = append(differ, fmt.Sprintf("message: got %q, want a part %q", d.Message, c.Expect.Message))
	}
	if c.Expect.Findings != nil {
		differ = append(differ, findingDifferences(d.Findings, *c.Expect.Findings)...)
	}
	if len(differ) > 0 && d.Message != "" {
		differ = append(differ, d.Message)
	}
	return differ
}

func findingDifferences(got []webhook.Finding, want []expectedFinding) []string {
	var differ []string
	left := slices.Clone(got)
	for _, w := range want {
		i := slices.IndexFunc(left, func(f webhook.Finding) bool {
			return f.Rule == w.Rule && w.Where == whereOf(f) && (w.Mode == "" || w.Mode == string(f.Mode)) && strings.Contains(f.Message, w.Message)
		})
		if i < 0 {
			differ = append(differ, fmt.Sprintf("finding: want %s at %q %s, which is not there", w.Rule, w.Where, w.Message))
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, f := range left {
		differ = append(differ, fmt.Sprintf("finding: got %s at %q: %s, which is not expected", f.Rule, whereOf(f), f.Message))
	}
	return differ
}

func whereOf(f webhook.Finding) string {
	if f.Image == nil {
		return ""
	}
	return f.Image.Where
}

// A recordedImage is what a registry would answer, and whose signatures would be found good.
type recordedImage struct {
	Digest       string            `yaml:"digest"` // one of its own when left out
	User         string            `yaml:"user"`
	Platform     string            `yaml:"platform"` // linux/amd64 when left out
	Labels       map[string]string `yaml:"labels"`
	Layers       []string          `yaml:"layers"` // diff IDs, or any names
	BaseDigest   string            `yaml:"baseDigest"`
	Created      time.Time         `yaml:"created"`
	Signatures   []signedBy        `yaml:"signatures"`
	Attestations []struct {
		PredicateType string   `yaml:"predicateType"`
		Predicate     any      `yaml:"predicate"`
		By            signedBy `yaml:",inline"`
	} `yaml:"attestations"`
	Unavailable string `yaml:"unavailable"` // why it cannot be read: "did not answer within 3s"
}

type signedBy struct {
	Signer   string    `yaml:"signer"`
	Identity string    `yaml:"identity"`
	Issuer   string    `yaml:"issuer"`
	At       time.Time `yaml:"at"`
}

// Answers stand for registry and signatures.
type answers struct {
	byName   map[string]*recordedImage // by reference, by tag and by digest
	attested map[*recordedImage][]webhook.Attestation
}

func newAnswers(images map[string]recordedImage) (*answers, error) {
	r := &answers{byName: map[string]*recordedImage{}, attested: map[*recordedImage][]webhook.Attestation{}}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(images)) {
		image := images[name]
		ref, err := webhook.ParseReference(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("images: %w", err))
			continue
		}
		if image.Digest == "" {
			image.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name)))
		}
		for _, a := range image.Attestations {
			text, err := json.Marshal(a.Predicate)
			errs = append(errs, err)
			r.attested[&image] = append(r.attested[&image], webhook.Attestation{
				PredicateType: a.PredicateType, Predicate: &webhook.Predicate{JSON: text}, Signer: a.By.Signer, Digest: image.Digest,
				Identity: a.By.Identity, Issuer: a.By.Issuer, At: a.By.At,
			})
		}
		r.byName[ref.WithDigest("").String()] = &image
		r.byName[ref.WithTag("").WithDigest(image.Digest).String()] = &image
	}
	return r, errors.Join(errs...)
}

func (r *answers) find(ref webhook.Reference) (*recordedImage, error) {
	if ref.Digest != "" {
		ref.Tag = ""
	}
	image := r.byName[ref.String()]
	switch {
	case image == nil:
		return nil, &webhook.ReadError{Failure: webhook.NotFound, Registry: ref.Registry, Reason: "has nothing of that name in the suite"}
	case image.Unavailable != "":
		return nil, &webhook.ReadError{Failure: webhook.Unavailable, Registry: ref.Registry, Reason: image.Unavailable}
	}
	return image, nil
}

// ReadImage implements webhook.ImageReader.
func (r *answers) ReadImage(_ context.Context, ref webhook.Reference, _ webhook.Depth) (*webhook.Content, error) {
	image, err := r.find(ref)
	if err != nil {
		return nil, err
	}
	os, architecture, _ := strings.Cut(cmp.Or(image.Platform, "linux/amd64"), "/")
	return &webhook.Content{Digest: image.Digest, MediaType: "application/vnd.oci.image.manifest.v1+json", Platforms: []webhook.Platform{{
		OS: os, Architecture: architecture, Digest: image.Digest, User: image.User, Labels: image.Labels, Layers: image.Layers,
		BaseDigest: image.BaseDigest, Created: image.Created,
	}}}, nil
}

// Verify implements webhook.Verifier.
func (r *answers) Verify(_ context.Context, ref webhook.Reference, _ []webhook.SignatureRule) (webhook.Signatures, error) {
	image, err := r.find(ref)
	if err != nil {
		return webhook.Signatures{}, err
	}
	found := webhook.Signatures{Found: len(image.Signatures)}
	for _, s := range image.Signatures {
		signature := webhook.Signature{Signer: s.Signer, Digest: image.Digest, Identity: s.Identity, Issuer: s.Issuer, At: s.At}
		if s.Identity == "" {
			signature.Key = s.Signer // another key a signer
		}
		found.Valid = append(found.Valid, signature)
	}
	return found, nil
}

// Attest implements webhook.Attester.
func (r *answers) Attest(_ context.Context, ref webhook.Reference, rules []webhook.AttestationRule) (webhook.Attestations, error) {
	image, err := r.find(ref)
	if err != nil {
		return webhook.Attestations{}, err
	}
	var found webhook.Attestations
	for _, a := range r.attested[image] {
		if slices.ContainsFunc(rules, func(rule webhook.AttestationRule) bool { return rule.PredicateType == a.PredicateType }) {
			found.Valid = append(found.Valid, a)
			found.Found++
		}
	}
	return found, nil
}
