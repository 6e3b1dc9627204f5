package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/config"
)

type replayFlags struct {
	config   string
	policies []string
	output   string
}

func newReplay(io streams) *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use:   "replay --config FILE RECORDING",
		Short: "Judge recorded admissions again, under another configuration and other policies",
		Long: `Replay judges what "hallmark serve --record DIR" has recorded under the configuration and the policies that are given,
and tells which admissions would have ended otherwise, grouped by rule, template and owner. Nobody is asked: a rule that
needs what was not recorded leaves an admission open.

Exit code 0: it was replayed, whatever came of it; 2: it could not be.`,
		Example: "  hallmark replay --config tomorrow.yaml --policies policies recordings",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.output != "text" && f.output != "json" {
				return hinted{fmt.Errorf("there is no output format %q", f.output), "want text or json"}
			}
			result, err := replay(cmd.Context(), args[0], f)
			if err != nil {
				return err
			}
			return result.print(io.out, f.output)
		},
	}
	cmd.Flags().StringVar(&f.config, "config", "", "configuration `file`")
	cmd.Flags().StringArrayVar(&f.policies, "policies", nil, "`directory` of Rego rules, added to the shipped ones; may be repeated")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "`format`: text or json")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // a name that is not a flag
	}
	return cmd
}

// A replayed is the result of a replay, as -o json prints it; docs/cli.md describes it.
type replayed struct {
	Records int      `json:"records"`
	Same    int      `json:"same"`
	Changes []change `json:"changes"` // in the order of the recording
	Groups  []group  `json:"groups"`  // the largest first
}

// A change is an admission that would end otherwise.
type change struct {
	Time      time.Time         `json:"time"`
	Kind      string            `json:"kind"`
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Template  string            `json:"template"`
	Owner     string            `json:"owner"`
	Was       string            `json:"was"` // allowed, denied or undecided
	Now       string            `json:"now"`
	Rules     []string          `json:"rules"` // that make the difference
	Findings  []recordedFinding `json:"findings"`
	Message   string            `json:"message"`
}

// A group is what changes have in common.
type group struct {
	Now        string   `json:"now"`
	Rule       string   `json:"rule"`
	Template   string   `json:"template"`
	Admissions int      `json:"admissions"`
	Owners     []string `json:"owners"`
}

func replay(ctx context.Context, path string, f replayFlags) (*replayed, error) {
	records, err := readRecords(path)
	if err != nil {
		return nil, fmt.Errorf("read the recording: %w", err)
	}
	if len(records) == 0 {
		return nil, hinted{fmt.Errorf("there is nothing recorded in %s", path), "hallmark serve --record DIR makes recordings"}
	}
	text, err := os.ReadFile(f.config)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, _, err := config.Load(text, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%s:\n%w", f.config, err)
	}
	source, err := shippedPolicies(f.policies)
	if err != nil {
		return nil, err
	}
	if err := addBundles(ctx, c, source); err != nil {
		return nil, err
	}
	var now time.Time // that of the record that is being judged
	rc, err := reviewing(ctx, c, source, func() time.Time { return now })
	if err != nil {
		return nil, err
	}
	result := &replayed{Records: len(records), Changes: []change{}, Groups: []group{}}
	for _, r := range records {
		now = r.Time
		facts := remembered{r.Images}
		rc.Reader, rc.Verifier, rc.Attester = facts, facts, facts
		reviewer, err := webhook.New(rc)
		if err != nil {
			return nil, err
		}
		if changed, differs := r.compare(reviewer.Validate(ctx, r.request())); differs {
			result.Changes = append(result.Changes, changed)
		} else {
			result.Same++
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	result.group()
	return result, nil
}

func (r *record) request() *webhook.Request {
	q := r.Request
	return &webhook.Request{
		UID: q.UID, Operation: q.Operation, Group: q.Group, Kind: q.Kind, SubResource: q.SubResource, Namespace: q.Namespace,
		Name: q.Name, User: q.User, DryRun: q.DryRun, Object: q.Object, OldObject: q.OldObject,
	}
}

// compare says what would be otherwise.
func (r *record) compare(d webhook.Decision) (change, bool) {
	was, now := plainOutcome(r.Decision), plainOutcome(d.Outcome)
	if was == now {
		return change{}, false
	}
	c := change{
		Time: r.Time, Kind: r.Request.Kind, Namespace: r.Request.Namespace, Name: r.Request.Name,
		Template: r.Workspace.Template, Owner: r.Workspace.Owner, Was: was, Now: now, Message: d.Message,
	}
	for _, f := range d.Findings {
		found := recordedFinding{f.Rule, f.Mode, whereOf(f), f.Message}
		c.Findings = append(c.Findings, found)
		if f.Mode == webhook.Enforce && !slices.Contains(c.Rules, f.Rule) {
			c.Rules = append(c.Rules, f.Rule)
		}
	}
	if now == "allowed" { // the rules that denied it then
		for _, f := range r.Findings {
			if f.Mode == webhook.Enforce && !slices.Contains(c.Rules, f.Rule) {
				c.Rules = append(c.Rules, f.Rule)
			}
		}
	}
	return c, true
}

func plainOutcome(outcome webhook.Outcome) string {
	switch outcome {
	case webhook.Allowed, webhook.Patched:
		return "allowed"
	case webhook.Denied:
		return "denied"
	}
	return "undecided"
}

func (r *replayed) group() {
	type key struct{ now, rule, template string }
	groups := map[key]*group{}
	for _, c := range r.Changes {
		for _, rule := range c.Rules {
			k := key{c.Now, rule, c.Template}
			if groups[k] == nil {
				groups[k] = &group{Now: c.Now, Rule: rule, Template: c.Template, Owners: []string{}}
			}
			g := groups[k]
			g.Admissions++
			if c.Owner != "" && !slices.Contains(g.Owners, c.Owner) {
				g.Owners = append(g.Owners, c.Owner)
			}
		}
	}
	for _, g := range groups {
		slices.Sort(g.Owners)
		r.Groups = append(r.Groups, *g)
	}
	slices.SortFunc(r.Groups, func(a, b group) int {
		return cmp.Or(cmp.Compare(b.Admissions, a.Admissions), cmp.Compare(a.Now, b.Now), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Template, b.Template))
	})
}

func (r *replayed) print(out io.Writer, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(r)
	}
	var b strings.Builder
	for _, g := range r.Groups {
		fmt.Fprintf(&b, "%s by %s: %d", newly(g.Now), g.Rule, g.Admissions)
		if g.Template != "" {
			fmt.Fprintf(&b, ", template %s", g.Template)
		}
		const most = 5
		if n := len(g.Owners); n > most {
			fmt.Fprintf(&b, ", of %s and %d more", strings.Join(g.Owners[:most], ", "), n-most)
		} else if n > 0 {
			fmt.Fprintf(&b, ", of %s", strings.Join(g.Owners, ", "))
		}
		b.WriteString("\n")
	}
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "\n%s %s %s/%s: %s, was %s\n", c.Time.Format(time.RFC3339), c.Kind, c.Namespace, c.Name, c.Now, c.Was)
		for line := range strings.Lines(c.Message) {
			fmt.Fprintf(&b, "  %s\n", strings.TrimRight(line, "\n"))
		}
	}
	counts := map[string]int{}
	for _, c := range r.Changes {
		counts[c.Now]++
	}
	if len(r.Changes) > 0 {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d admissions, %d the same", r.Records, r.Same)
	for _, now := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, ", %d %s", counts[now], newly(now))
	}
	b.WriteString("\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func newly(now string) string {
	if now == "undecided" {
		return "left open"
	}
	return "newly " + now
}

// Remembered are the facts of one record, as a registry would give them.
type remembered struct{ images []recordedFacts }

// find gives the facts of an image. What is not there was not needed then.
func (r remembered) find(ref webhook.Reference, has func(recordedFacts) bool) (recordedFacts, error) {
	for _, f := range r.images {
		known, err := webhook.ParseReference(f.Ref)
		if err != nil || known.Name() != ref.Name() || ref.Digest != "" && ref.Digest != f.Digest || ref.Digest == "" && known.Tag != ref.Tag {
			continue
		}
		if has(f) {
			return f, nil
		}
		for _, u := range f.Unknown {
			failure := webhook.Invalid
			if u.Retry {
				failure = webhook.Unavailable
			}
			return f, &webhook.ReadError{Failure: failure, Registry: ref.Registry, Reason: "could not be read when it was recorded: " + u.Reason}
		}
	}
	return recordedFacts{}, &webhook.ReadError{Failure: webhook.Unavailable, Registry: ref.Registry, Reason: "was not asked for this when it was recorded"}
}

// ReadImage implements webhook.ImageReader.
func (r remembered) ReadImage(_ context.Context, ref webhook.Reference, depth webhook.Depth) (*webhook.Content, error) {
	if ref.Digest == "" {
		f, err := r.find(ref, func(f recordedFacts) bool { return f.TagDigest != "" })
		return &webhook.Content{Digest: f.TagDigest}, err
	}
	f, err := r.find(ref, func(f recordedFacts) bool {
		return f.Content != nil && (depth == webhook.DigestOnly || len(f.Content.Platforms) > 0)
	})
	return f.Content, err
}

// Verify implements webhook.Verifier.
func (r remembered) Verify(_ context.Context, ref webhook.Reference, _ []webhook.SignatureRule) (webhook.Signatures, error) {
	f, err := r.find(ref, func(f recordedFacts) bool { return f.Signatures != nil })
	if err != nil {
		return webhook.Signatures{}, err
	}
	return *f.Signatures, nil
}

// Attest implements webhook.Attester.
func (r remembered) Attest(_ context.Context, ref webhook.Reference, rules []webhook.AttestationRule) (webhook.Attestations, error) {
	f, err := r.find(ref, func(f recordedFacts) bool { return f.Attested != nil })
	if err != nil {
		return webhook.Attestations{}, err
	}
	found := webhook.Attestations{Found: f.Attested.Found, Rejected: f.Attested.Rejected}
	for _, s := range f.Attested.Valid {
		if slices.ContainsFunc(rules, func(rule webhook.AttestationRule) bool { return rule.PredicateType == s.PredicateType }) {
			found.Valid = append(found.Valid, webhook.Attestation{
				PredicateType: s.PredicateType, Predicate: &webhook.Predicate{JSON: s.Predicate}, Signer: s.Signer, Digest: f.Digest,
				Identity: s.Identity, Issuer: s.Issuer, At: s.At,
			})
		}
	}
	return found, nil
}
