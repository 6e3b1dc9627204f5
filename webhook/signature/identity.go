package signature

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/hallmark-admission/hallmark/webhook"
)

// An identity is what a certificate has to say of its owner.
type identity struct {
	config  Identity
	pattern *regexp.Regexp // anchored; nil for an exact subject
	matcher verify.CertificateIdentity
}

// compile refuses an identity that would trust everybody: one without issuer or subject, or whose pattern says nothing
// about a subject.
func (i Identity) compile() (*identity, error) {
	made := &identity{config: i}
	var problems []error
	if i.Issuer == "" {
		problems = append(problems, errors.New("the identity has no issuer; anybody can have any subject at an issuer of their own"))
	} else if u, err := url.Parse(i.Issuer); err != nil || u.Host == "" {
		problems = append(problems, fmt.Errorf("the issuer has to be a URL such as https://token.actions.githubusercontent.com, not %q", i.Issuer))
	}
	switch {
	case i.Subject == "" && i.SubjectPattern == "":
		problems = append(problems, errors.New("the identity has no subject and no pattern; it would trust everybody at the issuer"))
	case i.Subject != "" && i.SubjectPattern != "":
		problems = append(problems, errors.New("the identity has a subject and a pattern; give one"))
	case i.SubjectPattern != "":
		pattern, err := anchored(i.SubjectPattern)
		problems = append(problems, err)
		made.pattern = pattern
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	expression := ""
	if made.pattern != nil {
		expression = made.pattern.String()
	}
	var err error
	made.matcher, err = verify.NewShortCertificateIdentity(i.Issuer, "", i.Subject, expression)
	return made, err
}

// anchored compiles a pattern that matches all of a subject.
func anchored(pattern string) (*regexp.Regexp, error) {
	compiled, err := webhook.CompileWhole(pattern)
	if err != nil {
		return nil, fmt.Errorf("subject pattern: %w", err)
	}
	// What matches nonsense and the empty string alike says nothing about a subject.
	if compiled.MatchString("") || compiled.MatchString("\x01 anybody") {
		return nil, errors.New("the subject pattern matches everybody; write what the subjects begin with")
	}
	return compiled, nil
}

// String is how a message names the identity.
func (i *identity) String() string {
	if i.pattern != nil {
		return i.config.SubjectPattern
	}
	return i.config.Subject
}

// mismatch says what is wrong with a certificate's identity; "" when it is the one.
func (i *identity) mismatch(found certificate.Summary) reason {
	switch {
	case i.matcher.Verify(found) == nil:
		return ""
	case found.Issuer != i.config.Issuer:
		return otherIssuer(found.Issuer, i.config.Issuer)
	}
	return otherIdentity(found.SubjectAlternativeName, i.String())
}
