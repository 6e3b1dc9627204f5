package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/source"
)

type checkFlags struct {
	config    string
	policies  []string
	namespace string
	output    string
	offline   bool
}

func newCheck(io streams) *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check --config FILE [PATH...]",
		Short: "Judge Kubernetes files as the webhook would, or check the configuration alone",
		Long: `Check judges what stands in files as the webhook would judge it in a cluster: Kubernetes YAML and JSON with
several documents and Lists, AdmissionReviews, and directories of them; - is standard input. Of a pod both halves are
asked, the second about what the first has made of it. Objects of kinds without images are passed over.

With --offline nothing is contacted. Rules that need something fetched for an image are then left out, and named.

Without PATH it checks the configuration and the policies, and says what the configuration leaves open.

Exit code 0: all allowed; 1: something is denied; 2: something could not be checked or read, or the command line is
wrong.`,
		Example: "  hallmark check --config hallmark.yaml templates/\n" +
			"  helm template CHART | hallmark check --config hallmark.yaml --offline -o github -",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCheck(cmd.Context(), io, f, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "configuration `file`")
	flags.StringArrayVar(&f.policies, "policies", nil,
		"`directory` of Rego rules, added to the shipped ones; may be repeated")
	flags.StringVar(&f.namespace, "namespace", "default", "`namespace` of objects that name none")
	flags.StringVarP(&f.output, "output", "o", "text", "`format`: "+strings.Join(checkFormatNames(), ", "))
	flags.BoolVar(&f.offline, "offline", false, "contact nothing")
	return cmd
}

func runCheck(ctx context.Context, io streams, f checkFlags, paths []string) error {
	write, known := checkFormats()[f.output]
	switch {
	case !known:
		return hinted{fmt.Errorf("there is no output format %q", f.output), "want " + strings.Join(checkFormatNames(), ", ")}
	case f.config == "":
		return hinted{errors.New("check needs a configuration"), "name it with --config FILE"}
	case len(paths) == 0 && f.output != "text":
		return hinted{errors.New("nothing to check was named"), "name files or directories, or - for standard input"}
	}
	text, err := os.ReadFile(f.config)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	c, problems, err := config.Load(text, time.Now())
	if err != nil {
		return fmt.Errorf("%s:\n%w", f.config, err)
	}
	policies, err := shippedPolicies(f.policies)
	if err != nil {
		return err
	}
	if !f.offline {
		if err := addBundles(ctx, c, policies); err != nil {
			return err
		}
	}
	checker, err := newChecker(ctx, c, policies, f.offline)
	if err != nil {
		return err
	}
	defer checker.close()
	if len(paths) == 0 {
		return printConfigCheck(io.out, f.config, checker, problems)
	}
	if err := checker.wait(ctx); err != nil {
		fmt.Fprintf(io.err, "warning: trust material: %v\n", err)
	}
	files, errs := source.Find(paths)
	for _, err := range errs {
		fmt.Fprintln(io.err, "error:", err)
	}
	report, err := checker.files(ctx, io, f.namespace, files)
	if err != nil {
		return err
	}
	if err := write(io.out, report); err != nil {
		return err
	}
	return report.verdict(len(errs))
}

// A checkReport is everything that check found.
type checkReport struct {
	results   []checkResult // in the order of the files
	files     []string
	skipped   int
	unchecked []string // "signature of 3 images": what was left out offline
	rules     []ruleDescription
}

// A checkResult is one object, or one part of a file that could not be read. docs/check.schema.json describes its JSON.
type checkResult struct {
	Source    string         `json:"source"`
	Line      int            `json:"line"`
	Kind      string         `json:"kind"`
	Namespace string         `json:"namespace"`
	Name      string         `json:"name"`
	Decision  string         `json:"decision"`
	Message   string         `json:"message"`
	Findings  []checkFinding `json:"findings"`
	Warnings  []string       `json:"warnings"`
	Patch     []patchOp      `json:"patch"`

	hint      string             // what to do about a part that could not be read
	unchecked []uncheckedOffline // offline
}

// The decisions of a checkResult.
const (
	checkAllowed   = "allowed"
	checkDenied    = "denied"
	checkUndecided = "undecided"
)

// A checkFinding is one thing that a rule has against an object.
type checkFinding struct {
	Rule      string `json:"rule"`
	Mode      string `json:"mode"`
	Where     string `json:"where"`
	Pointer   string `json:"pointer"`
	Image     string `json:"image"`
	Message   string `json:"message"`
	Fix       string `json:"fix"`
	Source    string `json:"source"`
	Line      int    `json:"line"`
	Exemption string `json:"exemption,omitempty"`
}

// A patchOp is an operation of a JSON Patch (RFC 6902).
type patchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// count says how many results have a decision.
func (r *checkReport) count(decision string) int {
	n := 0
	for i := range r.results {
		if r.results[i].Decision == decision {
			n++
		}
	}
	return n
}

// unread says how many results are parts of files that could not be read.
func (r *checkReport) unread() int {
	n := 0
	for i := range r.results {
		if r.results[i].Kind == "" {
			n++
		}
	}
	return n
}

// verdict is what the exit code says, with the number of paths that led nowhere.
func (r *checkReport) verdict(lost int) error {
	unread := r.unread()
	undecided := r.count(checkUndecided) - unread
	switch {
	case r.count(checkDenied) > 0:
		return errNo
	case undecided > 0:
		return fmt.Errorf("%s could not be checked", plural(undecided, "object"))
	case unread > 0:
		return fmt.Errorf("%s could not be read", plural(unread, "document"))
	case lost > 0:
		return fmt.Errorf("%s could not be read", plural(lost, "path"))
	}
	return nil
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// files reads and judges files, several objects at a time.
func (c *checker) files(ctx context.Context, io streams, namespace string, files []string) (*checkReport, error) {
	report := &checkReport{files: files, rules: c.rules}
	var objects []*source.Object
	var places []int // in results
	for _, name := range files {
		read := readFile(name, io.in, namespace)
		report.skipped += read.Skipped
		first := len(report.results)
		for i := range read.Objects {
			o := &read.Objects[i]
			report.results = append(report.results, checkResult{Source: name, Line: o.Line})
			objects, places = append(objects, o), append(places, first+i)
		}
		for _, p := range read.Problems {
			report.results = append(report.results, checkResult{
				Source: name, Line: p.Line, Decision: checkUndecided, Message: p.Message, hint: p.Hint,
			}.filled())
		}
	}
	progress := newProgress(io.err, len(objects))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, o := range objects {
		group.Go(func() error {
			r := &report.results[places[i]]
			*r = c.judge(ctx, r.Source, o)
			progress.step()
			return ctx.Err()
		})
	}
	err := group.Wait()
	progress.end()
	// Problems stand among the objects, by line.
	position := map[string]int{}
	for i, name := range files {
		position[name] = i
	}
	slices.SortStableFunc(report.results, func(a, b checkResult) int {
		if a.Source != b.Source {
			return position[a.Source] - position[b.Source]
		}
		return a.Line - b.Line
	})
	report.unchecked = uncheckedWords(report.results)
	if n := len(c.config.Policies.Bundles); n > 0 && c.left != nil {
		report.unchecked = append(report.unchecked, "the rules of "+plural(n, "policy bundle"))
	}
	return report, err
}

// atOnce is how many objects are judged at the same time: enough to wait for a registry side by side, and few enough
// not to be one that it has to fend off.
const atOnce = 8

// readFile takes a file apart. A file that cannot be read is one that holds a problem.
func readFile(name string, stdin io.Reader, namespace string) source.File {
	text, err := source.Open(name, stdin)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err // the name stands before it
		}
		return source.File{Name: name, Problems: []source.Problem{{Message: "cannot be read: " + err.Error()}}}
	}
	return source.Read(name, text, namespace)
}

// filled has JSON write empty lists, and not null.
func (r checkResult) filled() checkResult {
	if r.Findings == nil {
		r.Findings = []checkFinding{}
	}
	if r.Patch == nil {
		r.Patch = []patchOp{}
	}
	r.Warnings = nonNil(r.Warnings)
	return r
}
