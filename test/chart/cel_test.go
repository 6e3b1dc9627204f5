package chart

import (
	"context"
	"fmt"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/scheme"
)

// request is what a policy is asked about.
type request struct {
	operation   admission.Operation
	resource    string // "pods"
	subresource string
	object, old runtime.Object // nil interfaces for none
	user        string
	groups      []string
	namespace   string
	may         []string // verbs that the user has on namespaces.hallmark.dev
	params      runtime.Object
}

// attributes are those that the API server's admission has for a request.
func (r request) attributes(t *testing.T) *admission.VersionedAttributes {
	t.Helper()
	kinds, _, err := scheme.Scheme.ObjectKinds(r.object)
	if err != nil {
		t.Fatal(err)
	}
	accessor, err := meta.Accessor(r.object)
	if err != nil {
		t.Fatal(err)
	}
	resource := schema.GroupVersionResource{Group: kinds[0].Group, Version: kinds[0].Version, Resource: r.resource}
	record := admission.NewAttributesRecord(r.object, r.old, kinds[0], r.namespace, accessor.GetName(), resource, r.subresource,
		r.operation, nil, false, &user.DefaultInfo{Name: r.user, Groups: r.groups})
	versioned, err := admission.NewVersionedAttributes(record, kinds[0], admission.NewObjectInterfacesFromScheme(scheme.Scheme))
	if err != nil {
		t.Fatal(err)
	}
	return versioned
}

// Authorize makes a request the authorizer of its user.
func (r request) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	for _, verb := range r.may {
		if a.GetVerb() == verb && a.GetAPIGroup() == "hallmark.dev" && a.GetResource() == "namespaces" {
			return authorizer.DecisionAllow, "", nil
		}
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// compiler is the API server's, with what the oldest version knows that the chart is for.
func compiler(t *testing.T) *cel.CompositedCompiler {
	t.Helper()
	c, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(version.MajorMinor(1, 30)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func conditions(c *cel.CompositedCompiler, list []admissionv1.MatchCondition, options cel.OptionalVariableDeclarations) matchconditions.Matcher {
	accessors := make([]cel.ExpressionAccessor, len(list))
	for i := range list {
		accessors[i] = (*matchconditions.MatchCondition)(&list[i])
	}
	// With Fail an error is an error, and no answer.
	fail := admissionv1.Fail
	return matchconditions.NewMatcher(c.CompileCondition(accessors, options, environment.NewExpressions), &fail, "test", "test", "test")
}

// called says whether an entry is sent a request, by its match conditions.
func (e entry) called(t *testing.T, r request) bool {
	t.Helper()
	matcher := conditions(compiler(t), e.conditions, cel.OptionalVariableDeclarations{HasAuthorizer: true})
	result := matcher.Match(t.Context(), r.attributes(t), nil, r)
	if result.Error != nil {
		t.Errorf("match conditions of %s: %v", e.name, result.Error)
	}
	return result.Matches
}

// validator compiles a policy as k8s.io/apiserver's compilePolicy does, which is not exported.
func validator(t *testing.T, p *admissionv1.ValidatingAdmissionPolicy) validating.Validator {
	t.Helper()
	c := compiler(t)
	options := cel.OptionalVariableDeclarations{HasParams: p.Spec.ParamKind != nil, HasAuthorizer: true}
	for _, v := range p.Spec.Variables {
		result := c.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, options, environment.NewExpressions)
		if result.Error != nil {
			t.Fatalf("%s: variable %s: %v", p.Name, v.Name, result.Error)
		}
	}
	var validations, messages []cel.ExpressionAccessor
	for _, v := range p.Spec.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
		var message cel.ExpressionAccessor
		if v.MessageExpression != "" {
			message = &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
		}
		messages = append(messages, message)
	}
	fail := admissionv1.Fail
	return validating.NewValidator(
		c.CompileCondition(validations, options, environment.NewExpressions), conditions(c, p.Spec.MatchConditions, options),
		c.CompileCondition(nil, options, environment.NewExpressions), c.CompileCondition(messages, options, environment.NewExpressions), &fail, nil)
}

// refusals are the messages with which a policy refuses a request. An error is a test failure: it would refuse what is
// allowed, or allow what is not.
func refusals(t *testing.T, p *admissionv1.ValidatingAdmissionPolicy, r request) []string {
	t.Helper()
	versioned := r.attributes(t)
	result := validator(t, p).Validate(t.Context(), versioned.GetResource(), versioned, r.params, nil, celconfig.RuntimeCELCostBudget, r)
	var found []string
	for _, d := range result.Decisions {
		switch d.Evaluation {
		case validating.EvalError:
			t.Errorf("%s: %s", p.Name, d.Message)
		case validating.EvalDeny:
			found = append(found, fmt.Sprintf("%s: %s", d.Reason, d.Message))
		}
	}
	return found
}
