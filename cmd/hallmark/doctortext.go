package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// moreThan is how many images of a rule the text shows; -o json has all.
const moreThan = 10

// printDoctorText is for people.
func printDoctorText(out io.Writer, report *doctorReport) error {
	colour := isTerminal(out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	var b strings.Builder
	for _, part := range doctorParts() {
		first := true
		for _, c := range report.Checks {
			if c.Check != part {
				continue
			}
			if first {
				b.WriteString(part + "\n")
			}
			first = false
			writeDoctorCheck(&b, c, colour)
		}
	}
	writeRefusals(&b, report)
	fmt.Fprintf(&b, "%d ok, %s, %s, %d could not be checked.\n", report.count(doctorOK),
		plural(report.count(doctorWarning), "warning"), plural(report.count(doctorProblem), "problem"), report.count(doctorUnknown))
	_, err := io.WriteString(out, b.String())
	return err
}

func writeDoctorCheck(b *strings.Builder, c doctorCheck, colour bool) {
	words := map[string]string{
		doctorOK: paint("ok     ", green, colour), doctorWarning: paint("warning", yellow, colour),
		doctorProblem: paint("problem", red, colour), doctorUnknown: paint("unknown", yellow, colour),
	}
	lines := strings.Split(c.Message, "\n")
	fmt.Fprintf(b, "  %s  %s\n", words[c.Status], printable(lines[0]))
	for _, line := range lines[1:] {
		fmt.Fprintf(b, "           %s\n", printable(line))
	}
	if c.Fix != "" {
		fmt.Fprintf(b, "           hint: %s\n", printable(c.Fix))
	}
}

// writeRefusals shows what would be refused: a rule, and below it the images.
func writeRefusals(b *strings.Builder, report *doctorReport) {
	rule, shown, left := "", 0, 0
	more := func() {
		if left > 0 {
			fmt.Fprintf(b, "    and %s\n", plural(left, "further image"))
		}
		shown, left = 0, 0
	}
	for i, r := range report.Refusals {
		if i == 0 || r.Rule != rule {
			more()
			rule = r.Rule
			fmt.Fprintf(b, "\nrule %s\n", orDefault(rule, "(none)"))
		}
		if shown++; shown > moreThan {
			left++
			continue
		}
		what := r.Message
		if r.Image != "" {
			what = r.Image + ": " + what
		}
		if r.Fix != "" {
			what += "; " + r.Fix
		}
		fmt.Fprintf(b, "  %s in %s: %s\n", plural(r.Pods, "pod"), plural(len(r.Namespaces), "namespace"), printable(what))
		fmt.Fprintf(b, "    such as %s\n", printable(r.Example))
	}
	more()
	if len(report.Refusals) > 0 {
		b.WriteString("\n")
	}
}
