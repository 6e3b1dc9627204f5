package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// Config of a Controller.
type Config struct {
	Kubeconfig string // file; "" for the credentials of the pod
	Namespace  string // of everything that has one; "" for that of the pod or of the kubeconfig's context
	Agent      string // how requests call themselves: "hallmark-controller/v1.2.3"

	Service              string // whose names the certificate bears
	TLSSecret, CASecret  string // both "" for certificates that somebody else issues
	WebhookConfiguration string // the name of both
	RulesFile            string // YAML: the rules of each entry, by its name
	Deployment           string // owns the Secrets; "" for nobody
	Lease                string // "" for a controller that is the only one
	Lifetimes            Lifetimes

	Dial          string // for tests: the address to dial instead of the Service
	MetricsListen string // address of /metrics and the probes; "" for none
	Log           *slog.Logger
}

// How often the cluster is looked at: soon after trouble, and less often each time, as an API server that is down has enough
// to do when it comes back.
const (
	pollInterval = 10 * time.Second
	firstRetry   = time.Second
	lastRetry    = 15 * time.Second
	maxSteps     = 40 // of one pass; a rotation takes six
	// pinFirst is how long after the mutating half the validating one becomes active, which refuses what is not pinned.
	pinFirst = 2 * time.Second
)

// A Controller keeps certificates and webhook configurations as they should be.
type Controller struct {
	config   Config
	api      *api
	election *election
	metrics  *metrics
	listener net.Listener // nil for none
	wanted   chan struct{}

	unready atomic.Pointer[string] // why, nil for ready

	deployment types.UID // as last seen, "" for none
	trouble    trouble
}

// New checks the configuration and binds the listener. It contacts nobody.
func New(config Config) (*Controller, error) {
	var problems []error
	required := func(flag, value string) {
		if value == "" {
			problems = append(problems, fmt.Errorf("%s is empty", flag))
		}
	}
	required("the name of the Service", config.Service)
	required("the name of the webhook configurations", config.WebhookConfiguration)
	if (config.TLSSecret == "") != (config.CASecret == "") {
		problems = append(problems, errors.New("name both Secrets, or neither when somebody else issues the certificates"))
	}
	if _, err := loadRules(config.RulesFile); err != nil {
		problems = append(problems, err)
	}
	problems = append(problems, config.Lifetimes.check())
	a, namespace, err := connect(config.Kubeconfig, config.Agent)
	if config.Namespace == "" {
		config.Namespace = namespace
	}
	if err == nil {
		required("the namespace", config.Namespace)
	}
	if err := errors.Join(append(problems, err)...); err != nil {
		return nil, err
	}
	c := &Controller{config: config, api: a, metrics: newMetrics(), wanted: make(chan struct{}, 1)}
	c.election = newElection(a, config, identity(), c.wake)
	c.setReady(errors.New("the cluster has not been looked at yet"))
	if config.MetricsListen != "" {
		if c.listener, err = net.Listen("tcp", config.MetricsListen); err != nil {
			return nil, fmt.Errorf("listen for metrics: %w", err)
		}
	}
	return c, nil
}

// check wants lives that are long enough for a rotation, which mounts of Secrets make slow. Shorter ones are for tests, which
// mount nothing.
func (l Lifetimes) check() error {
	switch {
	case l.Serving < 10*time.Second:
		return fmt.Errorf("a serving certificate must live at least 10s, and not %s", l.Serving)
	case l.CA < 2*l.Serving:
		return fmt.Errorf("an authority must live at least twice as long as its certificates (%s), and not %s", l.Serving, l.CA)
	}
	return nil
}

// identity tells replicas apart, and the life of a pod from its next.
func identity() string {
	host, err := os.Hostname()
	if err != nil {
		host = "controller"
	}
	return fmt.Sprintf("%s_%08x", host, rand.Uint32()) //nolint:gosec // it is no secret
}

// Addr is the address of metrics and probes, nil for none.
func (c *Controller) Addr() net.Addr {
	if c.listener == nil {
		return nil
	}
	return c.listener.Addr()
}

// Run works until ctx ends. An API server that cannot be reached is waited for: the webhook goes on without the controller.
func (c *Controller) Run(ctx context.Context) error {
	inner, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup
	group.Go(func() { c.election.run(inner) })
	failed := make(chan error, 1)
	if c.listener != nil {
		group.Go(func() { failed <- c.serve(inner) })
	}
	group.Go(func() { c.loop(inner) })
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stop()
	group.Wait()
	return err
}

// loop looks at the cluster again and again.
func (c *Controller) loop(ctx context.Context) {
	retry := firstRetry
	for {
		next, err := c.pass(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := min(pollInterval, max(time.Until(next), 100*time.Millisecond))
		if err != nil {
			wait = min(wait, retry)
			retry = min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		c.tell(ctx, err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.wanted:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// wake ends a wait.
func (c *Controller) wake() {
	select {
	case c.wanted <- struct{}{}:
	default:
	}
}

// pass looks at everything and, when it leads, makes it what it should be. It says when to look again, by the local clock.
func (c *Controller) pass(ctx context.Context) (time.Time, error) {
	for range maxSteps {
		rules, err := loadRules(c.config.RulesFile)
		if err != nil {
			return time.Now(), err
		}
		o, err := c.observe(ctx)
		if err != nil {
			return time.Now(), err
		}
		c.metrics.observed(o.state, c.election.leads())
		c.deployment = ""
		if o.owner != nil {
			c.deployment = o.owner.UID
		}
		done, next, err := c.step(ctx, o, rules)
		switch {
		case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
			c.config.Log.Debug("somebody was faster", "error", err)
			continue
		case err != nil && done:
			c.setReady(err) // which is known of the cluster, and no fault in looking at it
			return time.Now(), err
		case err != nil:
			return time.Now(), err
		case done:
			c.setReady(nil)
			return next, nil
		}
		if ctx.Err() != nil {
			return time.Now(), ctx.Err()
		}
	}
	return time.Now(), fmt.Errorf("%d writes did not make the cluster what it should be; somebody else writes the same fields", maxSteps)
}

// step makes the next write, if there is one. It is done when there is none; an error then says what is still amiss.
func (c *Controller) step(ctx context.Context, o observed, rules map[string][]rule) (done bool, next time.Time, err error) {
	leads := c.election.leads()
	if c.issues() && leads {
		var s step
		s, next = c.config.Lifetimes.next(c.api.now(), o.state, c.names())
		if s.task != nothing {
			err := c.apply(ctx, o, s)
			c.report(ctx, o, s, err)
			return false, next, err
		}
		next = next.Add(time.Since(c.api.now())) // by the local clock
	} else {
		next = time.Now().Add(pollInterval)
	}
	if name := o.missing(rules); name != "" {
		return true, next, waiting{fmt.Errorf("no webhook configuration %q has an entry %s; install the chart again, the controller makes none",
			c.config.WebhookConfiguration, name)}
	}
	target, entries := o.inactive(rules)
	if target < 0 {
		return true, next, nil
	}
	if !leads {
		return true, next, waiting{errors.New("the webhook is not active yet; another replica of the controller leads")}
	}
	return c.activate(ctx, o.configurations[target], entries, rules)
}

// activate writes the rules of entries when the webhook answers.
func (c *Controller) activate(ctx context.Context, to configuration, entries []int, rules map[string][]rule) (bool, time.Time, error) {
	for _, i := range entries {
		if err := c.answers(ctx, to.entries[i]); err != nil {
			return true, time.Now(), waiting{fmt.Errorf("the webhook is not active: %w", err)}
		}
	}
	body, err := to.rulesPatch(c.api.now(), entries, rules)
	if err != nil {
		return false, time.Now(), err
	}
	if err := c.patch(ctx, to.kind, body); err != nil {
		return false, time.Now(), err
	}
	if entries == nil { // only the annotation was missing
		return false, time.Now(), nil
	}
	var names []string
	for _, i := range entries {
		names = append(names, to.entries[i].name)
	}
	c.config.Log.Info("webhook active", "kind", string(to.kind), "name", strings.Join(names, ","))
	c.event(ctx, normal, "Activated", fmt.Sprintf("API servers call %s from now on", strings.Join(names, ", ")))
	if to.kind == mutating {
		select {
		case <-time.After(pinFirst):
		case <-ctx.Done():
		}
	}
	return false, time.Now(), nil
}

// issues says whether certificates are the controller's.
func (c *Controller) issues() bool { return c.config.CASecret != "" }

// server is the name by which API servers call the Service.
func (c *Controller) server() string { return c.config.Service + "." + c.config.Namespace + ".svc" }

// names are those of the serving certificate. API servers use the first.
func (c *Controller) names() []string {
	return []string{
		c.server(), c.server() + ".cluster.local", c.config.Service + "." + c.config.Namespace, c.config.Service,
	}
}

func loadRules(file string) (map[string][]rule, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the rules of the webhooks: %w", err)
	}
	rules, err := readRules(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return rules, nil
}

func (c *Controller) setReady(err error) {
	if err == nil {
		c.unready.Store(nil)
		return
	}
	text := err.Error()
	c.unready.Store(&text)
}
