package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/cluster"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/policy"
)

type doctorFlags struct {
	name                string
	config              string
	policies            []string
	tlsSecret           string
	configMap           string
	kubeconfig, context string
	output              string
	offline             bool
}

func newDoctor(io streams) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look over an installation, and preview which running pods enforcement would refuse",
		Long: `Doctor looks over an installation with the rights of whoever runs it, and changes nothing: are the webhooks
registered, active and scoped as they should be; does the certificate fit the caBundle; are replicas ready and spread; can
the registries be reached and the golden images be read and verified; which namespaces are in scope. Then it judges the pods
that run there as if they were created now under mode enforce, each distinct one once, and says what would be refused, by
rule and image: the preview before enforcement.

The configuration is that of the ConfigMap in the cluster, unless --config names a file. Files that it names, such as
credentials of a registry, have to be there too; where they are not, pods are judged as far as that can be told offline.

Exit code 0: all is well; 1: something is wrong, or a pod would be refused; 2: something could not be checked, or the command
line is wrong.`,
		Example: "  hallmark doctor\n  hallmark doctor --context prod --config hallmark.yaml -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDoctor(cmd.Context(), io, f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "hallmark", "`name` of the webhook configurations; the other names follow from it")
	flags.StringVar(&f.config, "config", "", "configuration `file`, instead of that of the ConfigMap")
	flags.StringArrayVar(&f.policies, "policies", nil, "`directory` of Rego rules, added to the shipped ones, instead of those of the ConfigMap; may be repeated")
	flags.StringVar(&f.tlsSecret, "tls-secret", "", "`name` of the Secret with the serving certificate (default NAME-tls)")
	flags.StringVar(&f.configMap, "config-map", "", "`name` of the ConfigMap with the configuration (default NAME-config)")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` with the way to the cluster, as for kubectl")
	flags.StringVar(&f.context, "context", "", "`name` of the kubeconfig's context")
	flags.BoolVar(&f.offline, "offline", false, "contact no registry: judge what can be told without")
	flags.StringVarP(&f.output, "output", "o", "text", "`format`: text, json")
	return cmd
}

// The states of a doctorCheck.
const (
	doctorOK      = "ok"
	doctorWarning = "warning"
	doctorProblem = "problem"
	doctorUnknown = "unknown"
)

// A doctorCheck is one thing that was looked at. docs/doctor.schema.json describes its JSON.
type doctorCheck struct {
	Check   string `json:"check"` // which part of the installation: one of doctorParts
	Status  string `json:"status"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

// doctorParts are the parts of an installation in the order of the report.
func doctorParts() []string {
	return []string{"registration", "certificate", "replicas", "configuration", "registries", "golden images", "scope", "pods"}
}

// A doctorReport is everything that doctor found.
type doctorReport struct {
	Checks   []doctorCheck   `json:"checks"`
	InScope  []string        `json:"inScope"` // namespaces
	Pods     doctorPods      `json:"pods"`
	Refusals []doctorRefusal `json:"refusals"`
}

func (r *doctorReport) add(check, status, message, fix string) {
	r.Checks = append(r.Checks, doctorCheck{check, status, message, fix})
}

// failed records that something could not be looked at, and which right that needs.
func (r *doctorReport) failed(check, what string, err error) {
	var missing *cluster.MissingRightError
	if !errors.As(err, &missing) {
		r.add(check, doctorUnknown, what+" could not be read: "+err.Error(), "")
		return
	}
	where := ""
	if missing.Namespace != "" {
		where = " -n " + missing.Namespace
	}
	r.add(check, doctorUnknown, what+" could not be read: "+missing.Error(),
		fmt.Sprintf("kubectl auth can-i %s %s%s says whether you have it", missing.Verb, missing.Resource, where))
}

func (r *doctorReport) count(status string) int {
	n := 0
	for _, c := range r.Checks {
		if c.Status == status {
			n++
		}
	}
	return n
}

// verdict is what the exit code says.
func (r *doctorReport) verdict() error {
	switch {
	case r.count(doctorProblem) > 0:
		return errNo
	case r.count(doctorUnknown) > 0:
		return fmt.Errorf("%s could not be checked", plural(r.count(doctorUnknown), "thing"))
	}
	return nil
}

func runDoctor(ctx context.Context, io streams, f doctorFlags) error {
	if f.output != "text" && f.output != "json" {
		return hinted{fmt.Errorf("there is no output format %q", f.output), "want text or json"}
	}
	v, _, _ := buildInfo()
	inspector, err := cluster.NewInspector(f.kubeconfig, f.context, "hallmark-doctor/"+v)
	if err != nil {
		return hinted{err, "name a kubeconfig with --kubeconfig FILE"}
	}
	d := &doctor{flags: f, inspector: inspector, io: io, report: &doctorReport{InScope: []string{}, Refusals: []doctorRefusal{}}}
	defer d.close()
	d.examine(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f.output == "json" {
		err = writeIndented(io.out, d.report)
	} else {
		err = printDoctorText(io.out, d.report)
	}
	return errors.Join(err, d.report.verdict())
}

// A doctor is one examination.
type doctor struct {
	flags     doctorFlags
	inspector *cluster.Inspector
	io        streams
	report    *doctorReport

	registrations []*cluster.Registration
	namespace     string // of the release, as the registration says; "" when it does not
	service       string
	mode          webhook.Mode // that the configuration says
	checker       *checker     // under mode enforce; nil without a configuration
	online        bool
	cleanup       []func()
}

func (d *doctor) close() {
	for _, f := range d.cleanup {
		f()
	}
}

// examine looks at one part after the other. What one part cannot tell does not keep the others from being looked at.
func (d *doctor) examine(ctx context.Context) {
	d.readRegistrations(ctx)
	d.readConfiguration(ctx)
	d.judgeRegistrations()
	d.judgeCertificate(ctx)
	d.judgeReplicas(ctx)
	if d.checker != nil && d.online {
		d.judgeRegistries(ctx)
		d.judgeGolden(ctx)
	}
	d.judgePods(ctx, d.judgeScope(ctx))
}

// readConfiguration makes a checker of the file, or of what the ConfigMap holds.
func (d *doctor) readConfiguration(ctx context.Context) {
	const check = "configuration"
	text, from, policies, err := d.configuration(ctx)
	if err != nil {
		d.report.failed(check, "the configuration", err)
		return
	}
	if text == nil {
		d.report.add(check, doctorUnknown, from, "name a file with --config, or the ConfigMap with --config-map")
		return
	}
	c, problems, err := config.Load(text, time.Now())
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			d.report.add(check, doctorProblem, from+": "+strings.TrimSpace(line), "the webhook keeps the last good one until it restarts")
		}
		return
	}
	for _, p := range problems {
		d.report.add(check, doctorWarning, from+": "+p.String(), "")
	}
	d.mode, c.File.Mode = c.File.Mode, webhook.Enforce
	d.online = !d.flags.offline
	if d.online {
		d.checker, err = d.onlineChecker(ctx, c, policies)
	}
	if err != nil {
		d.online = false
		d.report.add(check, doctorUnknown, "registries cannot be asked from here: "+err.Error(),
			"run it where the files of the configuration are, or with --offline to do without")
	}
	if !d.online {
		d.checker, err = newChecker(ctx, c, policies, true)
		if err != nil {
			d.report.add(check, doctorProblem, from+": "+err.Error(), "")
			d.checker = nil
			return
		}
	}
	d.cleanup = append(d.cleanup, d.checker.close)
	d.report.add(check, doctorOK, fmt.Sprintf("%s is valid; mode %s, policy %s", from, d.mode, d.checker.reviewer.Revision), "")
}

func (d *doctor) onlineChecker(ctx context.Context, c *config.Config, policies policy.Source) (*checker, error) {
	if err := addBundles(ctx, c, policies); err != nil {
		return nil, err
	}
	made, err := newChecker(ctx, c, policies, false)
	if err != nil {
		return nil, err
	}
	if err := made.wait(ctx); err != nil {
		d.report.add("configuration", doctorWarning, "trust material could not be read: "+err.Error(), "")
	}
	return made, nil
}

// configuration gives the text of the configuration, what it is called, and the policies. Without text, the name says why.
func (d *doctor) configuration(ctx context.Context) (text []byte, from string, policies policy.Source, err error) {
	dirs := d.flags.policies
	if d.flags.config != "" {
		if text, err = os.ReadFile(d.flags.config); err != nil {
			return nil, "", nil, err
		}
		policies, err = shippedPolicies(dirs)
		return text, d.flags.config, policies, err
	}
	if d.namespace == "" {
		return nil, "the registration does not say in which namespace the release is", nil, nil
	}
	name := orDefault(d.flags.configMap, d.flags.name+"-config")
	data, err := d.inspector.ConfigMap(ctx, d.namespace, name)
	if err != nil {
		return nil, "", nil, err
	}
	from = fmt.Sprintf("ConfigMap %s/%s", d.namespace, name)
	if data["config.yaml"] == "" {
		return nil, from + " with a key config.yaml does not exist", nil, nil
	}
	if dirs == nil {
		dir, err := d.clusterPolicies(ctx)
		if err != nil {
			return nil, "", nil, err
		}
		dirs = dir
	}
	policies, err = shippedPolicies(dirs)
	return []byte(data["config.yaml"]), from, policies, err
}

// clusterPolicies writes the Rego of the ConfigMap of policies, if there is one, into a directory.
func (d *doctor) clusterPolicies(ctx context.Context) ([]string, error) {
	data, err := d.inspector.ConfigMap(ctx, d.namespace, d.flags.name+"-policies")
	if err != nil || len(data) == 0 {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hallmark-doctor-")
	if err != nil {
		return nil, err
	}
	d.cleanup = append(d.cleanup, func() { os.RemoveAll(dir) })
	for name, text := range data {
		// The API server lets a key hold neither a slash nor only dots.
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return []string{dir}, nil
}

func orDefault(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
