package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

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

// inactive is the first configuration with entries whose rules are not the wanted ones, and their indices. The mutating one
// stands first among the configurations.
func (s state) inactive(rules map[string][]rule) (target int, entries []int) {
	for i, c := range s.configurations {
		for j, e := range c.entries {
			if want, named := rules[e.name]; named && !sameRules(e.rules, want) {
				entries = append(entries, j)
			}
		}
		if entries != nil {
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
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Webhooks []patchedEntry `json:"webhooks"`
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

func (c configuration) rulesPatch(entries []int, rules map[string][]rule) ([]byte, error) {
	var p patch
	p.Metadata.ResourceVersion = c.version
	for _, i := range entries {
		p.Webhooks = append(p.Webhooks, patchedEntry{Name: c.entries[i].name, Rules: rules[c.entries[i].name]})
	}
	return json.Marshal(p)
}
