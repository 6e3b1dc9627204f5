package registrytest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Config of a registry. The zero value serves anonymous clients over TLS.
type Config struct {
	PlainHTTP bool     // no TLS
	DNSNames  []string // further names in the certificate, besides localhost and 127.0.0.1
	Listen    string   // address to listen on; "" is a free port of loopback
	Name      string   // host and port in references, where that is not what it listens on; the host needs a DNSName
	Referrers bool     // serve the referrers API; without it AttachReferrer keeps the list under ReferrersTag
	Auth      *Auth    // nil: nobody is asked for a password

	// Intercept wraps everything that clients see. It is called once, by New.
	Intercept func(http.Handler) http.Handler
}

// A Request is what a client asked and the status that it was given; 0 when it was given none.
type Request struct {
	Method string
	Path   string
	Status int
}

// A Registry is a running registry. Its methods may be called concurrently.
type Registry struct {
	host      string
	caPEM     []byte
	backend   http.Handler // the registry itself, without authentication and interception
	referrers bool         // the backend has the referrers API
	server    *http.Server
	served    chan struct{} // closed when the server has returned

	mu       sync.Mutex
	requests []Request

	signing sync.Mutex // one list of signatures or referrers is read and written at a time
}

// New binds a port, of the loopback interface unless told otherwise, and begins to serve. Close or Stop ends it.
func New(config Config) (*Registry, error) {
	if err := config.Auth.check(); err != nil {
		return nil, err
	}
	silent := log.New(io.Discard, "", 0)
	r := &Registry{
		backend:   registry.New(registry.Logger(silent)),
		referrers: config.Referrers,
		served:    make(chan struct{}),
	}
	if config.Referrers {
		r.backend = &referrersAPI{next: r.backend}
	}
	listener, err := net.Listen("tcp", cmp.Or(config.Listen, "127.0.0.1:0"))
	if err != nil {
		return nil, fmt.Errorf("registrytest: listen: %w", err)
	}
	r.host = cmp.Or(config.Name, listener.Addr().String())
	scheme := "http"
	var tlsConfig *tls.Config
	if !config.PlainHTTP {
		scheme = "https"
		if tlsConfig, r.caPEM, err = newServerTLS(config.DNSNames); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
	}
	handler := r.backend
	if config.Auth != nil {
		handler = newAuthenticator(*config.Auth, scheme+"://"+r.host+tokenPath, handler)
	}
	if config.Intercept != nil {
		handler = config.Intercept(handler)
	}
	r.server = &http.Server{
		Handler: r.record(handler), TLSConfig: tlsConfig, ErrorLog: silent, ReadHeaderTimeout: 10 * time.Second,
	}
	go r.serve(listener)
	return r, nil
}

func (r *Registry) serve(listener net.Listener) {
	defer close(r.served)
	// Both return when Stop or Close is called, with an error that says only that.
	if r.caPEM == nil {
		_ = r.server.Serve(listener)
		return
	}
	_ = r.server.ServeTLS(listener, "", "")
}

// Host is "127.0.0.1:<port>" or Config.Name, as it stands in an image reference.
func (r *Registry) Host() string { return r.host }

// CAPEM is the certificate of the authority that signed the registry's certificate; nil with Config.PlainHTTP.
func (r *Registry) CAPEM() []byte { return slices.Clone(r.caPEM) }

// Stop ends the registry when the requests under way have been answered, or when ctx is done.
func (r *Registry) Stop(ctx context.Context) error {
	err := r.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, r.server.Close())
	}
	<-r.served
	return err
}

// Close ends the registry at once and cuts the requests under way.
func (r *Registry) Close() error {
	err := r.server.Close()
	<-r.served
	return err
}

// Requests lists what clients have asked since New or Reset, in the order in which the answers ended.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Reset forgets the requests so far.
func (r *Registry) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}

// record notes every request when its handler ends, or panics to cut the connection.
func (r *Registry) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		recorder := &statusRecorder{ResponseWriter: w}
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.requests = append(r.requests, Request{Method: req.Method, Path: req.URL.Path, Status: recorder.status})
		}()
		next.ServeHTTP(recorder, req)
	})
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (w *statusRecorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusRecorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
