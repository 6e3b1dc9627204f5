package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A source is one Go file that is not a test, with its names resolved.
type source struct {
	path, dir string // from the top of the module, with slashes
	fset      *token.FileSet
	file      *ast.File
	info      *types.Info
}

// importSpec is one import.
type importSpec struct {
	path string
	pos  token.Pos
}

// readModule reads the Go files of the module at root, and of no module below it.
func readModule(root string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != root {
			_, err := os.Stat(filepath.Join(name, "go.mod"))
			if err == nil || strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		files[filepath.ToSlash(relative)] = string(text)
		return err
	})
	return files, err
}

// parse resolves names within each package. What other packages declare stays unknown, which the checks do not need.
func parse(files map[string]string) ([]*source, error) {
	fset := token.NewFileSet()
	packages := map[string][]*source{}
	var all []*source
	for name, text := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		s := &source{path: name, dir: path.Dir(name), fset: fset, file: file}
		all = append(all, s)
		packages[s.dir] = append(packages[s.dir], s)
	}
	for dir, sources := range packages {
		info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
		var asts []*ast.File
		for _, s := range sources {
			s.info = info
			asts = append(asts, s.file)
		}
		config := types.Config{Importer: stubs{}, Error: func(error) {}} // all errors are about the stubs
		_, _ = config.Check(dir, fset, asts, info)
	}
	slices.SortFunc(all, func(a, b *source) int { return strings.Compare(a.path, b.path) })
	return all, nil
}

// stubs imports every package as an empty one.
type stubs struct{}

func (stubs) Import(name string) (*types.Package, error) {
	base := path.Base(name)
	if regexp.MustCompile(`^v[0-9]+$`).MatchString(base) {
		base = path.Base(path.Dir(name))
	}
	p := types.NewPackage(name, base)
	p.MarkComplete()
	return p, nil
}

// inProduct says whether the file is part of what users run, or embeds.
func (s *source) inProduct() bool {
	top, _, _ := strings.Cut(s.dir, "/")
	return top == "cmd" || top == "webhook" || top == "policies"
}

func (s *source) at(pos token.Pos) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(pos).Line)
}

func (s *source) imports() (list []importSpec) {
	for _, spec := range s.file.Imports {
		p, _ := strconv.Unquote(spec.Path.Value) // the parser has done it before
		list = append(list, importSpec{p, spec.Pos()})
	}
	return list
}

// called names what an expression stands for: "delete" for a builtin, "slices.Sort" for another package's.
func (s *source) called(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		if _, ok := s.info.Uses[e].(*types.Builtin); ok {
			return e.Name
		}
	case *ast.SelectorExpr:
		if id, ok := e.X.(*ast.Ident); ok {
			if name, ok := s.info.Uses[id].(*types.PkgName); ok {
				return name.Imported().Name() + "." + e.Sel.Name
			}
		}
	}
	return ""
}

// eachCall visits every use of a builtin or of another package's name, with the function that it stands in.
func (s *source) eachCall(visit func(function string, e ast.Expr, name string)) {
	for _, d := range s.file.Decls {
		function := ""
		if f, ok := d.(*ast.FuncDecl); ok {
			function = f.Name.Name
		}
		ast.Inspect(d, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if name := s.called(e); name != "" {
					visit(function, e, name)
				}
			}
			return true
		})
	}
}

func (s *source) allowed(list []allowance, function string) bool {
	return slices.ContainsFunc(list, func(a allowance) bool {
		return a.file == s.path && (a.function == "" || a.function == function)
	})
}

// importGraph asks the go command what is linked into a program.
func importGraph(ctx context.Context, root string) (map[string][]string, error) {
	if _, err := os.ReadFile("../go.mod"); err != nil { // for go test, so that it knows what its cached result depends on
		return nil, err
	}
	var stderr strings.Builder
	list := exec.CommandContext(ctx, "go", "list", "-deps", "-json=ImportPath,Imports", root)
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	graph := map[string][]string{}
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return graph, nil
		}
		if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		graph[p.ImportPath] = p.Imports
	}
}
