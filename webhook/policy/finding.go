package policy

import (
	"fmt"
	"strings"

	"github.com/hallmark-admission/hallmark/webhook"
)

// findings reads what a rule's set gave: no value at all when it is undefined, else one, which must be a set of
// {image, message, fix, args}. Whatever else it is makes the rule undecided, so that a mistake in a rule never allows
// anything.
func (r *rule) findings(set string, column []any, in *webhook.Input) []webhook.Finding {
	if len(column) != 1 {
		return []webhook.Finding{failure(r, set+" is undefined")}
	}
	entries, ok := column[0].([]any)
	if !ok {
		return []webhook.Finding{failure(r, set+" is not a set")}
	}
	findings := make([]webhook.Finding, 0, len(entries))
	for _, entry := range entries {
		f, err := r.finding(entry, in)
		if err != nil {
			f = failure(r, fmt.Sprintf("%s has an entry that is no finding: %v", set, err))
		}
		f.Warning = set == "warn"
		findings = append(findings, f)
	}
	return findings
}

func (r *rule) finding(entry any, in *webhook.Input) (webhook.Finding, error) {
	f := webhook.Finding{Rule: r.Name}
	object, ok := entry.(map[string]any)
	if !ok {
		return f, fmt.Errorf("want an object with image and message, not %T", entry)
	}
	message, ok := object["message"].(string)
	if !ok || message == "" {
		return f, fmt.Errorf("message is not a string")
	}
	args, _ := object["args"].(map[string]any)
	f.Message = fill(message, args)
	if fix, ok := object["fix"].(string); ok {
		f.Fix = fill(fix, args)
	}
	where, given := object["image"].(string)
	for _, image := range in.Images {
		if image.Where == where {
			f.Image = image
			return f, nil
		}
	}
	if given && where != "" {
		return f, fmt.Errorf("image %q is none of the images of the input", where)
	}
	return f, nil // about the whole object
}

// failure is the finding of a rule that could not be judged. It denies in the mode of the rule.
func failure(r *rule, reason string) webhook.Finding {
	return webhook.Finding{Rule: r.Name, Undecided: true, Message: "the rule failed: " + reason}
}

// fill puts arguments into the placeholders of a message, once: what an argument brings in is not looked at again.
// A placeholder without an argument stays.
func fill(message string, args map[string]any) string {
	if len(args) == 0 {
		return message
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(message, "{")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, after, closed := strings.Cut(rest, "}")
		value, known := args[name]
		if !closed || !known {
			b.WriteByte('{')
			message = rest
			continue
		}
		b.WriteString(words(value))
		message = after
	}
}

// words gives at most three values of a list, and a count: the message is no place for a full allow-list.
func words(value any) string {
	const shown = 3
	list, ok := value.([]any)
	if !ok {
		return fmt.Sprint(value)
	}
	var b strings.Builder
	for i, v := range list {
		if i == shown && len(list) > shown+1 {
			fmt.Fprintf(&b, " and %d more", len(list)-shown)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(fmt.Sprint(v))
	}
	return b.String()
}
