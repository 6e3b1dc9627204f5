package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/policy"
)

// errOffline is what every look-up gives offline.
var errOffline = errors.New("nothing is fetched with --offline")

// pinnedRule demands what only a registry can give, so offline it is not in force.
const pinnedRule = "pinned"

// newOfflineChecker makes a reviewer that has nobody to ask. Rules are judged as far as they need nothing fetched, and
// what they would have had fetched makes nothing undecided: leftOut names it instead.
func newOfflineChecker(ctx context.Context, c *config.Config, source policy.Source) (*checker, error) {
	rc, err := reviewing(ctx, c, source, time.Now)
	if err != nil {
		return nil, err
	}
	described := checkRules(rc.Judge)
	left := &leftOut{rules: slices.Clone(rc.Rules), modes: c}
	for i := range rc.Rules {
		rc.Rules[i].Needs, rc.Rules[i].Attested = 0, nil
	}
	engine := rc.Judge
	rc.Judge = webhook.JudgeFunc(
		func(ctx context.Context, phase webhook.Phase, in *webhook.Input) ([]webhook.Finding, error) {
			if phase != webhook.EarlyPhase {
				return nil, nil
			}
			return engine.Judge(ctx, phase, in)
		})
	rc.Modes = webhook.ModerFunc(func(rule, namespace string) webhook.Mode {
		if rule == pinnedRule {
			return webhook.Off
		}
		return c.Mode(rule, namespace)
	})
	rc.Reader = webhook.ImageReaderFunc(func(context.Context, webhook.Reference, webhook.Depth) (*webhook.Content, error) {
		return nil, errOffline
	})
	rc.Verifier = webhook.VerifierFunc(
		func(context.Context, webhook.Reference, []webhook.SignatureRule) (webhook.Signatures, error) {
			return webhook.Signatures{}, errOffline
		})
	rc.Attester = webhook.AttesterFunc(
		func(context.Context, webhook.Reference, []webhook.AttestationRule) (webhook.Attestations, error) {
			return webhook.Attestations{}, errOffline
		})
	reviewer, err := webhook.New(rc)
	if err != nil {
		return nil, err
	}
	return &checker{
		reviewer: reviewer, config: c, rules: described, left: left,
		wait: func(context.Context) error { return nil }, close: func() {},
	}, nil
}

// leftOut tells what was not judged for want of a registry.
type leftOut struct {
	rules []webhook.Rule // with the facts that they need
	modes webhook.Moder
}

// An uncheckedOffline is a rule that was not judged for an image, or not to its end.
type uncheckedOffline struct{ rule, image string }

// of lists what was left out for the images of a decision. An image that is denied would not have been contacted
// online either.
func (l *leftOut) of(namespace string, d webhook.Decision) []uncheckedOffline {
	var list []uncheckedOffline
	for _, image := range d.Images {
		denied := slices.ContainsFunc(d.Findings, func(f webhook.Finding) bool {
			return f.Image == image && f.Mode == webhook.Enforce
		})
		if denied || image.Error != "" {
			continue
		}
		for _, rule := range l.rules {
			exempted := slices.ContainsFunc(image.Entry.Exemptions, func(e webhook.Exemption) bool {
				return slices.Contains(e.Rules, rule.Name)
			})
			if !rule.Off && !exempted && l.modes.Mode(rule.Name, namespace) != webhook.Off && toFetch(rule, image) != 0 {
				list = append(list, uncheckedOffline{rule.Name, image.Ref.String()})
			}
		}
	}
	return list
}

// toFetch gives the facts that a rule needs and that there is something to fetch for.
func toFetch(rule webhook.Rule, image *webhook.Image) webhook.Fact {
	facts := rule.Needs
	entry := &image.Entry
	if image.User.Known {
		facts &^= webhook.FactUser
	}
	if len(entry.Signed) == 0 {
		facts &^= webhook.FactSignatures
	}
	if len(entry.Attested) == 0 && len(rule.Attested) == 0 {
		facts &^= webhook.FactAttestations
	}
	if len(entry.Bases) == 0 {
		facts &^= webhook.FactDerivedFrom
	}
	decorated := image.Ref.Tag != "" && image.Ref.Digest != "" && (entry.Tags == nil || !entry.Tags.Digest)
	locked := image.Ref.Digest == "" && entry.Golden != nil && entry.Golden.Follow == "locked"
	if !decorated && !locked {
		facts &^= webhook.FactTagDigest
	}
	return facts
}

// uncheckedWords sums up over all results: "signature of 3 images", sorted by rule.
func uncheckedWords(results []checkResult) []string {
	images := map[string][]string{}
	var rules []string
	for i := range results {
		for _, u := range results[i].unchecked {
			if images[u.rule] == nil {
				rules = append(rules, u.rule)
			}
			if !slices.Contains(images[u.rule], u.image) {
				images[u.rule] = append(images[u.rule], u.image)
			}
		}
	}
	slices.Sort(rules)
	words := make([]string, len(rules))
	for i, rule := range rules {
		words[i] = fmt.Sprintf("%s of %s", rule, plural(len(images[rule]), "image"))
	}
	return words
}
