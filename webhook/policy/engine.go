package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Config is what an Engine is made of.
type Config struct {
	Source Source
	Schema []byte         // JSON schema of the input
	Data   map[string]any // becomes data.hallmark.config; JSON values
	Off    []string       // rules that are not judged
	On     []string       // rules that are judged though their METADATA says default: off
}

// An Engine judges one generation of rules. It is safe for concurrent use.
type Engine struct {
	rules  []*rule // sorted by name
	groups [2][2]group
	memory *memory

	documents *sync.Pool // of *document: each grows to what inputs need
}

// The groups of a phase.
const (
	alike  = iota // rules that see the same of all workspaces of a template: what they said is remembered
	unlike        // rules that see what each has for itself; they are judged each time, and keep nobody else from being remembered
)

// A group is rules in force that are judged together.
type group struct {
	rules []*rule // in the order of the query's columns
	query rego.PreparedEvalQuery
	reads reads
}

// reads is what is put into the input of a group only when one of its rules reads it.
type reads struct {
	object    bool            // input.object and input.old
	workspace bool            // input.workspace
	image     bool            // what was read of an image: labels, layers
	request   map[string]bool // members of input.request
}

// group is that of rules with such reads.
func (r reads) group() int {
	if r.object || r.workspace || r.request["time"] || r.request["uid"] || r.request["name"] {
		return unlike
	}
	return alike
}

// A rule is one package data.hallmark.rules.<name>.
type rule struct {
	webhook.Rule
	Metadata
	sets  []string // of deny and warn, those that it has
	alone rego.PreparedEvalQuery
}

// rulesRef is where rules are found.
const rulesRef = "data.hallmark.rules"

// New compiles the rules and prepares their evaluation. It reports every mistake with file and line.
func New(ctx context.Context, config Config) (*Engine, error) {
	compiler, err := config.Source.Compile(config.Schema)
	if err != nil {
		return nil, err
	}
	e := &Engine{memory: newMemory(), documents: &sync.Pool{New: func() any { return new(document) }}}
	if err := e.findRules(compiler, config); err != nil {
		return nil, err
	}
	data := map[string]any{"hallmark": map[string]any{"config": membersRead(compiler, config.Data)}}
	store := inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	prepare := func(rules []*rule) (rego.PreparedEvalQuery, error) {
		return rego.New(rego.Compiler(compiler), rego.Store(store), rego.Query(query(rules)), rego.StrictBuiltinErrors(true)).
			PrepareForEval(ctx)
	}
	var errs []error
	for phase := range e.groups {
		for i := range e.groups[phase] {
			var err error
			e.groups[phase][i].query, err = prepare(e.groups[phase][i].rules)
			errs = append(errs, err)
		}
	}
	for _, r := range e.rules {
		var err error
		r.alone, err = prepare([]*rule{r})
		errs = append(errs, err)
	}
	return e, errors.Join(errs...)
}

// findRules gathers the packages below rulesRef, and sorts them into phases.
func (e *Engine) findRules(compiler *ast.Compiler, config Config) error {
	byName := map[string]*rule{}
	modules := map[string][]*ast.Module{}
	for _, file := range slices.Sorted(maps.Keys(compiler.Modules)) {
		module := compiler.Modules[file]
		rest, found := strings.CutPrefix(module.Package.Path.String(), rulesRef+".")
		if !found || strings.ContainsAny(rest, ".[") {
			continue // a helper package, or one below a rule
		}
		if byName[rest] == nil {
			byName[rest] = &rule{Rule: webhook.Rule{Name: rest}}
		}
		if m := metadataOf(module); m.Title != "" || byName[rest].File == "" {
			byName[rest].Metadata = m
		}
		modules[rest] = append(modules[rest], module)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		r := byName[name]
		sets := map[string][]*ast.Rule{}
		for _, module := range modules[name] {
			for _, rego := range module.Rules {
				head := rego.Head.Ref().String()
				if set, _, _ := strings.Cut(head, "["); set == "deny" || set == "warn" {
					sets[set] = append(sets[set], rego)
				}
			}
		}
		if len(sets) == 0 {
			errs = append(errs, fmt.Errorf("%s: rule %s has neither deny nor warn; without one it would decide nothing", r.File, name))
			continue
		}
		r.sets = slices.Sorted(maps.Keys(sets))
		m := mentionsOf(compiler, slices.Concat(sets["deny"], sets["warn"]))
		r.Needs, r.Rule.Early = m.facts, r.Metadata.Early
		if m.facts&webhook.FactAttestations != 0 {
			r.Attested = slices.Compact(slices.Sorted(slices.Values(m.types)))
		}
		r.Rule.Off = slices.Contains(config.Off, name) || r.Metadata.Off && !slices.Contains(config.On, name)
		e.rules = append(e.rules, r)
		if r.Rule.Off {
			continue
		}
		if r.Needs == 0 || r.Rule.Early {
			e.add(webhook.EarlyPhase, r, m)
		}
		if r.Needs != 0 {
			e.add(webhook.LatePhase, r, m)
		}
	}
	return errors.Join(errs...)
}

// add puts a rule into its group of a phase.
func (e *Engine) add(phase webhook.Phase, r *rule, m mentions) {
	own := reads{object: m.object, workspace: m.workspace, image: m.facts&webhook.FactImage != 0, request: m.request}
	g := &e.groups[phase][own.group()]
	g.rules = append(g.rules, r)
	g.reads.object = g.reads.object || own.object
	g.reads.workspace = g.reads.workspace || own.workspace
	g.reads.image = g.reads.image || own.image
	if g.reads.request == nil {
		g.reads.request = map[string]bool{}
	}
	maps.Copy(g.reads.request, own.request)
}

// query gives the sets of all rules as one array each, so that a set that is undefined is told from an empty one and
// does not make the others undefined: [x | x := data.hallmark.rules.tag.deny].
func query(rules []*rule) string {
	var columns []string
	for _, r := range rules {
		for _, set := range r.sets {
			columns = append(columns, "[x | x := "+rulesRef+"."+r.Name+"."+set+"]")
		}
	}
	return "found = [" + strings.Join(columns, ", ") + "]"
}

// Rules describes the rules, sorted by name.
func (e *Engine) Rules() []webhook.Rule {
	rules := make([]webhook.Rule, len(e.rules))
	for i, r := range e.rules {
		rules[i] = r.Rule
	}
	return rules
}

// Metadata describes the rules for people, by name.
func (e *Engine) Metadata() map[string]Metadata {
	all := make(map[string]Metadata, len(e.rules))
	for _, r := range e.rules {
		all[r.Name] = r.Metadata
	}
	return all
}

// Judge evaluates the rules of a phase, or remembers what they said of the same input: rules are functions of their input
// and of what an Engine never changes, without clock, chance or network (Capabilities).
func (e *Engine) Judge(ctx context.Context, phase webhook.Phase, in *webhook.Input) ([]webhook.Finding, error) {
	if len(in.Images) == 0 {
		return nil, nil
	}
	findings, err := e.judgeAlike(ctx, phase, in)
	if err != nil || len(e.groups[phase][unlike].rules) == 0 {
		return findings, err
	}
	d := e.documents.Get().(*document)
	defer func() { d.reset(); e.documents.Put(d) }()
	g := &e.groups[phase][unlike]
	if err := d.input(in, g.reads); err != nil {
		return nil, err
	}
	others, _, err := g.evaluate(ctx, d, in)
	return append(findings, others...), err
}

// judgeAlike is Judge for the rules whose judgements are remembered.
func (e *Engine) judgeAlike(ctx context.Context, phase webhook.Phase, in *webhook.Input) ([]webhook.Finding, error) {
	g := &e.groups[phase][alike]
	if len(g.rules) == 0 {
		return nil, nil
	}
	d := e.documents.Get().(*document)
	defer func() { d.reset(); e.documents.Put(d) }()
	if err := d.input(in, g.reads); err != nil {
		return nil, err
	}
	key := d.key(phase)
	if findings, known := e.memory.recall(key, in.Images); known {
		return findings, nil
	}
	findings, whole, err := g.evaluate(ctx, d, in)
	if err == nil && whole {
		e.memory.keep(key, findings, in.Images)
	}
	return findings, err
}

// evaluate judges all rules of a group in one query. When it fails, each is judged by itself, so that the others still say
// what they find; the result is not the whole then.
func (g *group) evaluate(ctx context.Context, d *document, in *webhook.Input) (findings []webhook.Finding, whole bool, err error) {
	input, err := d.value()
	if err != nil {
		return nil, false, err
	}
	findings, err = judge(ctx, &g.query, g.rules, input, in)
	if err == nil || ctx.Err() != nil {
		return findings, err == nil, cmp.Or(ctx.Err(), err)
	}
	findings = nil
	for _, r := range g.rules {
		found, err := judge(ctx, &r.alone, []*rule{r}, input, in)
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		if err != nil {
			found = []webhook.Finding{failure(r, errorText(err))}
		}
		findings = append(findings, found...)
	}
	return findings, false, nil
}

func judge(ctx context.Context, query *rego.PreparedEvalQuery, rules []*rule, input ast.Value, in *webhook.Input) (
	[]webhook.Finding, error,
) {
	results, err := query.Eval(ctx, rego.EvalParsedInput(input))
	if err != nil {
		return nil, err
	}
	if len(results) != 1 {
		return nil, fmt.Errorf("the policy gave %d results; want 1", len(results))
	}
	columns, ok := results[0].Bindings["found"].([]any)
	if !ok {
		return nil, errors.New("the policy gave a result of another shape")
	}
	var findings []webhook.Finding
	for _, r := range rules {
		for _, set := range r.sets {
			column, _ := columns[0].([]any)
			columns = columns[1:]
			findings = append(findings, r.findings(set, column, in)...)
		}
	}
	return findings, nil
}
