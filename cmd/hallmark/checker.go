package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/policy"
	"github.com/hallmark-admission/hallmark/webhook/source"
)

// A checker judges objects of files under one configuration.
type checker struct {
	reviewer *webhook.Reviewer
	config   *config.Config
	rules    []ruleDescription
	left     *leftOut                        // offline; nil otherwise
	wait     func(ctx context.Context) error // for trust material that is read from outside
	close    func()
}

// newChecker makes what judges. Online it is a generation as the webhook has it, but with a memory of its own: the
// directory of the configuration belongs to a webhook, and pull secrets to a cluster.
func newChecker(ctx context.Context, c *config.Config, policies policy.Source, offline bool) (*checker, error) {
	if offline {
		return newOfflineChecker(ctx, c, policies)
	}
	c.Cache.Dir = ""
	c.PullSecrets.Enabled = false
	store, err := openStore(c, int64(c.Cache.MaxBytes))
	if err != nil {
		return nil, err
	}
	g, err := newGeneration(ctx, c, policies, outside{now: time.Now, store: store})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &checker{
		reviewer: g.reviewer, config: c, rules: checkRules(g.reviewer.Judge),
		wait: func(ctx context.Context) error {
			bounded, cancel := context.WithTimeout(ctx, time.Duration(c.Limits.Deadline))
			defer cancel()
			return g.trust.Wait(bounded)
		},
		close: func() {
			_ = store.Close() // it has no directory that could fail
			g.close()
		},
	}, nil
}

// checkRules describes the rules, as far as a report needs it.
func checkRules(judge webhook.Judge) []ruleDescription {
	engine, ok := judge.(*policy.Engine)
	if !ok {
		return nil
	}
	metadata := engine.Metadata()
	var rules []ruleDescription
	for _, rule := range engine.Rules() {
		m := metadata[rule.Name]
		rules = append(rules, ruleDescription{Name: rule.Name, Title: m.Title, Description: m.Description, Fix: m.Fix})
	}
	return rules
}

// judge asks both halves about an object, the second about what the first has made of it, as an API server does.
func (c *checker) judge(ctx context.Context, file string, o *source.Object) checkResult {
	request := *o.Request
	mutated := c.ask(ctx, c.reviewer.Mutate, &request)
	d := mutated
	if mutated.Allow() {
		if err := applyPatch(&request, mutated.Patch); err != nil {
			d = webhook.Decision{Outcome: webhook.Failed, Message: err.Error()}
		} else {
			d = c.ask(ctx, c.reviewer.Validate, &request)
		}
	}
	r := checkResult{
		Source: file, Line: o.Line, Kind: o.Kind, Namespace: o.Namespace, Name: cmp.Or(o.Name, d.Name),
		Decision: checkUndecided, Message: d.Message, Warnings: d.Warnings,
	}
	switch {
	case d.Allow():
		r.Decision = checkAllowed
	case d.Outcome == webhook.Denied:
		r.Decision = checkDenied
	}
	for _, warning := range mutated.Warnings {
		if !slices.Contains(r.Warnings, warning) {
			r.Warnings = append(r.Warnings, warning)
		}
	}
	if d.Err != nil {
		r.Message += "\n" + d.Err.Error()
	}
	if mutated.Patch != nil {
		_ = json.Unmarshal(mutated.Patch, &r.Patch) // applied before
	}
	for _, f := range d.Findings {
		r.Findings = append(r.Findings, c.finding(file, o, f))
	}
	if c.left != nil {
		r.unchecked = c.left.of(o.Namespace, d)
	}
	return r.filled()
}

// ask gives a half the time that the webhook would have.
func (c *checker) ask(ctx context.Context, half func(context.Context, *webhook.Request) webhook.Decision,
	request *webhook.Request,
) webhook.Decision {
	bounded, cancel := context.WithTimeout(ctx, time.Duration(c.config.Limits.Deadline))
	defer cancel()
	return half(bounded, request)
}

func applyPatch(request *webhook.Request, text []byte) error {
	if text == nil {
		return nil
	}
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		return fmt.Errorf("decode patch: %w", err)
	}
	if request.Object, err = patch.Apply(request.Object); err != nil {
		return fmt.Errorf("apply patch: %w", err)
	}
	return nil
}

func (c *checker) finding(file string, o *source.Object, f webhook.Finding) checkFinding {
	found := checkFinding{
		Rule: f.Rule, Mode: string(f.Mode), Message: f.Message, Fix: f.Fix, Source: file, Line: o.Line,
		Exemption: f.Exemption,
	}
	if f.Undecided && !f.Missing {
		found.Message = "could not be checked: " + f.Message
	}
	if f.Image == nil {
		return found
	}
	found.Where, found.Pointer, found.Image = f.Image.Where, f.Image.Pointer, f.Image.Describe()
	found.Line = o.LineOf(f.Image.Pointer)
	if found.Fix == "" && !f.Undecided && slices.Contains([]string{"reference", "registry", "tag", "golden"}, f.Rule) {
		if instead := c.reviewer.Suggest.Suggest(f.Image); instead != "" && instead != f.Image.Ref.String() {
			found.Fix = "use " + instead
		}
	}
	return found
}
