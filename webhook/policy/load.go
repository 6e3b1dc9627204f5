package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Source is Rego text by file name; the name stands in error messages.
type Source map[string][]byte

// ReadFS adds all .rego files below a file system's root to the source, but not the tests (_test.rego).
func (s Source) ReadFS(files fs.FS) error {
	return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !isRule(name) {
			return err
		}
		s[name], err = fs.ReadFile(files, name)
		return err
	})
}

// ReadDir adds a directory as ReadFS does. The entries of a mounted ConfigMap are symbolic links into a hidden
// directory: the links are followed, the hidden directory is passed over.
func (s Source) ReadDir(dir string) error {
	return filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read policies: %w", err)
		}
		if entry.IsDir() {
			if name != dir && strings.HasPrefix(entry.Name(), "..") {
				return fs.SkipDir
			}
			return nil
		}
		if !isRule(name) {
			return nil
		}
		s[name], err = os.ReadFile(name)
		return err
	})
}

func isRule(name string) bool {
	return strings.HasSuffix(name, ".rego") && !strings.HasSuffix(name, "_test.rego")
}

// Revision names a set of rules together with the configuration that they see: seven hexadecimal digits.
func (s Source) Revision(config []byte) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(s)) {
		fmt.Fprintf(h, "%d %s %d ", len(name), name, len(s[name]))
		h.Write(s[name])
	}
	h.Write(config)
	return fmt.Sprintf("%x", h.Sum(nil))[:7]
}

// Compile parses and type-checks rules against the schema of the input. All mistakes are reported, each with file and
// line.
func (s Source) Compile(schema []byte) (*ast.Compiler, error) {
	options := ast.ParserOptions{ProcessAnnotation: true, Capabilities: Capabilities(), RegoVersion: ast.RegoV1}
	modules := make(map[string]*ast.Module, len(s))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s)) {
		module, err := ast.ParseModuleWithOpts(name, string(s[name]), options)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if module == nil {
			errs = append(errs, fmt.Errorf("%s: the file is empty", name))
			continue
		}
		modules[name] = module
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("parse policies: %w", errors.Join(errs...))
	}
	schemas := ast.NewSchemaSet()
	var parsed any
	if err := json.Unmarshal(schema, &parsed); err != nil {
		return nil, fmt.Errorf("schema of the policy input: %w", err)
	}
	schemas.Put(ast.SchemaRootRef, parsed)
	compiler := ast.NewCompiler().WithCapabilities(Capabilities()).WithSchemas(schemas).WithStrict(true).
		WithUseTypeCheckAnnotations(true)
	if compiler.Compile(modules); compiler.Failed() {
		return nil, fmt.Errorf("compile policies: %w", compiler.Errors)
	}
	return compiler, nil
}

// Capabilities are the builtins that a rule may use: those without network, clock, chance and environment, so that the
// same request is always judged the same way and a rule can reach nothing.
func Capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.AllowNet = []string{}
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		if b.Nondeterministic {
			return true
		}
		switch b.Name {
		case "http.send", "net.lookup_ip_addr", "opa.runtime", "rego.parse_module", "time.now_ns", "rand.intn",
			"uuid.rfc4122", "trace", "io.jwt.decode_verify", "io.jwt.encode_sign", "io.jwt.encode_sign_raw":
			return true
		}
		return false
	})
	return c
}

// Metadata is what the METADATA block of a rule's package says.
type Metadata struct {
	Title, Description string
	ID, Fix            string
	Related            []string
	Early              bool
	Off                bool // unless the configuration gives it a mode
	File               string
}

// metadataOf reads the package annotations of a module.
func metadataOf(module *ast.Module) (m Metadata) {
	for _, a := range module.Annotations {
		if a.Scope != "package" && a.Scope != "subpackages" {
			continue
		}
		m.Title, m.Description = a.Title, strings.TrimSpace(a.Description)
		m.ID, _ = a.Custom["id"].(string)
		m.Fix, _ = a.Custom["fix"].(string)
		m.Early, _ = a.Custom["early"].(bool)
		m.Off = a.Custom["default"] == "off"
		related, _ := a.Custom["related"].([]any)
		for _, r := range related {
			m.Related = append(m.Related, fmt.Sprint(r))
		}
	}
	if module.Package.Location != nil {
		m.File = module.Package.Location.File
	}
	return m
}

// errorText gives the text of an OPA error without the location's snippet, on one line.
func errorText(err error) string {
	text, _, _ := bytes.Cut([]byte(err.Error()), []byte("\n"))
	return string(text)
}
