package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hallmark-admission/hallmark/webhook"
)

// Config is what a Server needs.
type Config struct {
	Listen        string // address of the webhook, over TLS
	MetricsListen string // address of /metrics and the probes, plain; "" for none
	CertFile      string
	KeyFile       string
	Current       func() Reviewer      // the Reviewer of the moment, nil while there is none
	Deadline      func() time.Duration // for one review, as it is at the moment; at most 29s
	ShutdownDelay time.Duration        // how long it still accepts connections after it was told to stop
	Limits        Limits
	Log           *slog.Logger
	Metrics       *Metrics

	// Wrap is put around the handler of reviews, and Decided is told of each decision after it was answered; it must not
	// keep the caller, nor what the request holds. Both may be nil.
	Wrap    func(http.Handler) http.Handler
	Decided func(path string, request *webhook.Request, d webhook.Decision, elapsed time.Duration)
}

// Limits bound what may go on at the same time. 0 is the default.
type Limits struct {
	InFlight    int   // reviews that are decided, those included that wait for a registry
	Queue       int   // reviews that wait for their turn; further ones are refused at once
	Connections int   // to the webhook; by default as many as there may be reviews, and some
	BodyBytes   int64 // of all large bodies together
}

// Three API servers send no more than 600 mutating requests at the same time (kube-apiserver,
// --max-mutating-requests-inflight=200), and one replica may have to take them all.
const (
	DefaultInFlight = 640
	DefaultQueue    = 640

	spareConnections   = 128 // idle ones, and probes
	metricsConnections = 64
)

func (l Limits) withDefaults() Limits {
	if l.InFlight <= 0 {
		l.InFlight = DefaultInFlight
	}
	if l.Queue <= 0 {
		l.Queue = DefaultQueue
	}
	if l.Connections <= 0 {
		l.Connections = l.InFlight + l.Queue + spareConnections
	}
	return l
}

// A Server listens from New on, and serves while Run does.
type Server struct {
	config      Config
	certificate *certificate
	listener    net.Listener
	metrics     net.Listener
	turns       *turns
	stopping    atomic.Bool
}

// New checks the configuration, loads the certificate and binds the listeners.
func New(config Config) (*Server, error) {
	config.Limits = config.Limits.withDefaults()
	s := &Server{
		config: config, certificate: &certificate{certFile: config.CertFile, keyFile: config.KeyFile},
		turns: newTurns(config.Limits.InFlight, config.Limits.Queue, config.Metrics),
	}
	_, certErr := s.certificate.load()
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, errors.Join(certErr, fmt.Errorf("listen for admission reviews: %w", err))
	}
	s.listener = newConnections(listener, config.Limits.Connections, config.Metrics)
	if config.MetricsListen != "" {
		if listener, err = net.Listen("tcp", config.MetricsListen); err != nil {
			err = fmt.Errorf("listen for metrics: %w", err)
		} else {
			s.metrics = newConnections(listener, metricsConnections, config.Metrics)
		}
	}
	if err := errors.Join(certErr, err); err != nil {
		s.listener.Close()
		if s.metrics != nil {
			s.metrics.Close()
		}
		return nil, err
	}
	config.Metrics.certificateExpiry.Set(float64(s.certificate.current.Load().Leaf.NotAfter.Unix()))
	return s, nil
}

// Addr is the address of the webhook.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// MetricsAddr is the address of the metrics, nil for none.
func (s *Server) MetricsAddr() net.Addr {
	if s.metrics == nil {
		return nil
	}
	return s.metrics.Addr()
}

// Run serves until ctx ends. Then it is unready at once, goes on accepting for ShutdownDelay, asking clients to close
// their connections, and returns when the last review is answered. Probes and metrics end last.
func (s *Server) Run(ctx context.Context) error {
	servers := []*http.Server{s.server(s.handler())}
	listeners := []net.Listener{tls.NewListener(s.listener, s.certificate.config())}
	if s.metrics != nil {
		servers = append(servers, s.server(s.metricsHandler()))
		listeners = append(listeners, s.metrics)
	}
	watching, stopWatching := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.certificate.watch(watching, 5*time.Second, s.config.Metrics, s.config.Log)
	}()
	failed := make(chan error, len(servers))
	for i := range servers {
		go func() { failed <- servers[i].Serve(listeners[i]) }()
	}
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = s.drain(failed)
	}
	stopWatching()
	<-watched
	// The requests that are still being decided have their own deadlines.
	end, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	for _, server := range servers {
		if late := server.Shutdown(end); late != nil {
			err = errors.Join(err, fmt.Errorf("stop: a review was not answered in time: %w", late), server.Close())
		}
	}
	return err
}

// settling is how long a request may be on its way when the listener closes.
const settling = 200 * time.Millisecond

// drain lets endpoints and keep-alive connections move away before the listener closes. The connections that are left
// then are idle, but for requests that were sent at that moment: http.Server would close on those.
func (s *Server) drain(failed <-chan error) error {
	s.stopping.Store(true)
	s.config.Log.Info("stopping", "delay", s.config.ShutdownDelay)
	select {
	case err := <-failed:
		return err
	case <-time.After(s.config.ShutdownDelay):
	}
	err := s.listener.Close()
	time.Sleep(settling)
	return err
}

// parting asks clients to open a new connection, which no longer comes here, once the server is stopping. Closing their
// idle connections instead would race with requests that they are just sending.
func (s *Server) parting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

const (
	slowest = 10 * time.Second // that a request may be on its way: what an API server waits for its answer, by default
	longest = 30 * time.Second // that an API server waits when it is told to, so that no review goes on for longer
)

func (s *Server) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       slowest,
		WriteTimeout:      longest + 10*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       withConnection,
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
}

// handler serves the webhook port.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", reviewing(s.config, s.turns))
	s.probes(mux)
	return s.parting(mux)
}

// Handler answers reviews on /mutate and /validate, without probes and TLS. Of the configuration it needs Current,
// Deadline, Log and Metrics.
func Handler(config Config) http.Handler {
	limits := config.Limits.withDefaults()
	return reviewing(config, newTurns(limits.InFlight, limits.Queue, config.Metrics))
}

func reviewing(config Config, turns *turns) http.Handler {
	mux := http.NewServeMux()
	room := newRoom(config.Limits.BodyBytes)
	for _, flow := range flows() {
		mux.Handle(flow.path, &reviews{
			flow: flow, current: config.Current, deadline: config.Deadline, log: config.Log, metrics: config.Metrics,
			turns: turns, room: room, decided: config.Decided,
		})
	}
	if config.Wrap != nil {
		return config.Wrap(mux)
	}
	return mux
}

func (s *Server) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.config.Metrics.Registry, promhttp.HandlerOpts{}))
	s.probes(mux)
	return mux
}

// probes: alive is a process in which reviews end; ready is one that would decide.
func (s *Server) probes(mux *http.ServeMux) {
	probe := func(check func() error) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := check(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		}
	}
	mux.HandleFunc("GET /livez", probe(func() error { return s.turns.stuck(time.Now()) }))
	mux.HandleFunc("GET /readyz", probe(s.ready))
}

func (s *Server) ready() error {
	switch {
	case s.stopping.Load():
		return errors.New("stopping")
	case s.config.Current() == nil:
		return errors.New("no valid configuration and policies yet")
	}
	return s.certificate.valid(time.Now())
}
