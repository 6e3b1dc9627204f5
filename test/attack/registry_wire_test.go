package attack

import (
	"bufio"
	"bytes"
	endian "encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// siegeDeadline is the deadline of one half of an admission in the tests of registries that do not answer. It is shorter
// than what two requests may take, so that it is the deadline that is kept.
const siegeDeadline = 4 * time.Second

// hang reads until the client has had enough.
func hang(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// drip writes one byte now and then, for ever.
func drip(conn net.Conn, text string) {
	for i := 0; ; i++ {
		if _, err := conn.Write([]byte{text[i%len(text)]}); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// flood writes the same for ever.
func flood(conn net.Conn, chunk []byte) {
	go hang(conn)
	for {
		if _, err := conn.Write(chunk); err != nil {
			return
		}
	}
}

// afterRequest reads one request of HTTP/1.1.
func afterRequest(script func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			script(conn)
		}
	}
}

func say(text string) func(net.Conn) {
	return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
}

// frame is one of HTTP/2 (RFC 9113, section 4.1).
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	head := make([]byte, 9, 9+len(payload))
	endian.BigEndian.PutUint32(head, uint32(len(payload))<<8)
	head[3], head[4] = kind, flags
	endian.BigEndian.PutUint32(head[5:], stream)
	return append(head, payload...)
}

const (
	frameData, frameHeaders, frameReset, frameSettings, framePush, framePing, frameGoAway, frameWindow, frameContinuation = 0, 1, 3, 4, 5, 6, 7, 8, 9

	endStream, endHeaders = 1, 4
)

// h2 reads the client's preface and frames up to its first request, and then runs the script.
func h2(script func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = conn.Write(frame(frameSettings, 0, 0, nil))
		in := bufio.NewReader(conn)
		_, _ = in.Discard(24)
		for {
			head := make([]byte, 9)
			if _, err := io.ReadFull(in, head); err != nil {
				return
			}
			_, _ = in.Discard(int(endian.BigEndian.Uint32(head) >> 8))
			if head[3] == frameHeaders {
				break
			}
		}
		script(conn)
		hang(conn)
	}
}

func frames(list ...[]byte) func(net.Conn) {
	return h2(func(conn net.Conn) { _, _ = conn.Write(bytes.Join(list, nil)) })
}

func setting(id uint16, value uint32) []byte {
	return endian.BigEndian.AppendUint32(endian.BigEndian.AppendUint16(nil, id), value)
}

// ok200 is the header block ":status: 200"; block adds a header that is not indexed.
var ok200 = []byte{0x88}

func block(name, value string) []byte {
	b := append([]byte{0, byte(len(name))}, name...)
	b = append(b, 0x7f) // 127 and more, in sevens
	for n := len(value) - 127; ; n >>= 7 {
		if n < 128 {
			b = append(b, byte(n))
			break
		}
		b = append(b, byte(n)|128)
	}
	return append(b, value...)
}

// TestWire: whatever a registry does with its connections, the answer comes in time, says that the image could not be
// checked, and the connections and requests that it cost are few.
func TestWire(t *testing.T) {
	conn := func(script func(net.Conn)) harness.HostileConfig { return harness.HostileConfig{Conn: script} }
	http2 := func(script func(net.Conn)) harness.HostileConfig {
		return harness.HostileConfig{Conn: script, Protocols: []string{"h2"}}
	}
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n"
	junk := block("x-junk", strings.Repeat("j", 8<<10))
	cases := map[string]struct {
		config      harness.HostileConfig
		connections int // at most, in both halves; 0 for 4
	}{
		"hangs up":                   {harness.HostileConfig{}, 0},
		"hangs after accept":         {harness.HostileConfig{Accept: hang}, 0},
		"slow TLS handshake":         {harness.HostileConfig{Accept: func(c net.Conn) { drip(c, "\x16\x03\x03\x40\x00") }}, 0},
		"garbage for TLS":            {harness.HostileConfig{Accept: func(c net.Conn) { flood(c, bytes.Repeat([]byte("x"), 1<<14)) }}, 0},
		"endless TLS record":         {harness.HostileConfig{Accept: func(c net.Conn) { flood(c, append([]byte{22, 3, 3, 0x40, 0}, make([]byte, 1<<14)...)) }}, 0},
		"plain HTTP":                 {harness.HostileConfig{Plain: true, Handler: http.NotFoundHandler()}, 0},
		"hangs after the handshake":  {conn(hang), 0},
		"hangs up after the request": {conn(afterRequest(func(net.Conn) {})), 8},
		"slow headers":               {conn(afterRequest(func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nX-Slow: 1\r\n") })), 0},
		"endless status line":        {conn(afterRequest(func(c net.Conn) { flood(c, bytes.Repeat([]byte("HTTP/1.1 200 "), 1000)) })), 0},
		"endless header":             {conn(afterRequest(func(c net.Conn) { say(head)(c); flood(c, bytes.Repeat([]byte("X-Junk: junk\r\n"), 1000)) })), 0},
		"endless 1xx":                {conn(afterRequest(func(c net.Conn) { flood(c, bytes.Repeat([]byte("HTTP/1.1 103 Early\r\n\r\n"), 1000)) })), 0},
		"slow body":                  {conn(afterRequest(func(c net.Conn) { say(head + "Content-Length: 1000\r\n\r\n")(c); drip(c, "{") })), 0},
		"slow chunks":                {conn(afterRequest(func(c net.Conn) { say(head + "Transfer-Encoding: chunked\r\n\r\n")(c); drip(c, "1\r\n{\r\n") })), 0},
		"endless chunk extension": {conn(afterRequest(func(c net.Conn) {
			say(head + "Transfer-Encoding: chunked\r\n\r\n1;")(c)
			flood(c, bytes.Repeat([]byte("x"), 1<<14))
		})), 0},
		"endless trailer": {conn(afterRequest(func(c net.Conn) {
			say(head + "Transfer-Encoding: chunked\r\n\r\n0\r\n")(c)
			flood(c, bytes.Repeat([]byte("X: y\r\n"), 1<<12))
		})), 0},
		"two lengths":                {conn(afterRequest(say(head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}"))), 0},
		"negative length":            {conn(afterRequest(say(head + "Content-Length: -1\r\n\r\n"))), 0},
		"gzip as transfer encoding":  {conn(afterRequest(say(head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"))), 0},
		"switches protocols":         {conn(afterRequest(say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{}"))), 0},
		"speaks another protocol":    {conn(say("220 smtp.example ESMTP\r\n")), 8},
		"answers before it is asked": {conn(func(c net.Conn) { say(strings.Repeat(head+"Content-Length: 2\r\n\r\n{}", 3))(c); hang(c) }), 8},
		"token endpoint hangs": {harness.HostileConfig{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				<-r.Context().Done()
				panic(http.ErrAbortHandler)
			}
			rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token"`, r.Host))
			rw.WriteHeader(http.StatusUnauthorized)
		})}, 0},
		"h2: hangs":                       {http2(hang), 0},
		"h2: garbage":                     {http2(say("HTTP/1.1 200 OK\r\n\r\n")), 8},
		"h2: no settings":                 {http2(func(c net.Conn) { _, _ = c.Write(frame(framePing, 0, 0, make([]byte, 8))); hang(c) }), 8},
		"h2: window setting out of range": {frames2(http2, frame(frameSettings, 0, 0, setting(4, 1<<31))), 8},
		"h2: tiny frames setting":         {frames2(http2, frame(frameSettings, 0, 0, setting(5, 1))), 8},
		"h2: settings of 5 bytes":         {frames2(http2, frame(frameSettings, 0, 0, make([]byte, 5))), 8},
		"h2: no streams allowed":          {http2(func(c net.Conn) { _, _ = c.Write(frame(frameSettings, 0, 0, setting(3, 0))); hang(c) }), 8},
		"h2: flood of settings":           {http2(h2(func(c net.Conn) { flood(c, bytes.Repeat(frame(frameSettings, 0, 0, setting(3, 100)), 1000)) })), 8},
		"h2: flood of pings":              {http2(h2(func(c net.Conn) { flood(c, bytes.Repeat(frame(framePing, 0, 0, make([]byte, 8)), 1000)) })), 8},
		"h2: flood of resets":             {http2(h2(func(c net.Conn) { flood(c, bytes.Repeat(frame(frameReset, 0, 1, []byte{0, 0, 0, 7}), 1000)) })), 16},
		"h2: refuses every stream":        {http2(func(c net.Conn) { refuseAll(c) }), 16},
		"h2: goes away at once":           {frames2(http2, frame(frameGoAway, 0, 0, make([]byte, 8))), 20},
		"h2: goes away before":            {http2(say(string(frame(frameSettings, 0, 0, nil)) + string(frame(frameGoAway, 0, 0, make([]byte, 8))))), 20},
		"h2: endless continuation": {http2(h2(func(c net.Conn) {
			_, _ = c.Write(frame(frameHeaders, 0, 1, ok200))
			flood(c, frame(frameContinuation, 0, 1, junk))
		})), 8},
		"h2: empty continuation for ever": {http2(h2(func(c net.Conn) {
			_, _ = c.Write(frame(frameHeaders, 0, 1, ok200))
			flood(c, bytes.Repeat(frame(frameContinuation, 0, 1, nil), 1000))
		})), 8},
		"h2: continuation of nothing": {frames2(http2, frame(frameContinuation, endHeaders, 1, ok200)), 8},
		"h2: broken compression":      {frames2(http2, frame(frameHeaders, endHeaders, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})), 8},
		"h2: table size beyond limit": {frames2(http2, frame(frameHeaders, endHeaders, 1, []byte{0x3f, 0xff, 0xff, 0xff, 0x7f, 0x88})), 8},
		"h2: no status":               {frames2(http2, frame(frameHeaders, endHeaders|endStream, 1, nil)), 8},
		"h2: pushes":                  {frames2(http2, frame(framePush, endHeaders, 1, []byte{0, 0, 0, 2, 0x82})), 8},
		"h2: another stream":          {frames2(http2, frame(frameHeaders, endHeaders, 7, ok200)), 8},
		"h2: data on stream 0":        {frames2(http2, frame(frameData, 0, 0, []byte("{}"))), 8},
		"h2: data before headers":     {frames2(http2, frame(frameData, 0, 1, []byte("{}"))), 8},
		"h2: a frame of 16 MiB":       {frames2(http2, frame(frameData, 0, 1, make([]byte, 1<<24-1))), 8},
		"h2: padding beyond the end":  {frames2(http2, frame(frameHeaders, endHeaders, 1, ok200), frame(frameData, 8, 1, []byte{255, 1})), 8},
		"h2: window update of 0":      {frames2(http2, frame(frameWindow, 0, 1, make([]byte, 4))), 8},
		"h2: more than the window": {http2(h2(func(c net.Conn) {
			_, _ = c.Write(frame(frameHeaders, endHeaders, 1, ok200))
			flood(c, frame(frameData, 0, 1, make([]byte, 16<<10)))
		})), 8},
		"h2: empty data for ever": {http2(h2(func(c net.Conn) {
			_, _ = c.Write(frame(frameHeaders, endHeaders, 1, ok200))
			flood(c, bytes.Repeat(frame(frameData, 0, 1, nil), 1000))
		})), 8},
		"h2: slow data": {http2(h2(func(c net.Conn) {
			_, _ = c.Write(frame(frameHeaders, endHeaders, 1, ok200))
			for {
				if _, err := c.Write(frame(frameData, 0, 1, []byte("{"))); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})), 8},
	}
	hosts := map[string]*harness.Hostile{}
	var targets []target
	for title, c := range cases {
		h := hostile(t, c.config)
		hosts[title] = h
		targets = append(targets, target{host: h.Host(), ca: h.CAPEM()})
	}
	slow := serving(t, nil, func(http.ResponseWriter, *http.Request) bool { time.Sleep(500 * time.Millisecond); return false })
	tooSlow := serving(t, nil, func(http.ResponseWriter, *http.Request) bool { time.Sleep(5 * time.Second); return false })
	w := besiege(t, fmt.Sprintf("limits: {deadline: %s}\n", siegeDeadline), append(targets, targetOf(slow), targetOf(tooSlow))...)
	for _, r := range []*registrytest.Registry{slow, tooSlow} {
		w.publish(t, r, "golden/ws", "v1.0.0")
	}
	before := memoryOf(t, w.PID())
	pods := map[string]object{}
	for title := range cases {
		pods[title] = w.pod(image(hosts[title].Host() + "/golden/ws:v1.0.0"))
	}
	pods["slow but good"] = w.pod(image(slow.Host() + "/golden/ws:v1.0.0"))
	pods["five seconds slow"] = w.pod(image(tooSlow.Host() + "/golden/ws:v1.0.0"))
	for title, got := range w.admitAll(t, 24, pods) {
		t.Run(title, func(t *testing.T) {
			if got.took > 2*siegeDeadline+time.Second {
				t.Errorf("it took %v", got.took)
			}
			switch title {
			case "slow but good":
				allowed().check(t, got.Admission)
				return
			case "five seconds slow":
				want{code: 503, says: []string{"did not answer within 3s; try again."}}.check(t, got.Admission)
				return
			}
			want{code: got.Code, says: []string{"could not be checked"}, without: []string{"not signed"}}.check(t, got.Admission)
			if got.Code != http.StatusForbidden && got.Code != http.StatusServiceUnavailable {
				t.Errorf("code %d", got.Code)
			}
			most := cases[title].connections
			if most == 0 {
				most = 4
			}
			// net/http takes a GOAWAY for an invitation to connect again, as often as there is time for.
			if n := hosts[title].Connections(); n < 1 || n > most {
				t.Errorf("%d connections, want 1 to %d", n, most)
			}
		})
	}
	w.sound(t)
	w.wantCleanLog(t)
	if after := memoryOf(t, w.PID()); after > before+64<<20 {
		t.Errorf("the webhook grew from %d to %d MiB", before>>20, after>>20)
	}
}

func frames2(http2 func(func(net.Conn)) harness.HostileConfig, list ...[]byte) harness.HostileConfig {
	return http2(frames(list...))
}

// refuseAll resets each stream as one that was not processed, which invites to try again.
func refuseAll(conn net.Conn) {
	_, _ = conn.Write(frame(frameSettings, 0, 0, nil))
	in := bufio.NewReader(conn)
	_, _ = in.Discard(24)
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		_, _ = in.Discard(int(endian.BigEndian.Uint32(head) >> 8))
		if head[3] == frameHeaders {
			_, _ = conn.Write(frame(frameReset, 0, endian.BigEndian.Uint32(head[5:]), []byte{0, 0, 0, 7}))
		}
	}
}
