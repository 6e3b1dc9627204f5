package policy

import (
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"
)

// membersRead gives those members of the configuration that some module mentions (data.hallmark.config.pin), and all of them
// when one takes it as a whole or by a name that only the evaluation knows. Values that nobody reads would cost memory, and
// the garbage collector its way through them: a catalogue of 10,000 images is 90 MB of them.
func membersRead(compiler *ast.Compiler, config map[string]any) map[string]any {
	path := [...]ast.String{"hallmark", "config"}
	read := map[string]any{}
	for _, module := range compiler.Modules {
		ast.WalkRefs(module, func(ref ast.Ref) bool {
			if !ref[0].Equal(ast.DefaultRootDocument) {
				return false
			}
			for i, part := range ref[1:] {
				name, literal := part.Value.(ast.String)
				switch {
				case !literal:
					maps.Copy(read, config)
					return false
				case i < len(path) && name != path[i]:
					return false // another part of data
				case i == len(path):
					if value, ok := config[string(name)]; ok {
						read[string(name)] = value
					}
					return false
				}
			}
			maps.Copy(read, config) // the reference ends before a member does
			return false
		})
	}
	return read
}
