package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// HostileConfig is what a Hostile does. At most one of Accept, Conn and Handler is set; with none it hangs up on everybody,
// which makes it a spy.
type HostileConfig struct {
	Accept  func(net.Conn) // is given each connection before any TLS
	Conn    func(net.Conn) // is given each connection after the TLS handshake
	Handler http.Handler   // answers requests, in HTTP/1.1 or HTTP/2

	Plain     bool     // Handler without TLS
	Protocols []string // for ALPN; none is HTTP/2 or HTTP/1.1 with Handler
	Names     []string // names and addresses in the certificate; none is 127.0.0.1 and localhost
	Expired   bool     // the certificate ended yesterday
}

// A Hostile is a server on loopback that may misbehave from the first byte on, and notes who came.
type Hostile struct {
	config   HostileConfig
	listener net.Listener
	tls      *tls.Config
	caPEM    []byte
	server   *http.Server
	running  sync.WaitGroup

	mutex       sync.Mutex
	connections int
	open        map[net.Conn]bool // nil when closed
	seen        []Seen
}

// Seen is a request as it came.
type Seen struct {
	Method, Host, URI, Proto string
	Header                   http.Header
}

// NewHostile binds a port and begins to serve.
func NewHostile(config HostileConfig) (*Hostile, error) {
	h := &Hostile{config: config, open: map[net.Conn]bool{}}
	if len(config.Names) == 0 {
		h.config.Names = []string{"127.0.0.1", "localhost"}
	}
	if err := h.certify(); err != nil {
		return nil, err
	}
	var err error
	if h.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	if config.Handler == nil {
		h.running.Go(h.accept)
		return h, nil
	}
	h.server = &http.Server{
		Handler: http.HandlerFunc(h.note), TLSConfig: h.tls, ErrorLog: log.New(io.Discard, "", 0),
		ReadHeaderTimeout: time.Minute,
	}
	if len(config.Protocols) > 0 {
		h.server.Protocols = new(http.Protocols)
		h.server.Protocols.SetHTTP1(slices.Contains(config.Protocols, "http/1.1"))
		h.server.Protocols.SetHTTP2(slices.Contains(config.Protocols, "h2"))
	}
	h.running.Go(func() {
		if config.Plain {
			_ = h.server.Serve(counted{h.listener, h})
			return
		}
		_ = h.server.ServeTLS(counted{h.listener, h}, "", "")
	})
	return h, nil
}

// certify makes a certificate that is its own authority.
func (h *Hostile) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	end := time.Now().Add(24 * time.Hour)
	if h.config.Expired {
		end = time.Now().Add(-24 * time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "hostile"},
		NotBefore: end.Add(-48 * time.Hour), NotAfter: end, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range h.config.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	h.caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	h.tls = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: h.config.Protocols,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
	return nil
}

// accept serves what is not HTTP.
func (h *Hostile) accept() {
	for {
		conn, err := (counted{h.listener, h}).Accept()
		if err != nil {
			return
		}
		h.running.Go(func() {
			defer conn.Close()
			switch {
			case h.config.Accept != nil:
				h.config.Accept(conn)
			case h.config.Conn != nil:
				secure := tls.Server(conn, h.tls)
				if secure.Handshake() == nil {
					h.config.Conn(secure)
				}
			}
		})
	}
}

func (h *Hostile) note(w http.ResponseWriter, r *http.Request) {
	h.mutex.Lock()
	h.seen = append(h.seen, Seen{r.Method, r.Host, r.RequestURI, r.Proto, r.Header.Clone()})
	h.mutex.Unlock()
	h.config.Handler.ServeHTTP(w, r)
}

// counted counts connections, and keeps them until they are closed.
type counted struct {
	net.Listener
	hostile *Hostile
}

func (c counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	h := c.hostile
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.connections++
	if h.open == nil {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	h.open[conn] = true
	return &kept{conn, h}, nil
}

type kept struct {
	net.Conn
	hostile *Hostile
}

func (k *kept) Close() error {
	k.hostile.mutex.Lock()
	delete(k.hostile.open, k.Conn)
	k.hostile.mutex.Unlock()
	return k.Conn.Close()
}

// Host is "127.0.0.1:<port>".
func (h *Hostile) Host() string { return h.listener.Addr().String() }

// Port is "<port>".
func (h *Hostile) Port() string {
	_, port, _ := net.SplitHostPort(h.Host())
	return port
}

// CAPEM is its certificate.
func (h *Hostile) CAPEM() []byte { return h.caPEM }

// Connections is how many were made so far.
func (h *Hostile) Connections() int {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return h.connections
}

// Seen lists the requests so far that Handler was given.
func (h *Hostile) Seen() []Seen {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	return slices.Clone(h.seen)
}

// Close cuts all connections and waits for the scripts to notice.
func (h *Hostile) Close() error {
	err := h.listener.Close()
	if h.server != nil {
		err = h.server.Close()
	}
	h.mutex.Lock()
	for conn := range h.open {
		_ = conn.Close()
	}
	h.open = nil
	h.mutex.Unlock()
	h.running.Wait()
	return err
}
