package policy

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/hallmark-admission/hallmark/webhook"
)

// mentions is what rules read of the input, as far as it has to be fetched or converted for them.
type mentions struct {
	facts  webhook.Fact
	object bool     // input.object or input.old
	time   bool     // input.request.time
	types  []string // strings that may be predicate types of attestations
}

// mentionsOf finds out which facts a package's rules mention, together with everything of other packages that they call.
// A fact is mentioned where its name stands in a reference (image.signatures), or in the path of object.get. Where the
// name cannot be told (image[k], or a whole image handed to a builtin), all facts count as mentioned: that costs a
// fetch, while a fact that was missed would be absent when the rule looks for it.
func mentionsOf(compiler *ast.Compiler, rules []*ast.Rule) mentions {
	var found mentions
	seen := map[*ast.Rule]bool{}
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
	for _, rule := range rules {
		for r := rule; r != nil; r = r.Else {
			visit(r)
		}
	}
	return found
}

func (m *mentions) add(rule *ast.Rule) {
	images := imageVars(rule)
	isImage := func(term *ast.Term) bool {
		v, ok := term.Value.(ast.Var)
		return ok && images[v]
	}
	ast.WalkRefs(rule, func(ref ast.Ref) bool {
		m.addRef(ref, isImage)
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
		m.addCall(expr.Operator().String(), expr.Operands(), isImage)
		return false
	})
	ast.WalkTerms(rule, func(term *ast.Term) bool {
		if call, ok := term.Value.(ast.Call); ok {
			m.addCall(call[0].String(), call[1:], isImage)
		}
		return false
	})
}

// addRef looks at one reference: input.images[_].signatures, or __local3__.image.digest.
func (m *mentions) addRef(ref ast.Ref, isImage func(*ast.Term) bool) {
	if ref[0].Equal(ast.DefaultRootDocument) {
		return
	}
	path := ref[1:]
	if ref[0].Equal(ast.InputRootDocument) {
		if len(path) == 0 {
			m.facts, m.object, m.time = webhook.AllFacts, true, true // the whole input
			return
		}
		first, literal := path[0].Value.(ast.String)
		switch {
		case !literal: // input[k]
			m.facts, m.object, m.time = webhook.AllFacts, true, true
			return
		case first == "object" || first == "old":
			m.object = true
			return
		case first == "request":
			m.time = m.time || len(path) < 2 || !isOther(path[1], "time")
			return
		case first != "images" || len(path) < 3:
			return
		}
		path = path[2:]
		if _, literal := path[0].Value.(ast.String); !literal {
			m.facts = webhook.AllFacts
		}
	} else if len(path) > 0 && isImage(ref[0]) {
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

// isOther says that a term is a string other than name.
func isOther(term *ast.Term, name string) bool {
	text, literal := term.Value.(ast.String)
	return literal && string(text) != name
}

// addCall looks at the arguments of a call. Functions of the policy are looked into by themselves.
func (m *mentions) addCall(name string, args []*ast.Term, isImage func(*ast.Term) bool) {
	if name == "eq" || name == "assign" || len(name) > 5 && name[:5] == "data." {
		return
	}
	for _, arg := range args {
		if !isImage(arg) {
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

// imageVars finds the variables of a rule that hold an element of input.images.
func imageVars(rule *ast.Rule) map[ast.Var]bool {
	vars := map[ast.Var]bool{}
	ast.WalkExprs(rule, func(expr *ast.Expr) bool {
		if !expr.IsEquality() && !expr.IsAssignment() {
			return false
		}
		left, right := expr.Operand(0), expr.Operand(1)
		for _, pair := range [][2]*ast.Term{{left, right}, {right, left}} {
			v, isVar := pair[0].Value.(ast.Var)
			ref, isRef := pair[1].Value.(ast.Ref)
			if isVar && isRef && len(ref) == 3 && ref[0].Equal(ast.InputRootDocument) && ref[1].Equal(ast.StringTerm("images")) {
				vars[v] = true
			}
		}
		return false
	})
	return vars
}
