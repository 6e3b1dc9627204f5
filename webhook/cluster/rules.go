package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/yaml"
)

// A rule is what an API server calls an entry for, as in a webhook configuration.
type rule struct {
	Operations  []string `json:"operations"`
	APIGroups   []string `json:"apiGroups"`
	APIVersions []string `json:"apiVersions"`
	Resources   []string `json:"resources"`
	Scope       string   `json:"scope,omitempty"`
}

// readRules decodes the file of rules: those of each entry, by its name. Unknown keys are errors: they would be rules that
// somebody believes in.
func readRules(text []byte) (map[string][]rule, error) {
	var rules map[string][]rule
	if err := yaml.UnmarshalStrict(text, &rules); err != nil {
		return nil, err
	}
	if len(rules) == 0 {
		return nil, errors.New("it names no webhook; want a map from the name of an entry to its rules")
	}
	for name, list := range rules {
		if len(list) == 0 {
			return nil, fmt.Errorf("%s has no rules", name)
		}
		for i := range list {
			if list[i].Scope == "" {
				list[i].Scope = "*" // as the API server fills it in
			}
		}
	}
	return rules, nil
}

func sameRules(a, b []rule) bool {
	return slices.EqualFunc(a, b, func(a, b rule) bool {
		return slices.Equal(a.Operations, b.Operations) && slices.Equal(a.APIGroups, b.APIGroups) &&
			slices.Equal(a.APIVersions, b.APIVersions) && slices.Equal(a.Resources, b.Resources) && a.Scope == b.Scope
	})
}

// activatedAnnotation is on a validating configuration that has been active, with the time at which it became so first. The
// backstop is silent until it is there: who has just installed Hallmark is not to be refused by a webhook that is still
// starting, and who takes the rules out of an active one is.
const activatedAnnotation = "hallmark.dev/activated"

// inactive is the first configuration with entries whose rules are not the wanted ones, and their indices: none when only the
// annotation is missing. The mutating one stands first among the configurations.
func (s state) inactive(rules map[string][]rule) (target int, entries []int) {
	for i, c := range s.configurations {
		named := false
		for j, e := range c.entries {
			want, ok := rules[e.name]
			named = named || ok
			if ok && !sameRules(e.rules, want) {
				entries = append(entries, j)
			}
		}
		if entries != nil || named && c.kind == validating && !c.activated {
			return i, entries
		}
	}
	return -1, nil
}

// missing names an entry that has rules and stands in no configuration, "" for none.
func (s state) missing(rules map[string][]rule) string {
	var absent []string
	for name := range rules {
		if !slices.ContainsFunc(s.configurations, func(c configuration) bool {
			return slices.ContainsFunc(c.entries, func(e entry) bool { return e.name == name })
		}) {
			absent = append(absent, name)
		}
	}
	if absent == nil {
		return ""
	}
	return slices.Min(absent)
}

// A patch changes own fields of some entries and nothing else. A resourceVersion makes it fail when somebody was faster.
type patch struct {
	Metadata struct {
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations,omitempty"`
	} `json:"metadata"`
	Webhooks []patchedEntry `json:"webhooks,omitempty"`
}

type patchedEntry struct {
	Name         string         `json:"name"`
	ClientConfig *patchedClient `json:"clientConfig,omitempty"`
	Rules        []rule         `json:"rules,omitempty"`
}

type patchedClient struct {
	CABundle []byte `json:"caBundle"`
}

func (c configuration) bundlePatch(bundle []byte) ([]byte, error) {
	var p patch
	p.Metadata.ResourceVersion = c.version
	for _, e := range c.entries {
		p.Webhooks = append(p.Webhooks, patchedEntry{Name: e.name, ClientConfig: &patchedClient{bundle}})
	}
	return json.Marshal(p)
}

func (c configuration) rulesPatch(now time.Time, entries []int, rules map[string][]rule) ([]byte, error) {
	var p patch
	p.Metadata.ResourceVersion = c.version
	if c.kind == validating && !c.activated {
		p.Metadata.Annotations = map[string]string{activatedAnnotation: now.UTC().Format(time.RFC3339)}
	}
	for _, i := range entries {
		p.Webhooks = append(p.Webhooks, patchedEntry{Name: c.entries[i].name, Rules: rules[c.entries[i].name]})
	}
	return json.Marshal(p)
}
