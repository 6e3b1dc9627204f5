package attack

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// tunnels is a proxy that leads names to addresses of this machine, and notes the first byte that goes into each tunnel.
type tunnels struct {
	to    map[string]string // by "registry.corp.example:5000"
	mutex sync.Mutex
	first []byte
}

func (p *tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to := p.to[r.Host]
	if r.Method != http.MethodConnect || to == "" {
		// An answer as of a registry that wants a password.
		w.Header().Set("WWW-Authenticate", "Basic")
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		http.Error(w, "no", http.StatusBadGateway)
		return
	}
	defer server.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer client.Close()
	_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
	first, err := buffered.Reader.Peek(1)
	if err != nil {
		return
	}
	p.mutex.Lock()
	p.first = append(p.first, first[0])
	p.mutex.Unlock()
	go func() {
		_, _ = io.Copy(server, buffered.Reader)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// TestProxy: registries that are not on loopback are reached through HTTPS_PROXY and HTTP_PROXY, but for those of NO_PROXY.
// TLS goes through a tunnel in which the proxy sees nothing; credentials never pass it in the clear; an address of a private
// network gets TLS like any other.
func TestProxy(t *testing.T) {
	private := hostile(t, harness.HostileConfig{Handler: http.NotFoundHandler(), Names: []string{"10.0.0.5"}})
	registry, err := registrytest.New(registrytest.Config{
		DNSNames: []string{"registry.corp.example"}, Auth: &registrytest.Auth{User: robot, Password: robotPassword, Bearer: false},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = registry.Close() })
	p := &tunnels{to: map[string]string{
		"registry.corp.example:5000": registry.Host(), "10.0.0.5:5000": private.Host(), "192.168.1.1:443": private.Host(),
	}}
	proxy := hostile(t, harness.HostileConfig{Plain: true, Handler: p})
	const proxyPassword = "pr0xy-passw0rd"
	proxyEnvironment(t, "http://proxyuser:"+proxyPassword+"@"+proxy.Host(), "direct.invalid,.direct.example")
	w := besiege(t, "",
		target{"registry.corp.example:5000", registry.CAPEM(), robot, robotPassword, ""},
		target{"10.0.0.5:5000", private.CAPEM(), robot, robotPassword, ""}, target{host: "192.168.1.1", ca: private.CAPEM()},
		target{"plain.corp.example:5000", nil, robot, robotPassword, ""}, target{host: "direct.invalid", ca: private.CAPEM()},
		target{host: "unknown.corp.example", ca: private.CAPEM()})
	digest, err := registry.PushImage(t.Context(), registrytest.Image{Repository: "golden/ws", Tag: "v1.0.0", User: "1000"})
	if err == nil {
		err = registry.Sign(t.Context(), "golden/ws", digest, w.Key, registrytest.SignOptions{DockerReference: "registry.corp.example:5000/golden/ws"})
	}
	if err != nil {
		t.Fatal(err)
	}
	var messages strings.Builder
	try := func(host string, want want) {
		t.Helper()
		a := w.admit(t, w.pod(image(host+"/golden/ws:v1.0.0")))
		want.check(t, a)
		fmt.Fprintln(&messages, a.Message, a.Audit)
	}
	asked := func() (list []string) {
		for _, seen := range proxy.Seen() {
			list = append(list, seen.Method+" "+seen.URI)
		}
		return list
	}
	t.Run("TLS", func(t *testing.T) {
		try("registry.corp.example:5000", allowed())
		if list := asked(); slices.ContainsFunc(list, func(s string) bool { return s != "CONNECT registry.corp.example:5000" }) || len(list) == 0 {
			t.Errorf("the proxy was asked %q", list)
		}
	})
	t.Run("private network", func(t *testing.T) {
		try("10.0.0.5:5000", want{says: []string{"does not exist", "has no tag v1.0.0 of golden/ws"}})
		try("192.168.1.1", want{code: 503, says: []string{"has a certificate that is not trusted (it is for another name)"}})
		if slices.ContainsFunc(p.first, func(b byte) bool { return b != 22 }) || len(private.Seen()) == 0 {
			t.Errorf("the tunnels began with %v, and %d requests came", p.first, len(private.Seen()))
		}
	})
	t.Run("plain HTTP", func(t *testing.T) {
		try("plain.corp.example:5000", denied("would get its credentials through a proxy in the clear"))
	})
	t.Run("NO_PROXY", func(t *testing.T) {
		before := len(proxy.Seen())
		try("direct.invalid", want{code: 503, says: []string{"could not be checked"}})
		if len(proxy.Seen()) != before {
			t.Errorf("the proxy was asked %q", asked())
		}
	})
	t.Run("refused by the proxy", func(t *testing.T) {
		try("unknown.corp.example", want{code: 503, says: []string{"could not be checked"}, without: []string{"not signed"}})
	})
	for _, seen := range proxy.Seen() {
		if seen.Header.Get("Authorization") != "" {
			t.Errorf("the proxy was shown the credentials of a registry: %+v", seen)
		}
	}
	for _, text := range []string{messages.String(), w.Log(), w.metrics(t)} {
		for _, secret := range []string{robotPassword, proxyPassword} {
			if strings.Contains(text, secret) {
				t.Errorf("%s got out:\n%s", secret, text)
			}
		}
	}
	w.sound(t)
}
