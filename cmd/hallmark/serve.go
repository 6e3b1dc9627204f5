package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/server"
)

type serveFlags struct {
	config        string
	policies      []string
	listen        string
	metricsListen string
	cert, key     string
	shutdownDelay time.Duration
	inFlight      int
	queue         int
	record        string
	logLevel      slog.Level
}

func newServe(io streams) *cobra.Command {
	var f serveFlags
	level := "info"
	cmd := &cobra.Command{
		Use:   "serve --config FILE --tls-cert FILE --tls-key FILE",
		Short: "Serve the webhook",
		Long: `Serve answers AdmissionReviews of admission.k8s.io/v1 on POST /mutate and POST /validate.

Configuration, policies and certificate are read again when their files change. A bad file never replaces a good one.
Everything it needs is in those files. It holds no Kubernetes credentials, unless the configuration switches on
pullSecrets.`,
		Example: "  hallmark serve --config hallmark.yaml --tls-cert tls.crt --tls-key tls.key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.logLevel.UnmarshalText([]byte(level)); err != nil {
				return hinted{err, "--log-level is debug, info, warn or error"}
			}
			if f.inFlight < minInFlight || f.queue < 1 {
				return hinted{errors.New("--max-in-flight or --max-queue is too small"),
					fmt.Sprintf("give at least %d reviews in flight, some of which will wait for registries, and a queue of at least 1", minInFlight)}
			}
			log := slog.New(slog.NewJSONHandler(io.err, &slog.HandlerOptions{Level: f.logLevel}))
			return serve(cmd.Context(), f, log)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "configuration `file`")
	flags.StringArrayVar(&f.policies, "policies", nil, "`directory` of Rego rules, added to the shipped ones; may be repeated")
	flags.StringVar(&f.listen, "listen", ":9443", "`address` of the webhook")
	flags.StringVar(&f.metricsListen, "metrics-listen", ":9090", "`address` of /metrics and probes, plain HTTP; empty for none")
	flags.StringVar(&f.cert, "tls-cert", "", "`file` with the serving certificate, PEM")
	flags.StringVar(&f.key, "tls-key", "", "`file` with its private key, PEM")
	flags.DurationVar(&f.shutdownDelay, "shutdown-delay", 15*time.Second, "how long to go on accepting connections after SIGTERM")
	flags.IntVar(&f.inFlight, "max-in-flight", server.DefaultInFlight, "`reviews` that are decided at the same time, those included that wait for a registry")
	flags.IntVar(&f.queue, "max-queue", server.DefaultQueue, "`reviews` that wait for their turn; further ones are refused at once")
	flags.StringVar(&f.record, "record", "", "`directory` for a recording of what is decided, for hallmark replay; without env values")
	flags.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	for _, name := range []string{"config", "tls-cert", "tls-key"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a name that is not a flag
		}
	}
	return cmd
}

// minInFlight leaves most of them to wait for registries.
const minInFlight = 8

// serve runs the webhook until ctx ends.
func serve(ctx context.Context, f serveFlags, log *slog.Logger) error {
	memory := limitMemory(log)
	share := sharesOf(memory)
	metrics := server.NewMetrics()
	traces, err := newTraces(ctx, metrics, log)
	if err != nil {
		return err
	}
	defer traces.close(ctx)
	decisions := newDecisionLog(metrics, log)
	l := newLoader(f.config, f.policies, outside{
		now: time.Now, request: traces.request, cached: metrics.Cached, log: log, tracer: traces.tracer,
		budget: registry.NewBudget(share.answers), cacheBytes: share.cache,
	}, metrics)
	l.decisions = decisions
	defer decisions.close(ctx)
	// Without its policies the webhook serves, is not ready, and answers that it has none.
	if err := l.load(ctx); unfinished(err) {
		l.tell(err)
	} else if err != nil {
		return errors.Join(err, l.close())
	}
	current := l.current
	if f.record != "" {
		r, err := newRecorder(f.record, log)
		if err != nil {
			return errors.Join(err, l.close())
		}
		defer r.close()
		current = l.recorded(r)
	}
	s, err := server.New(server.Config{
		Listen: f.listen, MetricsListen: f.metricsListen, CertFile: f.cert, KeyFile: f.key, Current: traces.reviewer(current),
		Deadline:      l.deadline,
		ShutdownDelay: f.shutdownDelay, Log: log, Metrics: metrics,
		Limits: server.Limits{InFlight: f.inFlight, Queue: f.queue, BodyBytes: share.bodies},
		Wrap:   traces.wrap(), Decided: decisions.decided,
	})
	if err != nil {
		return errors.Join(err, l.close())
	}
	metricsAddress := ""
	if a := s.MetricsAddr(); a != nil {
		metricsAddress = a.String()
	}
	log.Info("serving", "address", s.Addr().String(), "metrics", metricsAddress, "memory", memory)
	watching, stop := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() { watched <- l.watch(watching) }()
	tuneCollector(watching)
	err = s.Run(ctx)
	stop()
	return errors.Join(err, <-watched, l.close())
}
