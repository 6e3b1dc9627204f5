package policy

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/hallmark-admission/hallmark/webhook"
)

// mentions is what rules read of the input, as far as it has to be fetched or converted for them, or differs from one
// request to the next.
type mentions struct {
	facts     webhook.Fact
	object    bool            // input.object or input.old
	workspace bool            // something of input.workspace
	request   map[string]bool // members of input.request
	types     []string        // strings that may be predicate types of attestations
	params    map[param]bool  // of functions, those that are given an image somewhere
	gives     map[string]bool // rules and functions whose value is an image, or has one in it
}

// param is an argument of a function, by its number.
type param struct {
	function string // data.hallmark.rules.x.f
	number   int
}

// everything is what a rule may read that takes the input as a whole.
func (m *mentions) everything() {
	m.facts, m.object, m.workspace = webhook.AllFacts, true, true
	m.wholeRequest()
}

func (m *mentions) wholeRequest() {
	for _, name := range []string{
		"uid", "operation", "namespace", "name", "kind", "subresource", "dryRun", "user", "time",
	} {
		m.request[name] = true
	}
}

// mentionsOf finds out which facts a package's rules mention, together with everything of other packages that they call.
// A fact is mentioned where its name stands in a reference (image.signatures), or in the path of object.get. Where the
// name cannot be told (image[k], or a whole image handed to a builtin), all facts count as mentioned: that costs a
// fetch, while a fact that was missed would be absent when the rule looks for it.
func mentionsOf(compiler *ast.Compiler, rules []*ast.Rule) mentions {
	found := mentions{request: map[string]bool{}, params: map[param]bool{}, gives: map[string]bool{}}
	var seen map[*ast.Rule]bool
	var visit func(rule *ast.Rule)
	visit = func(rule *ast.Rule) {
		if seen[rule] {
			return
		}
		seen[rule] = true
		found.add(rule)
		for dependency := range compiler.Graph.Dependencies(rule) {
			if r, ok := dependency.(*ast.Rule); ok {
				visit(r)
			}
		}
	}
	// A function may be looked at before all calls of it are known, and a rule before what it calls. So again, until nothing
	// is added.
	for known := -1; known < len(found.params)+len(found.gives); {
		known, seen = len(found.params)+len(found.gives), map[*ast.Rule]bool{}
		for _, rule := range rules {
			for r := rule; r != nil; r = r.Else {
				visit(r)
			}
		}
	}
	return found
}

// nameOf is under which name others call a rule: data.hallmark.rules.x.f.
func nameOf(rule *ast.Rule) string { return rule.Ref().ConstantPrefix().String() }

func (m *mentions) add(rule *ast.Rule) {
	held := m.holders(rule)
	for _, term := range []*ast.Term{rule.Head.Key, rule.Head.Value} {
		if term != nil && held.has(term) {
			m.gives[nameOf(rule)] = true
		}
	}
	ast.WalkRefs(rule, func(ref ast.Ref) bool {
		m.addRef(ref, held)
		return false
	})
	ast.WalkTerms(rule, func(term *ast.Term) bool {
		// A predicate type is a URI, some older ones without a scheme.
		text, _ := term.Value.(ast.String)
		if strings.Contains(string(text), "/") {
			m.types = append(m.types, string(text))
		}
		if text == "signed" || text == "attested" { // of signedBy and attestedBy, by whatever way they are reached
			m.facts |= factNamed(string(text))
		}
		return false
	})
	ast.WalkExprs(rule, func(expr *ast.Expr) bool {
		if !expr.IsCall() {
			return false
		}
		m.addCall(expr.Operator().String(), expr.Operands(), held)
		return false
	})
	ast.WalkTerms(rule, func(term *ast.Term) bool {
		if call, ok := term.Value.(ast.Call); ok {
			m.addCall(call[0].String(), call[1:], held)
		}
		return false
	})
}

// addRef looks at one reference: input.images[_].signatures, or __local3__.image.digest.
func (m *mentions) addRef(ref ast.Ref, held holders) {
	if ref[0].Equal(ast.DefaultRootDocument) {
		return
	}
	path := ref[1:]
	if ref[0].Equal(ast.InputRootDocument) {
		if len(path) == 0 { // the whole input
			m.everything()
			return
		}
		first, literal := path[0].Value.(ast.String)
		switch {
		case !literal: // input[k]
			m.everything()
			return
		case first == "object" || first == "old":
			m.object = true
			return
		case first == "workspace":
			m.workspace = true
			return
		case first == "request":
			if len(path) > 1 {
				if member, literal := path[1].Value.(ast.String); literal {
					m.request[string(member)] = true
					return
				}
			}
			m.wholeRequest()
			return
		case first != "images" || len(path) < 3:
			return
		}
		path = path[2:]
		if _, literal := path[0].Value.(ast.String); !literal {
			m.facts = webhook.AllFacts
		}
	} else if len(path) > 0 && held.isImage(ref[0]) {
		if _, literal := path[0].Value.(ast.String); !literal {
			m.facts = webhook.AllFacts
		}
	}
	for _, term := range path {
		if name, ok := term.Value.(ast.String); ok {
			m.facts |= factNamed(string(name))
		}
	}
}

// addCall looks at the arguments of a call. Functions of the policy are looked into by themselves; a name that they are
// given may be that of a member that they look up.
func (m *mentions) addCall(name string, args []*ast.Term, held holders) {
	switch {
	case name == "eq" || name == "assign":
		return
	case strings.HasPrefix(name, "data."):
		for i, arg := range args {
			if text, literal := arg.Value.(ast.String); literal {
				m.facts |= factNamed(string(text))
			}
			if held.has(arg) {
				m.params[param{name, i}] = true
			}
		}
		return
	}
	for _, arg := range args {
		if !held.has(arg) || name == "count" && held.isImages(arg) {
			continue
		}
		if name != "object.get" || len(args) < 2 {
			m.facts = webhook.AllFacts
			return
		}
		ast.WalkTerms(args[1], func(term *ast.Term) bool {
			switch value := term.Value.(type) {
			case ast.String:
				m.facts |= factNamed(string(value))
			case ast.Var, ast.Ref:
				m.facts = webhook.AllFacts
			}
			return false
		})
	}
}

// factNamed knows the fields that come with a fact under another name, too.
func factNamed(name string) webhook.Fact {
	switch name {
	case "signaturesFound", "signaturesRejected", "signed":
		return webhook.FactSignatures
	case "attestationsFound", "attestationsRejected", "attested":
		return webhook.FactAttestations
	case "derivedUnsigned":
		return webhook.FactDerivedFrom
	case "unknown":
		return webhook.AllFacts
	}
	return webhook.FactByName(name)
}
