package policy

import "github.com/open-policy-agent/opa/v1/ast"

// holders are the variables of a rule that hold an image, or something that one is in; and those that hold all images.
type holders struct {
	image, images map[ast.Var]bool
	gives         map[string]bool // of mentions
}

func (m *mentions) holders(rule *ast.Rule) holders {
	h := holders{map[ast.Var]bool{}, map[ast.Var]bool{}, m.gives}
	for i, arg := range rule.Head.Args {
		if v, ok := arg.Value.(ast.Var); ok && m.params[param{nameOf(rule), i}] {
			h.image[v] = true
		}
	}
	for known := -1; known < len(h.image)+len(h.images); {
		known = len(h.image) + len(h.images)
		ast.WalkExprs(rule, func(expr *ast.Expr) bool {
			if expr.IsCall() && h.gives[expr.Operator().String()] {
				operands := expr.Operands()
				if v, isVar := operands[len(operands)-1].Value.(ast.Var); isVar {
					h.image[v] = true
				}
			}
			if !expr.IsEquality() && !expr.IsAssignment() {
				return false
			}
			left, right := expr.Operand(0), expr.Operand(1)
			for _, pair := range [][2]*ast.Term{{left, right}, {right, left}} {
				v, isVar := pair[0].Value.(ast.Var)
				switch {
				case !isVar:
				case h.isImages(pair[1]):
					h.images[v] = true
				case h.has(pair[1]):
					h.image[v] = true
				}
			}
			return false
		})
	}
	return h
}

func (h holders) isImage(term *ast.Term) bool {
	switch value := term.Value.(type) {
	case ast.Var:
		return h.image[value]
	case ast.Ref:
		return isInput(term, 3) || h.gives[value.ConstantPrefix().String()]
	case ast.Call:
		return h.gives[value[0].String()]
	}
	return false
}

func (h holders) isImages(term *ast.Term) bool {
	v, ok := term.Value.(ast.Var)
	return ok && h.images[v] || isInput(term, 2)
}

// has says that a term is an image, all of them, or contains one as it is: [image, 1], but not [image.where].
func (h holders) has(term *ast.Term) bool {
	found := false
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Term:
			found = found || h.isImage(x) || h.isImages(x)
			_, isRef := x.Value.(ast.Ref)
			return isRef
		case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
			return true // its body is looked at by itself
		}
		return false
	}).Walk(term)
	return found
}

// isInput says that a term is input.images with so many parts: with a third, one of them.
func isInput(term *ast.Term, parts int) bool {
	ref, ok := term.Value.(ast.Ref)
	return ok && len(ref) == parts && ref[0].Equal(ast.InputRootDocument) && ref[1].Equal(ast.StringTerm("images"))
}
