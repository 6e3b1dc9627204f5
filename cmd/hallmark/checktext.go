package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/source"
)

// A checkPrinter writes a report in one format.
type checkPrinter func(out io.Writer, report *checkReport) error

func checkFormats() map[string]checkPrinter {
	return map[string]checkPrinter{
		"text": printCheckText, "json": printCheckJSON, "junit": printCheckJUnit, "sarif": printCheckSARIF,
		"github": printCheckGitHub,
	}
}

func checkFormatNames() []string { return []string{"text", "json", "junit", "sarif", "github"} }

// isTerminal says whether somebody looks at what is written, who wants neither colour nor progress in a file.
func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// printCheckText is for people.
func printCheckText(out io.Writer, report *checkReport) error {
	colour := isTerminal(out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	var b strings.Builder
	for i := range report.results {
		writeCheckText(&b, &report.results[i], colour)
	}
	b.WriteString(report.summary() + "\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func writeCheckText(b *strings.Builder, r *checkResult, colour bool) {
	if r.Kind == "" {
		fmt.Fprintf(b, "%s: %s: %s\n", r.place(), paint("error", red, colour), printable(r.Message))
		if r.hint != "" {
			fmt.Fprintf(b, "  hint: %s\n", r.hint)
		}
		return
	}
	verdict := paint(checkAllowed, green, colour)
	switch r.Decision {
	case checkDenied:
		verdict = paint(checkDenied, red, colour)
	case checkUndecided:
		verdict = paint("could not be checked", yellow, colour)
	}
	fmt.Fprintf(b, "%s: %s: %s\n", r.place(), r.object(), verdict)
	if r.Message != "" {
		for line := range strings.SplitSeq(r.Message, "\n") {
			if line = withoutDecision(line); line != "" {
				fmt.Fprintf(b, "  %s\n", printable(line))
			}
		}
	}
	for _, op := range r.Patch {
		if value, ok := op.Value.(string); ok && op.Op == "replace" && r.Decision == checkAllowed {
			fmt.Fprintf(b, "  %s becomes %s\n", printable(op.Path), printable(value))
		}
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(b, "  warning: %s\n", printable(strings.TrimPrefix(warning, "hallmark: ")))
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Mode != string(webhook.Audit) {
			continue
		}
		exemption := ""
		if f.Exemption != "" {
			exemption = ", exemption " + f.Exemption
		}
		fmt.Fprintf(b, "  audit%s: %s\n", exemption, printable(f.text()))
	}
}

// withoutDecision leaves of the last line of a message only where to read more: no log knows the decision.
func withoutDecision(line string) string {
	if !strings.HasPrefix(line, "policy ") || !strings.Contains(line, " · decision ") {
		return line
	}
	_, url, _ := strings.Cut(strings.SplitAfterN(line, " · decision ", 2)[1], " · ")
	return url
}

// place is FILE:LINE.
func (r *checkResult) place() string {
	if r.Line == 0 {
		return printable(r.file())
	}
	return fmt.Sprintf("%s:%d", printable(r.file()), r.Line)
}

// file is the name of the file for people and tools.
func (r *checkResult) file() string {
	if r.Source == source.Stdin {
		return "stdin"
	}
	return r.Source
}

// object is "Pod team/ws".
func (r *checkResult) object() string {
	name := r.Name
	if name == "" {
		name = "(no name)"
	}
	if r.Namespace != "" {
		name = r.Namespace + "/" + name
	}
	return printable(r.Kind + " " + name)
}

// text is "WHERE: RULE: MESSAGE; FIX".
func (f *checkFinding) text() string {
	where := f.Where
	if where == "" {
		where = "object"
	}
	text := where + ": " + f.Rule + ": " + f.Message
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	return text
}

// summary is the last line.
func (r *checkReport) summary() string {
	unread := r.unread()
	text := fmt.Sprintf("%s in %s: %d allowed, %d denied, %d could not be checked",
		plural(len(r.results)-unread, "object"), plural(len(r.files), "file"),
		r.count(checkAllowed), r.count(checkDenied), r.count(checkUndecided)-unread)
	if unread > 0 {
		text += fmt.Sprintf("; %s could not be read", plural(unread, "document"))
	}
	if r.skipped > 0 {
		text += fmt.Sprintf("; %d without images passed over", r.skipped)
	}
	if len(r.unchecked) > 0 {
		text += "; not checked offline: " + strings.Join(r.unchecked, ", ")
	}
	return text + "."
}

// Colours, as the numbers of a terminal.
const (
	red    = 31
	green  = 32
	yellow = 33
)

func paint(text string, number int, colour bool) string {
	if !colour {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", number, text)
}

// printable escapes what could change a terminal, since names come out of files that somebody else wrote.
func printable(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return text
	}
	quoted := strconv.Quote(text)
	return quoted[1 : len(quoted)-1]
}

// A progress tells on a terminal how far a long check is.
type progress struct {
	out   io.Writer // nil when nobody looks
	mutex sync.Mutex
	all   int
	done  int
}

func newProgress(out io.Writer, all int) *progress {
	if !isTerminal(out) || all < 2*atOnce {
		out = nil
	}
	return &progress{out: out, all: all}
}

func (p *progress) step() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.done++; p.out != nil {
		fmt.Fprintf(p.out, "\rchecked %d of %d", p.done, p.all)
	}
}

// end takes the line away.
func (p *progress) end() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// printConfigCheck says what a configuration leaves open. It has no mistakes, or there would be no checker.
func printConfigCheck(out io.Writer, file string, c *checker, problems []config.Problem) error {
	var b strings.Builder
	for _, p := range problems {
		place := file
		if p.Line > 0 {
			place = fmt.Sprintf("%s:%d", file, p.Line)
		}
		p.Line = 0 // it stands before
		fmt.Fprintf(&b, "%s: warning: %s\n", place, p)
	}
	for _, missing := range missingSections(c.config) {
		fmt.Fprintf(&b, "%s: missing: %s\n", file, missing)
	}
	off := 0
	for _, rule := range c.reviewer.Rules {
		if rule.Off {
			off++
		}
	}
	fmt.Fprintf(&b, "%s: valid; policy %s, %s, %d of them off\n",
		file, c.reviewer.Revision, plural(len(c.reviewer.Rules), "rule"), off)
	_, err := io.WriteString(out, b.String())
	return err
}

// missingSections says what is not demanded because a section is not there. What has to be there is a mistake, and what
// makes everything refused a warning, both when the file is loaded.
func missingSections(c *config.Config) []string {
	var missing []string
	signers := len(c.Signatures) > 0
	for _, g := range c.GoldenImages {
		signers = signers || len(g.Signers) > 0
	}
	for _, section := range []struct {
		there bool
		says  string
	}{
		{len(c.GoldenImages) > 0, "goldenImages: rule golden is not judged, so any image of the registries will do"},
		{signers, "signatures: no image has to be signed"},
		{len(c.Attestations) > 0, "attestations: nothing has to be attested of an image"},
		{len(c.Rewrites) > 0, "rewrites: names of public registries are refused, and not led to a mirror"},
		{c.Message.HelpURL != "", "message.helpURL: rejections do not say where to read more"},
	} {
		if !section.there {
			missing = append(missing, section.says)
		}
	}
	return missing
}
