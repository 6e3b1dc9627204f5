package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/decisionlog"
	"github.com/hallmark-admission/hallmark/webhook/server"
)

// A decisionLog has decisions sent to where the configuration in force says, if it does.
type decisionLog struct {
	id      string // of this process
	metrics *server.Metrics
	log     *slog.Logger
	inForce atomic.Pointer[logging]
	closing sync.WaitGroup // of sinks that were replaced
}

// logging is what is sent, and where.
type logging struct {
	sink     *decisionlog.Sink
	settings config.DecisionLog
	ca       []byte
	labels   map[string]string
	env      []string // variables that name images
	revision string
}

func newDecisionLog(metrics *server.Metrics, log *slog.Logger) *decisionLog {
	return &decisionLog{id: rand.Text(), metrics: metrics, log: log}
}

// follow does as a new configuration says. What waits for the old place is still sent there.
func (d *decisionLog) follow(ctx context.Context, g *generation, readFile func(name string) ([]byte, error)) error {
	old, settings := d.inForce.Load(), g.config.DecisionLog
	if settings.URL == "" {
		d.drop(ctx, d.inForce.Swap(nil))
		return nil
	}
	next := &logging{
		settings: settings, labels: maps.Clone(settings.Labels), env: g.config.Workspaces.ImageEnv, revision: g.reviewer.Revision,
	}
	if next.labels == nil {
		next.labels = map[string]string{}
	}
	next.labels["app"], next.labels["id"], next.labels["version"] = "hallmark", d.id, version
	var err error
	if settings.CA != "" {
		if next.ca, err = readFile(settings.CA); err != nil {
			return err
		}
	}
	if old != nil && reflect.DeepEqual(old.settings, settings) && bytes.Equal(old.ca, next.ca) {
		next.sink = old.sink
		d.inForce.Store(next)
		return nil
	}
	next.sink, err = decisionlog.New(ctx, decisionlog.Config{
		URL: settings.URL, CAFile: settings.CA, TokenFile: settings.Credentials, Every: time.Duration(settings.Every),
		MaxBytes: int64(settings.MaxBytes), Observe: d.metrics.DecisionLogged, Log: d.log,
		ReadFile: readFile,
	})
	if err != nil {
		return err
	}
	d.drop(ctx, d.inForce.Swap(next))
	return nil
}

// drop ends a sink behind its caller.
func (d *decisionLog) drop(ctx context.Context, old *logging) {
	if old == nil {
		return
	}
	d.closing.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
		if err := old.sink.Close(ctx); err != nil {
			d.log.Error("decisions are lost for the decision log", "error", err)
		}
	})
}

// close sends what waits.
func (d *decisionLog) close(ctx context.Context) {
	d.drop(ctx, d.inForce.Swap(nil))
	d.closing.Wait()
}

// eventSize is about what an event has besides objects.
const eventSize = 2 << 10

// decided is for server.Config. Of the request, whose memory is not its own, it keeps copies.
func (d *decisionLog) decided(path string, request *webhook.Request, decision webhook.Decision, elapsed time.Duration) {
	l := d.inForce.Load()
	if l == nil {
		return
	}
	kept := *request
	if l.settings.Input {
		kept.Object, kept.OldObject = bytes.Clone(request.Object), bytes.Clone(request.OldObject)
	} else {
		kept.Object, kept.OldObject = nil, nil
	}
	at := time.Now().UTC()
	l.sink.Add(eventSize+int64(len(kept.Object)+len(kept.OldObject)), func() (*decisionlog.Event, error) {
		return l.event("hallmark"+path, &kept, decision, timed{at, elapsed})
	})
}

// timed is when a decision was made, and how long it took.
type timed struct {
	at      time.Time
	elapsed time.Duration
}

func (l *logging) event(path string, request *webhook.Request, d webhook.Decision, when timed) (*decisionlog.Event, error) {
	event := &decisionlog.Event{
		Labels: l.labels, DecisionID: request.UID, Path: path, Result: loggedResultOf(d), Timestamp: when.at,
		Bundles: map[string]decisionlog.Bundle{"hallmark": {Revision: l.revision}},
		Metrics: map[string]any{"timer_server_handler_ns": when.elapsed.Nanoseconds()},
	}
	object, err := withoutEnv(request.Object, l.env)
	old, oldErr := withoutEnv(request.OldObject, l.env)
	event.Input = loggedInput{
		Request: loggedRequest{
			UID: request.UID, Operation: request.Operation, Group: request.Group, Kind: request.Kind, SubResource: request.SubResource,
			Namespace: request.Namespace, Name: d.Name, DryRun: request.DryRun, User: loggedUser(request.User),
		},
		Object: object, Old: old,
	}
	return event, errors.Join(err, oldErr)
}

// loggedInput is named as the input of a policy is.
type loggedInput struct {
	Request loggedRequest   `json:"request"`
	Object  json.RawMessage `json:"object,omitempty"`
	Old     json.RawMessage `json:"old,omitempty"`
}

type loggedRequest struct {
	UID         string            `json:"uid"`
	Operation   webhook.Operation `json:"operation"`
	Group       string            `json:"group"`
	Kind        string            `json:"kind"`
	SubResource string            `json:"subresource"`
	Namespace   string            `json:"namespace"`
	Name        string            `json:"name"`
	DryRun      bool              `json:"dryRun"`
	User        loggedUser        `json:"user"`
}

type loggedUser struct {
	Name   string   `json:"name"`
	Groups []string `json:"groups"`
}

type loggedResult struct {
	Allowed    bool            `json:"allowed"`
	Decision   webhook.Outcome `json:"decision"`
	ID         string          `json:"id"`
	Code       int             `json:"code,omitempty"`
	Message    string          `json:"message,omitempty"`
	Findings   []loggedFinding `json:"findings"`
	Images     []loggedImage   `json:"images"`
	Exemptions []string        `json:"exemptions,omitempty"`
}

type loggedFinding struct {
	Rule      string       `json:"rule"`
	Mode      webhook.Mode `json:"mode"`
	Where     string       `json:"where,omitempty"`
	Message   string       `json:"message"`
	Exemption string       `json:"exemption,omitempty"`
}

type loggedImage struct {
	Where  string `json:"where"`
	Image  string `json:"image"`
	Digest string `json:"digest,omitempty"`
}

func loggedResultOf(d webhook.Decision) loggedResult {
	r := loggedResult{
		Allowed: d.Allow(), Decision: d.Outcome, ID: d.ID, Code: d.Code, Message: d.Message, Exemptions: d.Exempted,
		Findings: []loggedFinding{}, Images: []loggedImage{},
	}
	for _, f := range d.Findings {
		r.Findings = append(r.Findings, loggedFinding{f.Rule, f.Mode, whereOf(f), f.Message, f.Exemption})
	}
	for _, image := range d.Images {
		r.Images = append(r.Images, loggedImage{image.Where, image.Describe(), image.Digest()})
	}
	return r
}
