package webhook

import (
	"fmt"
	"slices"
	"strings"
)

// Limits of a rejection, in bytes. Coder cuts a log record at 1,024 characters without a word, and Terraform and the
// API server put up to 200 in front of the message.
const (
	maxMessage = 800
	maxLine    = 160
)

// A Suggester knows an image to use instead of one that is not allowed, as a reference, or "".
type Suggester interface {
	Suggest(image *Image) string
}

// SuggesterFunc is a function as a Suggester.
type SuggesterFunc func(image *Image) string

// Suggest calls f.
func (f SuggesterFunc) Suggest(image *Image) string { return f(image) }

// message words a refusal for the developer who opened the workspace.
type message struct {
	review   *review
	findings []Finding // in enforce mode, sorted; none for plainText
}

// text is: what is wrong and what to do, in a line that is enough by itself; a line a finding; where to look it up.
func (m *message) text() string {
	first, said := m.first()
	last := m.last()
	var b strings.Builder
	b.WriteString(first)
	for i, f := range m.findings {
		fix := f.Fix
		if f.Image != nil && (i == 0 || m.findings[i-1].Image != f.Image) {
			fix = m.fix(f.Image) // the first line of an image says what to use instead of it
		}
		line := "- " + f.line()
		if fix != "" && fix != said && len(line)+len("; ")+len(fix) <= maxLine {
			line += "; " + fix
		}
		line = "\n" + cut(plain(line), maxLine)
		more := fmt.Sprintf("\n+%d more", len(m.findings)-i)
		if b.Len()+len(line)+len(more)+len(last) > maxMessage {
			b.WriteString(more)
			break
		}
		b.WriteString(line)
	}
	b.WriteString(last)
	return b.String()
}

// plainText is a refusal without findings.
func (m *message) plainText(text string) string {
	return cut(plain(text), 2*maxLine) + m.last()
}

// line is "WHERE: RULE: REASON", or "WHERE: RULE: could not be checked: REASON".
func (f Finding) line() string {
	where := "object"
	if f.Image != nil {
		where = f.Image.Label()
	}
	reason := f.Message
	if f.Undecided && !f.Missing {
		reason = "could not be checked: " + reason
	}
	return where + ": " + f.Rule + ": " + reason
}

// last is the line by which an admin finds the decision.
func (m *message) last() string {
	line := "\npolicy " + m.review.Revision + " · decision " + m.review.request.ID()
	if m.review.HelpURL != "" {
		line += " · " + m.review.HelpURL
	}
	return line
}

// first words the first line, about the first image that is denied, or else the first that could not be checked. It
// gives the fix that it mentions, too.
func (m *message) first() (line, fix string) {
	subject := m.findings[0]
	if i := slices.IndexFunc(m.findings, func(f Finding) bool { return !f.Undecided }); i >= 0 {
		subject = m.findings[i]
	}
	if subject.Image == nil {
		return cut(plain(m.review.request.Kind+" "+m.review.objectName()+" is not allowed: "+subject.Message), maxLine), ""
	}
	others := m.otherImages(subject.Image)
	missing := slices.IndexFunc(m.findings, func(f Finding) bool { return f.Missing && f.Image == subject.Image })
	switch {
	case missing >= 0:
		return m.sentence(subject.Image, "does not exist", m.findings[missing].Message, others), ""
	case subject.Undecided && subject.Retry:
		return m.sentence(subject.Image, "could not be checked", subject.Message+"; try again", others), ""
	case subject.Undecided:
		return m.sentence(subject.Image, "could not be checked", subject.Message, others), ""
	}
	fix = m.fix(subject.Image)
	line = m.sentence(subject.Image, "is not allowed", fix, others)
	if !strings.Contains(line, plain(fix)) {
		fix = "" // there was no room for it
	}
	return line, fix
}

// sentence is "Image REF VERDICT: REASON (and N more images)." in at most maxLine bytes. An image that is too long is
// cut first; a reason that still does not fit is left out, since half a fix is none.
func (m *message) sentence(image *Image, verdict, reason string, others int) string {
	end := "."
	if others == 1 {
		end = " (and 1 more image)."
	} else if others > 1 {
		end = fmt.Sprintf(" (and %d more images).", others)
	}
	name := Quote(image.Text)
	if !image.Ref.IsZero() {
		name = image.Ref.Short()
	} else if image.Text == "" {
		name = "of " + plain(image.Label())
	}
	name, reason = cut(name, maxLine/2), plain(reason)
	line := "Image " + name + " " + verdict
	if reason != "" && len(line)+len(": ")+len(reason)+len(end) <= maxLine {
		line += ": " + reason
	} else if reason != "" && verdict != "is not allowed" {
		line += ": " + cut(reason, maxLine-len(line)-len(": ")-len(end))
	}
	return line + end
}

// otherImages counts the images that findings are about, besides one.
func (m *message) otherImages(one *Image) int {
	var others []*Image
	for _, f := range m.findings {
		if f.Image != nil && f.Image != one && !slices.Contains(others, f.Image) {
			others = append(others, f.Image)
		}
	}
	return len(others)
}

// fix says what to use instead when the image itself is what is wrong, else the first fix that a rule gives.
func (m *message) fix(image *Image) string {
	first, wrongImage := "", false
	for _, f := range m.findings {
		if f.Image != image || f.Undecided {
			continue
		}
		switch f.Rule {
		case "reference", "registry", "tag", "golden":
			wrongImage = true
		}
		if first == "" {
			first = f.Fix
		}
	}
	if wrongImage && m.review.Suggest != nil {
		if instead := m.review.Suggest.Suggest(image); instead != "" && instead != image.Ref.String() {
			return "use " + instead
		}
	}
	return first
}

// objectName is the name of the object, or what the API server will make one of.
func (v *review) objectName() string {
	if v.object == nil {
		return v.request.Name
	}
	return firstOf(v.request.Name, v.object.meta.name, v.object.meta.generateName)
}
