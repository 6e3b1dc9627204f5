package registry

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Documents are read member by member, so that memory and time are bounded by their size, and strictly. Container
// runtimes read them with encoding/json, which takes "user" for "User" and lets the last of two members win; what is
// read here must mean the same there, so such documents are refused rather than read in one of the two ways.

var (
	errNotJSON   = errors.New("is not valid JSON")
	errAmbiguous = errors.New("has a member twice, or in another spelling")
	errTooMany   = errors.New("has too many entries")
)

// members gives the values of the named members of an object; those that are absent or null are nil. Nesting is
// bounded by jsontext (10,000), invalid UTF-8 is refused.
func members(data []byte, names ...string) (map[string]jsontext.Value, error) {
	found := make(map[string]jsontext.Value, len(names))
	err := eachMember(data, func(name string, value jsontext.Value) error {
		for _, known := range names {
			if !strings.EqualFold(name, known) {
				continue
			}
			if _, twice := found[known]; twice || name != known {
				return errAmbiguous
			}
			found[known] = value
		}
		return nil
	})
	for name, value := range found {
		if value.Kind() == 'n' {
			found[name] = nil
		}
	}
	return found, err
}

// has says that a member is there, even if it is null.
func has(object map[string]jsontext.Value, name string) bool {
	_, found := object[name]
	return found
}

// eachMember calls visit with every member of an object, in order.
func eachMember(data []byte, visit func(name string, value jsontext.Value) error) error {
	// Names that are visited are compared by the visitor; the decoder's own record of all names could grow to many
	// times the size of a hostile document.
	d := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true))
	if token, err := d.ReadToken(); err != nil || token.Kind() != '{' {
		return errNotJSON
	}
	for d.PeekKind() == '"' {
		token, err := d.ReadToken()
		if err != nil {
			return errNotJSON
		}
		name := token.String()
		value, err := d.ReadValue()
		if err != nil {
			return errNotJSON
		}
		if err := visit(name, data[d.InputOffset()-int64(len(value)):d.InputOffset()]); err != nil {
			return err
		}
	}
	return end(d)
}

// eachElement calls visit with at most max elements of an array, in order; a nil array has none.
func eachElement(data []byte, max int, visit func(value jsontext.Value) error) error {
	if data == nil {
		return nil
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true))
	if token, err := d.ReadToken(); err != nil || token.Kind() != '[' {
		return errNotJSON
	}
	for n := 0; d.PeekKind() != ']'; n++ {
		value, err := d.ReadValue()
		if err != nil {
			return errNotJSON
		}
		if n == max {
			return errTooMany
		}
		if err := visit(data[d.InputOffset()-int64(len(value)) : d.InputOffset()]); err != nil {
			return err
		}
	}
	return end(d)
}

// end reads the closing bracket, after which nothing may follow.
func end(d *jsontext.Decoder) error {
	if _, err := d.ReadToken(); err != nil {
		return errNotJSON
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errNotJSON
	}
	return nil
}

// text gives a string; "" for nil.
func text(value jsontext.Value) (string, error) {
	if value == nil {
		return "", nil
	}
	if value.Kind() != '"' {
		return "", errNotJSON
	}
	unquoted, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		return "", errNotJSON
	}
	return string(unquoted), nil
}

// texts gives an array of strings with at most max elements; nil for nil.
func texts(value jsontext.Value, max int) ([]string, error) {
	var all []string
	err := eachElement(value, max, func(element jsontext.Value) error {
		s, err := text(element)
		all = append(all, s)
		return err
	})
	return all, err
}

// textMap gives an object of strings with at most max members; nil for nil.
func textMap(value jsontext.Value, max int) (map[string]string, error) {
	if value == nil {
		return nil, nil
	}
	all := map[string]string{}
	err := eachMember(value, func(name string, member jsontext.Value) error {
		if _, twice := all[name]; twice {
			return errAmbiguous
		}
		if len(all) == max {
			return errTooMany
		}
		s, err := text(member)
		all[name] = s
		return err
	})
	return all, err
}

// integer gives a whole number, not negative; 0 for nil.
func integer(value jsontext.Value) (int64, error) {
	if value == nil {
		return 0, nil
	}
	n := int64(0)
	for _, c := range value {
		if c < '0' || c > '9' || n > (1<<62)/10 {
			return 0, errNotJSON
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}
