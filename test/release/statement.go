package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

const (
	inTotoPayload = "application/vnd.in-toto+json"
	signPredicate = "https://sigstore.dev/cosign/sign/v1" // says nothing but that the subject is signed
)

// A subject is what a statement is about.
type subject struct {
	Name   string            `json:"name,omitempty"`
	Digest map[string]string `json:"digest"`
}

// newStatement says something of subjects (https://in-toto.io/Statement/v1). The predicate is JSON.
func newStatement(predicateType string, predicate []byte, subjects ...subject) ([]byte, error) {
	encoded, err := json.Marshal(struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []subject       `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}{intoto.StatementTypeUri, predicateType, subjects, predicate})
	if err != nil {
		return nil, fmt.Errorf("write a statement of type %s: %w", predicateType, err)
	}
	var read intoto.Statement
	if err := protojson.Unmarshal(encoded, &read); err != nil {
		return nil, fmt.Errorf("read a statement of type %s: %w", predicateType, err)
	}
	if err := read.Validate(); err != nil {
		return nil, fmt.Errorf("a statement of type %s is not valid: %w", predicateType, err)
	}
	return encoded, nil
}

// stable writes JSON in the one form that the same values always have.
func stable(text []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	return json.Marshal(value)
}
