package webhook

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// A decoder reads what a decision needs out of a JSON document and skips the rest, in one pass and by hand: the
// objects are 4 to 20 kB and the needed part is a tenth of that. It is as strict as the API server: names are
// case-sensitive, and it refuses known names that stand twice or differ in case only, invalid UTF-8 and
// nesting deeper than 10,000. null stands for an absent value, as in Kubernetes.
//
// One decoder reads the review first and its objects after it, and keeps what it allocated. Names that are not read may
// stand twice: nobody looks at them, and remembering all names costs as much as reading them.
type decoder struct {
	*jsontext.Decoder

	document bytes.Buffer
	text     []byte // of the document
}

func newDecoder(document []byte) *decoder {
	d := &decoder{document: *bytes.NewBuffer(document), text: document}
	d.Decoder = jsontext.NewDecoder(&d.document, jsontext.AllowDuplicateNames(true)) // object and labels refuse them
	return d
}

// readAgain makes a decoder of another document. What it allocated for the last one it uses again; nil has nothing yet.
func (d *decoder) readAgain(document []byte) *decoder {
	if d == nil {
		return newDecoder(document)
	}
	d.document, d.text = *bytes.NewBuffer(document), document
	d.Reset(&d.document, jsontext.AllowDuplicateNames(true))
	return d
}

// members are the names of an object that are read.
func members(names ...string) []string { return names }

var (
	errCase      = errors.New("name differs from a known one only in upper and lower case")
	errDuplicate = errors.New("duplicate name in an object")
)

// object reads an object, or null. It calls read for every name, which must consume the value.
func (d *decoder) object(known []string, read func(member string) error) error {
	switch kind := d.PeekKind(); kind {
	case 'n':
		return d.SkipValue()
	case '{':
	default:
		return d.want(kind, "an object")
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	var seen uint64
	for d.PeekKind() != '}' {
		name, err := d.ReadValue()
		if err != nil {
			return err
		}
		member := ""
		switch i, err := memberIndex(name, known); {
		case err != nil:
			return err
		case i >= 0 && seen&(1<<i) != 0:
			return errDuplicate
		case i >= 0:
			member, seen = known[i], seen|1<<i
		}
		if err := read(member); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// memberIndex gives the place of the known name that a quoted name spells, -1 for any other.
func memberIndex(quoted jsontext.Value, known []string) (int, error) {
	name, err := unquoted(quoted)
	if err != nil {
		return 0, err
	}
	for i, k := range known {
		if k == string(name) {
			return i, nil
		}
	}
	for _, k := range known {
		if len(k) == len(name) && strings.EqualFold(k, string(name)) {
			return 0, errCase
		}
	}
	return -1, nil
}

// labels reads an object of strings, or null, and keeps the names that a decision looks at.
func (d *decoder) labels() (map[string]string, error) {
	if kind := d.PeekKind(); kind != '{' {
		if kind == 'n' {
			return nil, d.SkipValue()
		}
		return nil, d.want(kind, "an object of strings")
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	var labels map[string]string
	for d.PeekKind() != '}' {
		quoted, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		name, err := unquoted(quoted)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(keptLabels, func(kept string) bool { return kept == string(name) })
		if i < 0 {
			if kind := d.PeekKind(); kind != '"' && kind != 'n' {
				return nil, d.want(kind, "a string")
			}
			if err := d.SkipValue(); err != nil {
				return nil, err
			}
			continue
		}
		if labels == nil {
			labels = map[string]string{}
		}
		if _, twice := labels[keptLabels[i]]; twice {
			return nil, errDuplicate
		}
		if labels[keptLabels[i]], err = d.string(); err != nil {
			return nil, err
		}
	}
	_, err := d.ReadToken()
	return labels, err
}

// unquoted gives the text of a quoted name; it is valid until the next value is read.
func unquoted(quoted jsontext.Value) ([]byte, error) {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') < 0 {
		return name, nil
	}
	return jsontext.AppendUnquote(nil, quoted)
}

// member reads an object, or null, and gives the string that it has under the name.
func (d *decoder) member(name string) (value string, err error) {
	err = d.object(members(name), func(member string) (err error) {
		if member == name {
			value, err = d.string()
			return err
		}
		return d.SkipValue()
	})
	return value, err
}

// array reads an array, or null. It calls read for every element, which must consume it.
func (d *decoder) array(read func(i int) error) error {
	switch kind := d.PeekKind(); kind {
	case 'n':
		return d.SkipValue()
	case '[':
	default:
		return d.want(kind, "an array")
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for i := 0; d.PeekKind() != ']'; i++ {
		if err := read(i); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// string reads a string; null is "".
func (d *decoder) string() (string, error) {
	switch kind := d.PeekKind(); kind {
	case 'n':
		return "", d.SkipValue()
	case '"':
	default:
		return "", d.want(kind, "a string")
	}
	token, err := d.ReadToken()
	if err != nil {
		return "", err
	}
	return token.String(), nil
}

// rawString gives a string as it is quoted in the document; null is nil.
func (d *decoder) rawString() (jsontext.Value, error) {
	if kind := d.PeekKind(); kind != '"' && kind != 'n' {
		return nil, d.want(kind, "a string")
	}
	return d.raw()
}

// strings reads an array of strings, or null.
func (d *decoder) strings() ([]string, error) {
	var list []string
	err := d.array(func(int) error {
		s, err := d.string()
		list = append(list, s)
		return err
	})
	return list, err
}

// bool reads a boolean; null is false.
func (d *decoder) bool() (bool, error) {
	p, err := d.boolPointer()
	return p != nil && *p, err
}

func (d *decoder) boolPointer() (*bool, error) {
	kind := d.PeekKind()
	if kind != 't' && kind != 'f' {
		if kind == 'n' {
			return nil, d.SkipValue()
		}
		return nil, d.want(kind, "true or false")
	}
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	b := token.Bool()
	return &b, nil
}

// int reads an integer; null is nil.
func (d *decoder) int() (*int64, error) {
	kind := d.PeekKind()
	if kind != '0' {
		if kind == 'n' {
			return nil, d.SkipValue()
		}
		return nil, d.want(kind, "an integer")
	}
	value, err := d.ReadValue()
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return nil, errors.New("want an integer of 64 bits")
	}
	return &n, nil
}

// raw gives the next value as a part of the document; null is nil.
func (d *decoder) raw() ([]byte, error) {
	if d.PeekKind() == 'n' {
		return nil, d.SkipValue()
	}
	value, err := d.ReadValue()
	if err != nil {
		return nil, err
	}
	end := int(d.InputOffset())
	return d.text[end-len(value) : end : end], nil
}

// end says whether anything but white space follows the document.
func (d *decoder) end() error {
	_, err := d.ReadToken()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return errors.New("more than one JSON value")
	}
	return err
}

// want says what should stand at this place. A kind of 0 is a syntax error, which reading on tells in better words.
func (d *decoder) want(kind jsontext.Kind, what string) error {
	if kind == 0 {
		_, err := d.ReadToken()
		return err
	}
	// The pointer of a decoder is the value that was read last.
	if err := d.SkipValue(); err != nil {
		return err
	}
	return errors.New("want " + what + ", not " + kindName(kind))
}

func kindName(kind jsontext.Kind) string {
	switch kind {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "a boolean"
	}
	return "null"
}

// malformed words an error of this decoder for people: the place as a JSON pointer, cut to a readable length.
func (d *decoder) malformed(err error) *MalformedError {
	pointer := string(d.StackPointer())
	var syntax *jsontext.SyntacticError
	switch {
	case errors.As(err, &syntax):
		pointer = string(syntax.JSONPointer)
		err = syntax.Err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the JSON document ends too early")
	}
	return &MalformedError{Pointer: plain(cut(pointer, 200)), Reason: plain(cut(err.Error(), 200))}
}
