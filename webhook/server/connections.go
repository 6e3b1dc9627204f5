package server

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// connections is a listener that keeps no more than so many connections open. For one too many it closes the one that has
// sent no whole request for the longest time, those first that never did: who only holds connections, or sends drop by
// drop, keeps nobody away.
type connections struct {
	net.Listener
	limit   int
	metrics *Metrics

	mutex sync.Mutex
	open  map[*connection]struct{}
}

func newConnections(listener net.Listener, limit int, metrics *Metrics) *connections {
	return &connections{Listener: listener, limit: limit, metrics: metrics, open: map[*connection]struct{}{}}
}

// A connection knows whether somebody waits for an answer on it.
type connection struct {
	net.Conn
	all  *connections
	idle atomic.Int64 // since when, in nanoseconds since 1970; 0 while a request is answered
	used atomic.Bool  // a whole request has come
}

// Accept implements net.Listener.
func (l *connections) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: accepted, all: l}
		c.idle.Store(time.Now().UnixNano())
		if l.add(c) {
			return c, nil
		}
		_ = accepted.Close()
	}
}

// add says whether there is room for a connection, after it has been made.
func (l *connections) add(c *connection) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if len(l.open) >= l.limit {
		l.metrics.overloaded("connections")
		least := l.least()
		if least == nil {
			return false
		}
		delete(l.open, least)
		_ = least.Conn.Close() // the goroutine that serves it notices
	}
	l.open[c] = struct{}{}
	return true
}

// least finds the connection that is missed least, nil when answers are awaited on all.
func (l *connections) least() (least *connection) {
	for c := range l.open {
		since := c.idle.Load()
		switch {
		case since == 0:
		case least == nil, least.used.Load() && !c.used.Load():
			least = c
		case least.used.Load() == c.used.Load() && since < least.idle.Load():
			least = c
		}
	}
	return least
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.all.mutex.Lock()
	delete(c.all.open, c)
	c.all.mutex.Unlock()
	return c.Conn.Close()
}

// connectionKey is where the context of a request has its connection.
type connectionKey struct{}

// withConnection is for http.Server.ConnContext.
func withConnection(ctx context.Context, conn net.Conn) context.Context {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return context.WithValue(ctx, connectionKey{}, conn)
}

// connectionOf is that of a request, nil when it is not one of connections.
func connectionOf(ctx context.Context) *connection {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	return c
}

// begin says that a whole request has come.
func (c *connection) begin() {
	if c != nil {
		c.idle.Store(0)
		c.used.Store(true)
	}
}

// end says that it is answered.
func (c *connection) end() {
	if c != nil {
		c.idle.Store(time.Now().UnixNano())
	}
}
