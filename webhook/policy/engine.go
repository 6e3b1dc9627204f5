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
	early  rego.PreparedEvalQuery
	late   rego.PreparedEvalQuery
	phases [2][]*rule // in the order of the queries' columns
	reads  reads      // what some rule in force reads
	memory *memory

	documents *sync.Pool // of *document: each grows to what inputs need
}

// reads is what is put into the input only when some rule in force reads it.
type reads struct {
	object    bool            // input.object and input.old
	workspace bool            // input.workspace
	image     bool            // what was read of an image: labels, layers
	request   map[string]bool // members of input.request
}

// remembered says that the same input comes again: no other workspace has the same object, and no other second the
// same time.
func (r reads) remembered() bool { return !r.object && !r.request["time"] }

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
	e := &Engine{
		reads: reads{request: map[string]bool{}}, memory: newMemory(),
		documents: &sync.Pool{New: func() any { return new(document) }},
	}
	if err := e.findRules(compiler, config); err != nil {
		return nil, err
	}
	data := map[string]any{"hallmark": map[string]any{"config": config.Data}}
	store := inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	prepare := func(rules []*rule) (rego.PreparedEvalQuery, error) {
		return rego.New(rego.Compiler(compiler), rego.Store(store), rego.Query(query(rules)), rego.StrictBuiltinErrors(true)).
			PrepareForEval(ctx)
	}
	var errs [2]error
	e.early, errs[0] = prepare(e.phases[webhook.EarlyPhase])
	e.late, errs[1] = prepare(e.phases[webhook.LatePhase])
	for _, r := range e.rules {
		var err error
		r.alone, err = prepare([]*rule{r})
		errs[0] = errors.Join(errs[0], err)
	}
	return e, errors.Join(errs[:]...)
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
		e.reads.add(m)
		if r.Needs == 0 || r.Rule.Early {
			e.phases[webhook.EarlyPhase] = append(e.phases[webhook.EarlyPhase], r)
		}
		if r.Needs != 0 {
			e.phases[webhook.LatePhase] = append(e.phases[webhook.LatePhase], r)
		}
	}
	return errors.Join(errs...)
}

func (r *reads) add(m mentions) {
	r.object, r.workspace = r.object || m.object, r.workspace || m.workspace
	r.image = r.image || m.facts&webhook.FactImage != 0
	maps.Copy(r.request, m.request)
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
	rules := e.phases[phase]
	if len(rules) == 0 || len(in.Images) == 0 {
		return nil, nil
	}
	d := e.documents.Get().(*document)
	defer func() { d.reset(); e.documents.Put(d) }()
	if err := d.input(in, e.reads); err != nil {
		return nil, err
	}
	if !e.reads.remembered() {
		findings, _, err := e.evaluate(ctx, phase, d, in)
		return findings, err
	}
	key := d.key(phase)
	if findings, known := e.memory.recall(key, in.Images); known {
		return findings, nil
	}
	findings, whole, err := e.evaluate(ctx, phase, d, in)
	if err == nil && whole {
		e.memory.keep(key, findings, in.Images)
	}
	return findings, err
}

// evaluate judges all rules of a phase in one query. When it fails, each is judged by itself, so that the others still say
// what they find; the result is not the whole then.
func (e *Engine) evaluate(ctx context.Context, phase webhook.Phase, d *document, in *webhook.Input) (
	findings []webhook.Finding, whole bool, err error,
) {
	input, err := d.value()
	if err != nil {
		return nil, false, err
	}
	prepared, rules := &e.early, e.phases[phase]
	if phase == webhook.LatePhase {
		prepared = &e.late
	}
	findings, err = judge(ctx, prepared, rules, input, in)
	if err == nil || ctx.Err() != nil {
		return findings, err == nil, cmp.Or(ctx.Err(), err)
	}
	findings = nil
	for _, r := range rules {
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
