package catalog

import (
	"fmt"
	"strings"
)

// ParsePath reads a template of repository paths: segments with a slash between, each a literal or a name in braces.
func ParsePath(template string) ([]string, error) {
	segments := strings.Split(template, "/")
	seen := map[string]bool{}
	for _, segment := range segments {
		name, isName := partName(segment)
		switch {
		case isName && (name == "" || strings.ContainsAny(name, "{}")), !isName && strings.ContainsAny(segment, "{}"), segment == "":
			return nil, fmt.Errorf("path template %q: %q is neither a literal segment nor a {name}", template, segment)
		case isName && seen[name]:
			return nil, fmt.Errorf("path template %q: {%s} stands there twice", template, name)
		}
		seen[name] = isName
	}
	return segments, nil
}

func partName(segment string) (name string, isName bool) {
	inner, opened := strings.CutPrefix(segment, "{")
	inner, closed := strings.CutSuffix(inner, "}")
	return inner, opened && closed
}

// matchPath gives the named parts of a repository, or nil when it does not follow the template.
func matchPath(template []string, repository string) map[string]string {
	if len(template) == 0 || strings.Count(repository, "/") != len(template)-1 {
		return nil
	}
	parts := make(map[string]string, len(template))
	i := 0
	for segment := range strings.SplitSeq(repository, "/") {
		if name, isName := partName(template[i]); isName {
			parts[name] = segment
		} else if segment != template[i] {
			return nil
		}
		i++
	}
	return parts
}
