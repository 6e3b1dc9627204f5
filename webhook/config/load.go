package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	k8syaml "sigs.k8s.io/yaml"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Config is a configuration without mistakes.
type Config struct {
	File
	Text []byte // as it was read
}

// A Problem is a mistake in the file, or a doubt.
type Problem struct {
	Line    int    // from 1; 0 when it is about something that is not there
	Path    string // registries[0].host
	Message string
	Warning bool
}

// String gives "line 12: registries[0].host: …".
func (p Problem) String() string {
	text := p.Message
	if p.Path != "" {
		text = p.Path + ": " + text
	}
	if p.Line > 0 {
		text = fmt.Sprintf("line %d: %s", p.Line, text)
	}
	return text
}

// Load reads a configuration. With a mistake among the problems there is none, and the error lists all of them.
func Load(text []byte, now time.Time) (*Config, []Problem, error) {
	c := &Config{File: defaults(), Text: text}
	v := &validator{now: now}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		v.syntax(err)
		return nil, v.problems, v.err()
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		v.add(Problem{Message: "the file must hold one document"})
	}
	v.root = &document
	v.keys(&document)
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(&c.File); err != nil {
		v.syntax(err)
	}
	v.file(&c.File)
	if err := v.err(); err != nil {
		return nil, v.problems, err
	}
	return c, v.problems, nil
}

// keys checks that every key is a plain word: the strict decoder passes over others.
func (v *validator) keys(node *yaml.Node) {
	if node.Kind == yaml.MappingNode {
		for i := 0; i < len(node.Content); i += 2 {
			if key := node.Content[i]; key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
				v.add(Problem{Line: key.Line, Message: "want a plain word as a key"})
			}
		}
	}
	for _, child := range node.Content {
		v.keys(child)
	}
}

// unknownField is what the YAML decoder says of a key that no struct has.
var unknownField = regexp.MustCompile(`^field (\S+) not found in type \S+$`)

// lineOf splits "line 12: text".
var lineOf = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)

// syntax turns errors of the YAML decoder into problems.
func (v *validator) syntax(err error) {
	texts := []string{err.Error()}
	var typed *yaml.TypeError
	if errors.As(err, &typed) {
		texts = typed.Errors
	}
	for _, text := range texts {
		p := Problem{Message: strings.TrimPrefix(text, "yaml: ")}
		if m := lineOf.FindStringSubmatch(text); m != nil {
			p.Line, _ = strconv.Atoi(m[1])
			p.Message = m[2]
		}
		if m := unknownField.FindStringSubmatch(p.Message); m != nil {
			p.Message = fmt.Sprintf("unknown key %q", m[1])
		}
		p.Message = strings.NewReplacer("!!", "", "config.", "").Replace(p.Message)
		v.add(p)
	}
}

// err lists the mistakes, in the order of the file.
func (v *validator) err() error {
	slices.SortStableFunc(v.problems, func(a, b Problem) int { return a.Line - b.Line })
	var errs []error
	for _, p := range v.problems {
		if !p.Warning {
			errs = append(errs, errors.New(p.String()))
		}
	}
	return errors.Join(errs...)
}

// Data makes data.hallmark.config of the policies: the file as it was written, with the keys that matter to rules always
// there, without keys and paths of secrets, and with the two lists that can be long as objects by key besides. The values
// are JSON's. It is made anew each time, as rules keep little of it.
func (c *Config) Data() (map[string]any, error) {
	document, err := k8syaml.YAMLToJSON(c.Text)
	if err != nil {
		return nil, err
	}
	data := map[string]any{}
	if err := json.Unmarshal(document, &data); err != nil {
		return nil, err
	}
	byHost, byRepository := map[string]any{}, map[string]any{}
	for _, entry := range objects(data["registries"]) {
		delete(entry, "credentials")
		delete(entry, "ca")
		byHost[fmt.Sprint(entry["host"])] = entry
	}
	for _, entry := range objects(data["goldenImages"]) {
		byRepository[fmt.Sprint(entry["repository"])] = entry
	}
	if signers, ok := data["signers"].(map[string]any); ok {
		for name := range signers {
			signers[name] = map[string]any{}
		}
	}
	delete(data, "policies")
	delete(data, "decisionLog")
	data["registryByHost"], data["goldenByRepository"] = byHost, byRepository
	data["mode"] = string(c.File.Mode)
	data["pin"] = map[string]any{"pods": string(c.File.Pin.Pods)}
	return data, nil
}

func objects(list any) []map[string]any {
	var found []map[string]any
	entries, _ := list.([]any)
	for _, entry := range entries {
		if object, ok := entry.(map[string]any); ok {
			found = append(found, object)
		}
	}
	return found
}

// Mode says in which mode a rule is judged for a namespace. The namespace's mode, where one is given, bounds the
// rule's from above: a namespace in audit stays in audit, whatever a rule says.
func (c *Config) Mode(rule, namespace string) webhook.Mode {
	mode, scoped := c.File.Mode, false
	for i := range c.Namespaces {
		if matchesAny(c.Namespaces[i].Match, namespace) {
			mode, scoped = c.Namespaces[i].Mode, true
			break
		}
	}
	own, named := c.Rules[rule]
	switch {
	case !named:
	case scoped && mode.Stricter(own), !scoped:
		mode = own
	}
	if rule == "golden" && len(c.GoldenImages) == 0 {
		return webhook.Off
	}
	return mode
}

// Files lists the files that the configuration names, each once and in order: what they hold is part of it.
func (c *Config) Files() []string {
	var files []string
	for _, r := range c.Registries {
		files = append(files, r.CA, r.Credentials)
	}
	for _, s := range c.Signers {
		files = append(files, s.KeyFile)
		if s.TrustedRoot != trustTUF {
			files = append(files, s.TrustedRoot)
		}
	}
	files = append(files, c.TUF.Root, c.DecisionLog.CA)
	for i := range c.Policies.Bundles {
		files = append(files, c.Policies.Bundles[i].files()...)
	}
	slices.Sort(files)
	return slices.DeleteFunc(slices.Compact(files), func(file string) bool { return file == "" })
}

func matchesAny(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool { return webhook.MatchName(glob, name) })
}
