package registry

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

func TestCheckResolved(t *testing.T) {
	tests := []struct {
		asked, resolved string
		kind            string // "" is allowed
	}{
		{"registry.corp.example", "93.184.216.34:443", ""},
		{"registry.corp.example", "10.0.0.5:443", ""},
		{"registry.corp.example", "[fd12::1]:443", ""},
		{"registry.corp.example", "127.0.0.1:443", "loopback"},
		{"registry.corp.example", "127.8.9.1:443", "loopback"},
		{"registry.corp.example", "[::1]:443", "loopback"},
		{"registry.corp.example", "[::ffff:127.0.0.1]:443", "loopback"},
		{"registry.corp.example", "169.254.169.254:80", "link-local"},
		{"registry.corp.example", "[fe80::1%eth0]:443", "link-local"},
		{"registry.corp.example", "[64:ff9b::169.254.169.254]:443", "link-local"},
		{"registry.corp.example", "0.0.0.0:443", "reserved"},
		{"registry.corp.example", "[::]:443", "reserved"},
		{"registry.corp.example", "0.1.2.3:443", "reserved"},
		{"registry.corp.example", "255.255.255.255:443", "reserved"},
		{"registry.corp.example", "224.0.0.1:443", "multicast"},
		{"registry.corp.example", "[ff02::1]:443", "multicast"},
		{"registry.corp.example", "[fd00:ec2::254]:80", "cloud metadata"},
		{"registry.corp.example", "100.100.100.200:80", "cloud metadata"},
		{"registry.corp.example", "168.63.129.16:80", "cloud metadata"},
		{"127.0.0.1", "127.0.0.1:5000", ""},
		{"127.0.0.1", "127.0.0.2:5000", "loopback"},
		{"169.254.1.1", "169.254.1.1:443", ""},
		{"localhost", "127.0.0.1:5000", ""},
		{"localhost", "[::1]:5000", ""},
		{"localhost", "169.254.169.254:80", "link-local"},
		{"localhost.corp.example", "127.0.0.1:5000", "loopback"},
	}
	for _, test := range tests {
		err := checkResolved(test.asked, test.resolved)
		var forbidden *forbiddenAddressError
		switch {
		case test.kind == "" && err != nil:
			t.Errorf("%s at %s: %v", test.asked, test.resolved, err)
		case test.kind != "" && (!errors.As(err, &forbidden) || forbidden.kind != test.kind):
			t.Errorf("%s at %s: got %v, want %s", test.asked, test.resolved, err, test.kind)
		}
	}
	if checkResolved("registry.corp.example", "nonsense") == nil {
		t.Error("an unreadable address is allowed")
	}
}

// A name in the configuration that leads to loopback is refused when it is dialled; nothing connects.
func TestRebinding(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{}, 1)
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_ = conn.Close()
			accepted <- struct{}{}
		}
		close(accepted)
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	host := "registry.corp.example:" + port
	client, err := New(Config{
		Hosts:       []Host{{Host: host}},
		DialContext: filteringDialer(time.Second, resolverFor(t, netip.MustParseAddr("127.0.0.1"))),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ref := webhook.Reference{Registry: host, Repository: "golden/base", Tag: "v1"}
	_, err = client.ReadImage(t.Context(), ref, webhook.DigestOnly)
	var read *webhook.ReadError
	if !errors.As(err, &read) || read.Failure != webhook.NotAllowed || !strings.Contains(read.Reason, "leads to a loopback address") {
		t.Errorf("got %v", err)
	}
	_ = listener.Close()
	if _, connected := <-accepted; connected {
		t.Error("somebody connected")
	}
}

// A name server that does not answer costs no more than a dial may, is named as the reason, and is asked again when it
// is back: a name that was not found is not remembered.
func TestNameServerDown(t *testing.T) {
	const host = "registry.corp.example"
	var down atomic.Bool
	answering := resolverFor(t, netip.MustParseAddr("127.0.0.1"))
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if down.Load() {
			var d net.Dialer
			return d.DialContext(ctx, "udp", silent.LocalAddr().String())
		}
		return answering.Dial(ctx, network, address)
	}}
	client, err := New(Config{Hosts: []Host{{Host: host}}, DialContext: filteringDialer(300*time.Millisecond, resolver)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	read := func() *webhook.ReadError {
		t.Helper()
		_, err := client.ReadImage(t.Context(), webhook.Reference{Registry: host, Repository: "golden/base", Tag: "v1"}, webhook.DigestOnly)
		var read *webhook.ReadError
		if !errors.As(err, &read) {
			t.Fatalf("got %v", err)
		}
		return read
	}
	down.Store(true)
	start := time.Now()
	if e := read(); e.Failure != webhook.Unavailable || !strings.Contains(e.Reason, "DNS") && !strings.Contains(e.Reason, "did not answer") {
		t.Errorf("with the name server down: %v", e)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	down.Store(false)
	if e := read(); e.Failure != webhook.NotAllowed || !strings.Contains(e.Reason, "leads to a loopback address") {
		t.Errorf("with the name server back, which leads to this machine: %v", e)
	}
}

// resolverFor is a resolver that finds one address for every name.
func resolverFor(t *testing.T, address netip.Addr) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(dnsAnswer(buffer[:n], address), from)
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// dnsAnswer answers a question for A with the address and any other with nothing (RFC 1035, 4).
func dnsAnswer(query []byte, address netip.Addr) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5 // the root label, type and class
	answer := append([]byte{}, query[:end]...)
	copy(answer[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	if binary.BigEndian.Uint16(query[end-4:]) == 1 {
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		answer = append(answer, address.AsSlice()...)
	}
	return answer
}

// What is not among a host's origins is not contacted, whoever asks.
func TestRoundTripRefusesOtherOrigins(t *testing.T) {
	client, err := New(Config{Hosts: []Host{{Host: "registry.corp.example", TokenHosts: []string{"auth.corp.example"}}},
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("dialled") }})
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"https://registry.corp.example/":     "dialled",
		"https://REGISTRY.corp.example:443/": "dialled",
		"https://auth.corp.example/":         "dialled",
		"http://registry.corp.example/":      errForbiddenOrigin.Error(),
		"https://registry.corp.example:444/": errForbiddenOrigin.Error(),
		"https://evil.example/":              errForbiddenOrigin.Error(),
		"http://auth.corp.example/":          errForbiddenOrigin.Error(),
		"https://169.254.169.254/":           errForbiddenOrigin.Error(),
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.hosts["registry.corp.example"].roundTrip(request); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", url, err, want)
		}
	}
}
