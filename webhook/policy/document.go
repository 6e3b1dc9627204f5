package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/hallmark-admission/hallmark/webhook"
)

// A document is the input of rules, written down as bytes. The bytes are what judgements are remembered by, and they are
// read into terms when rules must be evaluated: what rules can see is what is compared, by construction.
//
// A value is a mark, and what follows it: text and its length, a number, members (name, value) up to the end of an
// object, values up to the end of an array. A term that was converted elsewhere is told by 32 bytes that identify it.
type document struct {
	bytes []byte
	terms []*ast.Term // in the order of their marks
}

const (
	markText     = '"'
	markNumber   = '#'
	markTrue     = 't'
	markFalse    = 'f'
	markNull     = '0'
	markObject   = '{'
	markArray    = '['
	markEnd      = '.'
	markTerm     = 'x'
	identityLong = sha256.Size
)

// reset makes room for another input where this one was.
func (d *document) reset() {
	clear(d.terms)
	d.bytes, d.terms = d.bytes[:0], d.terms[:0]
}

// key names the document, judged in a phase.
func (d *document) key(phase webhook.Phase) judgementKey {
	d.mark(byte(phase))
	key := sha256.Sum256(d.bytes)
	d.bytes = d.bytes[:len(d.bytes)-1]
	return key
}

func (d *document) mark(m byte) { d.bytes = append(d.bytes, m) }

func (d *document) text(value string) {
	d.mark(markText)
	d.bytes = binary.AppendUvarint(d.bytes, uint64(len(value)))
	d.bytes = append(d.bytes, value...)
}

// object begins a member that is an object, to be ended; array likewise.
func (d *document) object(name string) { d.text(name); d.mark(markObject) }
func (d *document) array(name string)  { d.text(name); d.mark(markArray) }

// element begins an object in an array.
func (d *document) element() { d.mark(markObject) }
func (d *document) end()     { d.mark(markEnd) }

func (d *document) string(name, value string) { d.text(name); d.text(value) }

// optional leaves out what is empty.
func (d *document) optional(name, value string) {
	if value != "" {
		d.string(name, value)
	}
}

// moment leaves out what is not known.
func (d *document) moment(name string, t time.Time) {
	if !t.IsZero() {
		d.string(name, t.UTC().Format(time.RFC3339))
	}
}

func (d *document) bool(name string, value bool) {
	d.text(name)
	if value {
		d.mark(markTrue)
	} else {
		d.mark(markFalse)
	}
}

func (d *document) int(name string, value int) {
	d.text(name)
	d.mark(markNumber)
	d.bytes = binary.AppendVarint(d.bytes, int64(value))
}

func (d *document) null(name string) { d.text(name); d.mark(markNull) }

func (d *document) strings(name string, values []string) {
	d.array(name)
	for _, v := range values {
		d.text(v)
	}
	d.end()
}

// term adds what was converted already. Terms with the same identity must be equal.
func (d *document) term(name string, identity [identityLong]byte, term *ast.Term) {
	d.text(name)
	d.mark(markTerm)
	d.bytes = append(d.bytes, identity[:]...)
	d.terms = append(d.terms, term)
}

// value reads the document into what rules evaluate.
func (d *document) value() (ast.Value, error) {
	r := documentReader{rest: d.bytes, terms: d.terms}
	term, err := r.term()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the input back: %w", err)
	case term == nil || len(r.rest) > 0 || len(r.terms) > 0:
		return nil, errors.New("read the input back: it is not one value")
	}
	return term.Value, nil
}

type documentReader struct {
	rest  []byte
	terms []*ast.Term
}

var errDocument = errors.New("it is not well-formed")

// term reads a value; nil is the end of an object or array.
func (r *documentReader) term() (*ast.Term, error) {
	if len(r.rest) == 0 {
		return nil, errDocument
	}
	mark := r.rest[0]
	r.rest = r.rest[1:]
	switch mark {
	case markText:
		return r.text()
	case markNumber:
		value, n := binary.Varint(r.rest)
		if n <= 0 {
			return nil, errDocument
		}
		r.rest = r.rest[n:]
		return ast.InternedTerm(int(value)), nil
	case markTrue, markFalse:
		return ast.InternedTerm(mark == markTrue), nil
	case markNull:
		return ast.InternedNullTerm, nil
	case markObject:
		return r.object()
	case markArray:
		return r.array()
	case markTerm:
		if len(r.rest) < identityLong || len(r.terms) == 0 {
			return nil, errDocument
		}
		term := r.terms[0]
		r.rest, r.terms = r.rest[identityLong:], r.terms[1:]
		return term, nil
	case markEnd:
		return nil, nil //nolint:nilnil // the end is no value and no error
	}
	return nil, errDocument
}

func (r *documentReader) text() (*ast.Term, error) {
	size, n := binary.Uvarint(r.rest)
	if n <= 0 || size > uint64(len(r.rest)-n) {
		return nil, errDocument
	}
	text := r.rest[n : n+int(size)]
	r.rest = r.rest[n+int(size):]
	if term := knownTerms[string(text)]; term != nil {
		return term, nil
	}
	return ast.InternedTerm(string(text)), nil
}

func (r *documentReader) object() (*ast.Term, error) {
	members := make([][2]*ast.Term, 0, 12)
	for {
		name, err := r.term()
		if err != nil {
			return nil, err
		}
		if name == nil {
			return ast.ObjectTerm(members...), nil
		}
		value, err := r.term()
		if err != nil {
			return nil, err
		}
		if value == nil {
			return nil, errDocument
		}
		members = append(members, [2]*ast.Term{name, value})
	}
}

func (r *documentReader) array() (*ast.Term, error) {
	var values []*ast.Term
	for {
		value, err := r.term()
		if err != nil {
			return nil, err
		}
		if value == nil {
			return ast.ArrayTerm(values...), nil
		}
		values = append(values, value)
	}
}
