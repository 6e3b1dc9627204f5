package source

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
	k8syaml "sigs.k8s.io/yaml"

	"github.com/hallmark-admission/hallmark/webhook"
)

// A document is one value of a file, in the two forms that are needed: what is sent, and where it stands.
type document struct {
	json   jsontext.Value
	node   *yaml.Node
	before int // lines of the file before the part that the lines of node are counted in
}

// errEmpty is what a document without a value gives.
var errEmpty = errors.New("empty")

// documents takes a text apart. Each document or problem is handed on in the order of the file.
func documents(name string, text []byte, found func(document), broken func(Problem)) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(text) {
		broken(Problem{Message: "is no UTF-8 text"})
		return
	}
	for _, p := range split(text) {
		if body := p.body(); len(body) > 0 && (body[0] == '{' || body[0] == '[') {
			list, err := jsonValues(p)
			// What begins like JSON may be YAML in its flow style.
			if err == nil || len(list) > 0 || strings.HasSuffix(strings.ToLower(name), ".json") {
				for _, d := range list {
					found(d)
				}
				if err != nil {
					broken(p.problem("JSON", err))
				}
				continue
			}
		}
		d, err := yamlValue(p)
		switch {
		case err == nil:
			found(d)
		case !errors.Is(err, errEmpty):
			broken(p.problem("YAML", err))
		}
	}
}

// A part is what stands between two separators, with the separator at its head if it has one.
type part struct {
	text   []byte
	before int // lines
}

// split cuts at lines that begin with "---" or "...", which stand for nothing else anywhere in YAML, nor in JSON.
func split(text []byte) []part {
	var parts []part
	start, startLine, line := 0, 0, 0
	cut := func(end, next, nextLine int) {
		if len(bytes.TrimSpace(text[start:end])) > 0 {
			parts = append(parts, part{text[start:end], startLine})
		}
		start, startLine = next, nextLine
	}
	for at := 0; at < len(text); line++ {
		end := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		switch {
		case isMark(text[at:end], "---"):
			cut(at, at, line)
		case isMark(text[at:end], "..."):
			cut(at, end, line+1)
		}
		at = end
	}
	cut(len(text), len(text), line)
	return parts
}

func isMark(line []byte, mark string) bool {
	rest, found := bytes.CutPrefix(line, []byte(mark))
	return found && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// body is the text without separator and space.
func (p part) body() []byte { return bytes.TrimSpace(bytes.TrimPrefix(p.text, []byte("---"))) }

// jsonValues reads JSON values that follow each other, as far as they are right.
func jsonValues(p part) ([]document, error) {
	text := bytes.TrimPrefix(p.text, []byte("---"))
	var list []document
	d := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		value, err := d.ReadValue()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, jsonError(text, err)
		}
		end := int(d.InputOffset())
		value = text[end-len(value) : end : end]
		lines := bytes.Count(text[:end-len(value)], []byte("\n"))
		n := &jsonNodes{decoder: jsontext.NewDecoder(bytes.NewReader(value)), text: value, line: 1}
		node, err := n.node()
		if err != nil {
			return list, jsonError(text, err) // cannot be: the value was read before
		}
		list = append(list, document{json: value, node: node, before: p.before + lines})
	}
}

// lineError is an error with its line.
type lineError struct {
	line int // from 1, within the part
	text string
}

func (e *lineError) Error() string { return e.text }

func jsonError(text []byte, err error) error {
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &lineError{1 + bytes.Count(text, []byte("\n")), "ends in the middle of a JSON value"}
	}
	offset := min(int(syntax.ByteOffset), len(text))
	words := strings.TrimPrefix(syntax.Err.Error(), "jsontext: ")
	if pointer := string(syntax.JSONPointer); pointer != "" {
		words = pointer + ": " + words
	}
	return &lineError{1 + bytes.Count(text[:offset], []byte("\n")), words}
}

// jsonNodes makes the tree of a JSON value that the YAML library would make, which refuses some JSON.
type jsonNodes struct {
	decoder *jsontext.Decoder
	text    []byte
	at      int // offset up to which lines are counted
	line    int
}

func (n *jsonNodes) node() (*yaml.Node, error) {
	token, err := n.decoder.ReadToken()
	if err != nil {
		return nil, err
	}
	offset := int(n.decoder.InputOffset())
	n.line += bytes.Count(n.text[n.at:offset], []byte("\n")) // none within a token
	n.at = offset
	node := &yaml.Node{Kind: yaml.ScalarNode, Value: token.String(), Line: n.line}
	kind := token.Kind()
	if kind != '{' && kind != '[' {
		return node, nil
	}
	node.Kind, node.Value = yaml.SequenceNode, ""
	if kind == '{' {
		node.Kind = yaml.MappingNode
	}
	for {
		if k := n.decoder.PeekKind(); k == '}' || k == ']' {
			_, err := n.decoder.ReadToken()
			return node, err
		}
		child, err := n.node()
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, child)
	}
}

// yamlValue reads the one value of a part. errEmpty says that there is none.
func yamlValue(p part) (document, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(p.text, &root); err != nil {
		return document{}, err
	}
	if len(root.Content) == 0 || root.Content[0].Kind == yaml.ScalarNode && root.Content[0].Tag == "!!null" {
		return document{}, errEmpty
	}
	if err := keyTwice(&root); err != nil {
		return document{}, err
	}
	value, err := k8syaml.YAMLToJSON(p.text)
	if err != nil {
		return document{}, err
	}
	return document{json: value, node: root.Content[0], before: p.before}, nil
}

// lineOf finds "line 12: text" in what the YAML libraries say.
var lineOf = regexp.MustCompile(`line (\d+): (.*)`)

// parserSays tells errors of the library's parser, which counts lines from 0, from those of its scanner.
var parserSays = regexp.MustCompile(`^did not find expected (<|node content|key$|'-' indicator|',' or )`)

// keyTwice finds a name that stands twice in a mapping: two readers could take either. The strict mode of the library
// would also refuse what overrides a merged name, which is what merging is for.
func keyTwice(node *yaml.Node) error {
	if node.Kind == yaml.MappingNode {
		seen := map[string]bool{}
		for i := 0; i < len(node.Content); i += 2 {
			key := resolve(node.Content[i])
			if key.Kind == yaml.ScalarNode && seen[key.Value] {
				return &lineError{node.Content[i].Line, webhook.Quote(key.Value) + " stands there twice"}
			}
			seen[key.Value] = true
		}
	}
	for _, child := range node.Content {
		if err := keyTwice(child); err != nil {
			return err
		}
	}
	return nil
}

// problem words an error for people.
func (p part) problem(format string, err error) Problem {
	if looksLikeHelm(p.text) {
		return Problem{Line: p.before + 1, Message: helmMessage, Hint: helmHint}
	}
	var at *lineError
	if errors.As(err, &at) {
		return Problem{Line: p.before + at.line, Message: "is no valid " + format + ": " + at.text}
	}
	line, words := 1, err.Error()
	if m := lineOf.FindStringSubmatch(words); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits
		words = m[2]
	}
	if i := strings.LastIndex(words, "yaml: "); i >= 0 {
		words = words[i+len("yaml: "):]
	}
	if parserSays.MatchString(words) {
		line = min(line+1, bytes.Count(p.text, []byte("\n"))+1)
	}
	return Problem{Line: p.before + line, Message: "is no valid " + format + ": " + words}
}

const (
	helmMessage = "looks like a Helm template"
	helmHint    = "render it first: helm template CHART | hallmark check --config FILE -"
)

func looksLikeHelm(text []byte) bool {
	return bytes.Contains(text, []byte("{{")) && bytes.Contains(text, []byte("}}"))
}
