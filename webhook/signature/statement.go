package signature

import (
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	cosigntypes "github.com/sigstore/cosign/v2/pkg/types"
	"github.com/sigstore/sigstore-go/pkg/bundle"

	"github.com/hallmark-admission/hallmark/webhook"
)

// signPredicate is the predicate type of cosign's signatures in bundles. A bundle with another one attests something, a bill
// of materials for instance, and is no signature of the image, whoever made it.
const signPredicate = cosigntypes.CosignSignPredicateType

// maxSubjects is what sigstore-go reads of a statement, too.
const maxSubjects = 1024

// A statement is what an in-toto envelope says.
type statement struct {
	Type          string         `json:"_type"`
	PredicateType string         `json:"predicateType"`
	Subject       []*subject     `json:"subject"`
	Predicate     jsontext.Value `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// parseStatement reads an envelope's payload; false for what is no statement.
func parseStatement(payloadType string, payload []byte) (*statement, bool) {
	var s statement
	if payloadType != bundle.IntotoMediaType || json.Unmarshal(payload, &s) != nil {
		return nil, false
	}
	if s.Type != "https://in-toto.io/Statement/v1" && s.Type != "https://in-toto.io/Statement/v0.1" || len(s.Subject) > maxSubjects {
		return nil, false
	}
	for _, subject := range s.Subject {
		if subject == nil {
			return nil, false
		}
	}
	return &s, true
}

// check gives why a statement does not speak of the image; "" when it does. Its predicate type has been judged before.
func (s *statement) check(b binding) reason {
	digits := strings.TrimPrefix(b.ref.Digest, "sha256:")
	why := noDigest
	for _, subject := range s.Subject {
		switch claimed := subject.Digest["sha256"]; {
		case claimed == "":
			continue
		case claimed != digits:
			if why == noDigest {
				why = otherDigest
			}
			continue
		}
		switch {
		case subject.Name != "":
			why = b.repositoryOf(subject.Name)
		case b.repository == webhook.RepositoryRequire:
			why = noRepository
		default:
			return ""
		}
		if why == "" {
			return ""
		}
	}
	return why
}
