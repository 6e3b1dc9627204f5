package test

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"path"
	"slices"
	"strings"
)

// layerViolations holds the table of layers.
func layerViolations(sources []*source) (violations []string) {
	table := map[string]layer{}
	for _, l := range layers() {
		table[l.dir] = l
	}
	for _, s := range sources {
		l, known := table[s.dir]
		if s.inProduct() && !known {
			violations = append(violations, fmt.Sprintf("%s has no line in the table of layers; decide what it may import", s.dir))
		}
		if !s.inProduct() || !known {
			continue
		}
		for _, spec := range s.imports() {
			dir, ours := strings.CutPrefix(spec.path, module+"/")
			allowed := slices.ContainsFunc(l.may, func(may string) bool {
				below, wild := strings.CutSuffix(may, "...")
				return dir == may || wild && strings.HasPrefix(dir, below)
			})
			if ours && !allowed {
				violations = append(violations, fmt.Sprintf("%s: %s must not import %s: %s", s.at(spec.pos), s.dir, dir, l.reason))
			}
		}
	}
	slices.Sort(violations)
	return slices.Compact(violations)
}

// ownerViolations holds the table of owners.
func ownerViolations(sources []*source) (violations []string) {
	for _, s := range sources {
		if !s.inProduct() {
			continue
		}
		for _, spec := range s.imports() {
			for _, o := range owners() {
				if within(spec.path, o.path) && !slices.Contains(o.dirs, s.dir) {
					violations = append(violations, fmt.Sprintf("%s: %s must not import %s: %s (%s may)",
						s.at(spec.pos), s.dir, spec.path, o.reason, strings.Join(o.dirs, ", ")))
				}
			}
		}
	}
	return violations
}

// within says whether an import path is a module's or one below it.
func within(path, module string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// nameViolations refuses packages in which anything could stand.
func nameViolations(sources []*source) (violations []string) {
	empty := []string{"util", "utils", "common", "helper", "helpers", "types", "misc"}
	for _, s := range sources {
		for _, name := range []string{path.Base(s.dir), s.file.Name.Name} {
			if slices.Contains(empty, name) {
				violations = append(violations, fmt.Sprintf("%s: package %q is named for no purpose; name it for what it does", s.dir, name))
			}
		}
	}
	slices.Sort(violations)
	return slices.Compact(violations)
}

func initViolations(sources []*source) (violations []string) {
	for _, s := range sources {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil && s.inProduct() {
				violations = append(violations, s.at(f.Pos())+": func init runs unasked in every program and test; call it where it is needed")
			}
		}
	}
	return violations
}

// variableViolations looks for everything that changes a package-level variable after its declaration.
func variableViolations(sources []*source) (violations []string) {
	for _, s := range sources {
		if !s.inProduct() {
			continue
		}
		changed := func(e ast.Expr) {
			if name := s.global(e); name != "" && !s.allowed(mayTune(), name) {
				violations = append(violations, fmt.Sprintf(
					"%s: %s is changed, or its address given away: decisions then depend on more than what was passed in", s.at(e.Pos()), name))
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, left := range n.Lhs {
					changed(left)
				}
			case *ast.IncDecStmt:
				changed(n.X)
			case *ast.RangeStmt:
				changed(n.Key)
				changed(n.Value)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					changed(n.X)
				}
			case *ast.CallExpr:
				if len(n.Args) > 0 && s.changesFirst(n.Fun) {
					changed(n.Args[0])
				}
			}
			return true
		})
		violations = append(violations, s.guards()...)
	}
	return violations
}

// changesFirst says whether a function is known to change its first argument.
func (s *source) changesFirst(function ast.Expr) bool {
	switch s.called(function) {
	case "delete", "clear", "copy", "maps.Copy", "maps.DeleteFunc", "maps.Insert", "slices.Reverse":
		return true
	}
	return strings.HasPrefix(s.called(function), "slices.Sort") || strings.HasPrefix(s.called(function), "sort.")
}

// global names the package-level variable that an expression is a part of, "" for none.
func (s *source) global(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.SelectorExpr:
			if id, ok := x.X.(*ast.Ident); ok {
				if name, ok := s.info.Uses[id].(*types.PkgName); ok {
					return "variable " + name.Imported().Name() + "." + x.Sel.Name + " of another package"
				}
			}
			e = x.X
		case *ast.Ident:
			v, ok := s.info.Uses[x].(*types.Var)
			if ok && v.Pkg() != nil && v.Parent() == v.Pkg().Scope() {
				return "package variable " + x.Name
			}
			return ""
		default:
			return ""
		}
	}
}

// guards finds package-level locks and counters, which exist only to be changed.
func (s *source) guards() (violations []string) {
	for _, d := range s.file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			kinds := append([]ast.Expr{v.Type}, v.Values...)
			for _, kind := range kinds {
				if literal, ok := kind.(*ast.CompositeLit); ok {
					kind = literal.Type
				}
				if generic, ok := kind.(*ast.IndexExpr); ok {
					kind = generic.X
				}
				if name := s.called(kind); strings.HasPrefix(name, "sync.") && !strings.HasPrefix(name, "sync.Once") || strings.HasPrefix(name, "atomic.") {
					violations = append(violations, fmt.Sprintf("%s: package variable %s is a %s, which exists to be changed; make it a field",
						s.at(v.Pos()), v.Names[0].Name, name))
				}
			}
		}
	}
	return violations
}

// contextViolations finds contexts that begin in the middle.
func contextViolations(sources []*source) (violations []string) {
	for _, s := range sources {
		if !s.inProduct() {
			continue
		}
		s.eachCall(func(function string, e ast.Expr, name string) {
			if (name == "context.Background" || name == "context.TODO") && !s.allowed(mayStartContexts(), function) {
				violations = append(violations, fmt.Sprintf(
					"%s: %s starts a context: neither the deadline of the request nor the end of the process reaches it", s.at(e.Pos()), name))
			}
		})
	}
	return violations
}

// printViolations finds what writes past the streams and the logger that are passed in.
func printViolations(sources []*source) (violations []string) {
	for _, s := range sources {
		if !s.inProduct() {
			continue
		}
		for _, spec := range s.imports() {
			if spec.path == "log" && !s.allowed(mayPrint(), "") {
				violations = append(violations, s.at(spec.pos)+": it imports log, which is global; a *slog.Logger is passed in")
			}
		}
		s.eachCall(func(function string, e ast.Expr, name string) {
			if strings.HasPrefix(name, "fmt.Print") || name == "print" || name == "println" {
				violations = append(violations, fmt.Sprintf("%s: %s prints to the process's own output; a writer is passed in", s.at(e.Pos()), name))
			}
		})
	}
	return violations
}

// banViolations walks what is linked into root and shows the shortest way to whatever is banned.
func banViolations(graph map[string][]string, root string) (violations []string) {
	for _, b := range bans() {
		from := map[string]string{root: ""}
		queue := []string{root}
		for len(queue) > 0 {
			at := queue[0]
			queue = queue[1:]
			if within(at, b.path) {
				way := at
				for p := from[at]; p != ""; p = from[p] {
					way = p + " → " + way
				}
				violations = append(violations, fmt.Sprintf("%s is linked: %s\n%s", b.path, b.reason, way))
				break
			}
			if at == b.unless {
				continue
			}
			for _, next := range graph[at] {
				if _, seen := from[next]; !seen {
					from[next] = at
					queue = append(queue, next)
				}
			}
		}
	}
	return violations
}
