package source

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// LineOf is the line of the value at a JSON pointer into the object, or of the nearest one around it; that of the
// object when nothing of the pointer is there.
func (o *Object) LineOf(pointer string) int {
	line := o.Line
	at := resolve(o.node)
	if at != nil {
		line = o.before + at.Line
	}
	for _, token := range strings.Split(pointer, "/")[1:] {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		var next *yaml.Node
		if at != nil && at.Kind == yaml.SequenceNode {
			if i, err := strconv.Atoi(token); err == nil {
				next = elementOf(at, i)
			}
		} else {
			next = childOf(at, token)
		}
		if next == nil {
			return line
		}
		// An alias is shown where it stands, which is what would be changed.
		line = o.before + next.Line
		at = resolve(next)
	}
	return line
}

// resolve follows an alias.
func resolve(node *yaml.Node) *yaml.Node {
	if node != nil && node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// childOf is the value of a name in a mapping, or in one that is merged into it; nil when there is none.
func childOf(node *yaml.Node, name string) *yaml.Node { return childWithin(node, name, 100) }

// childWithin bounds how deep merged mappings are looked into.
func childWithin(node *yaml.Node, name string, depth int) *yaml.Node {
	node = resolve(node)
	if node == nil || node.Kind != yaml.MappingNode || depth == 0 {
		return nil
	}
	var merged *yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		switch key := node.Content[i]; {
		case key.Tag == "!!merge":
			merged = resolve(node.Content[i+1])
		case resolve(key).Value == name:
			return node.Content[i+1]
		}
	}
	if merged == nil || merged.Kind != yaml.SequenceNode {
		return childWithin(merged, name, depth-1)
	}
	for _, one := range merged.Content {
		if found := childWithin(one, name, depth-1); found != nil {
			return found
		}
	}
	return nil
}

// elementOf is an element of a sequence; nil when there is none.
func elementOf(node *yaml.Node, i int) *yaml.Node {
	node = resolve(node)
	if node == nil || node.Kind != yaml.SequenceNode || i < 0 || i >= len(node.Content) {
		return nil
	}
	return node.Content[i]
}

// templated finds an image whose name somebody has still to fill in.
func templated(node *yaml.Node) *yaml.Node {
	if node == nil {
		return nil
	}
	for i, child := range node.Content {
		isImage := node.Kind == yaml.MappingNode && i%2 == 1 && node.Content[i-1].Value == "image"
		if isImage && child.Kind == yaml.ScalarNode && looksLikeHelm([]byte(child.Value)) {
			return child
		}
		if found := templated(child); found != nil {
			return found
		}
	}
	return nil
}
