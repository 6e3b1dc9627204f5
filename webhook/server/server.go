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
)

// Config is what a Server needs.
type Config struct {
	Listen        string // address of the webhook, over TLS
	MetricsListen string // address of /metrics and the probes, plain; "" for none
	CertFile      string
	KeyFile       string
	Current       func() Reviewer // the Reviewer of the moment, nil while there is none
	Deadline      time.Duration   // for one review
	ShutdownDelay time.Duration   // how long it still accepts connections after it was told to stop
	MaxInFlight   int             // reviews that are decided at the same time; 0 for 256
	Log           *slog.Logger
	Metrics       *Metrics
}

// A Server listens from New on, and serves while Run does.
type Server struct {
	config      Config
	certificate *certificate
	listener    net.Listener
	metrics     net.Listener
	stopping    atomic.Bool
}

// New checks the configuration, loads the certificate and binds the listeners.
func New(config Config) (*Server, error) {
	if config.MaxInFlight <= 0 {
		config.MaxInFlight = 256
	}
	s := &Server{config: config, certificate: &certificate{certFile: config.CertFile, keyFile: config.KeyFile}}
	_, certErr := s.certificate.load()
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, errors.Join(certErr, fmt.Errorf("listen for admission reviews: %w", err))
	}
	s.listener = listener
	if config.MetricsListen != "" {
		if s.metrics, err = net.Listen("tcp", config.MetricsListen); err != nil {
			err = fmt.Errorf("listen for metrics: %w", err)
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
// their connections, and returns when the last review is answered.
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
		s.drain()
	}
	stopWatching()
	<-watched
	// The requests that are still being decided have their own deadlines.
	end, cancel := context.WithTimeout(context.Background(), s.config.Deadline+time.Second)
	defer cancel()
	for _, server := range servers {
		err = errors.Join(err, server.Shutdown(end))
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// drain lets endpoints and keep-alive connections move away before the listener closes.
func (s *Server) drain() {
	s.stopping.Store(true)
	s.config.Log.Info("stopping", "delay", s.config.ShutdownDelay)
	time.Sleep(s.config.ShutdownDelay)
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

func (s *Server) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      40 * time.Second, // more than the 30s that the API server may wait
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
}

// handler serves the webhook port.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", Handler(s.config))
	s.probes(mux)
	return s.parting(mux)
}

// Handler answers reviews on /mutate and /validate, without probes and TLS. Of the configuration it needs Current,
// Deadline, MaxInFlight, Log and Metrics.
func Handler(config Config) http.Handler {
	mux := http.NewServeMux()
	slots := make(chan struct{}, config.MaxInFlight)
	for _, flow := range flows() {
		mux.Handle(flow.path, &reviews{
			flow: flow, current: config.Current, deadline: config.Deadline,
			log: config.Log, metrics: config.Metrics, slots: slots,
		})
	}
	return mux
}

func (s *Server) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.config.Metrics.Registry, promhttp.HandlerOpts{}))
	s.probes(mux)
	return mux
}

// probes: alive is the process; ready is one that would decide.
func (s *Server) probes(mux *http.ServeMux) {
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
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
