package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// expiredServer has a certificate that ended yesterday.
func expiredServer(t *testing.T) (host string, caPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestTLS(t *testing.T) {
	r := serve(t, registrytest.Config{})
	plain := serve(t, registrytest.Config{PlainHTTP: true})
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.StartTLS()
	defer old.Close()
	expired, expiredPEM := expiredServer(t)
	tests := []struct {
		name   string
		host   registry.Host
		dial   string
		reason string
	}{
		{"unknown authority", registry.Host{Host: r.Host()}, "", "has a certificate that is not trusted (unknown authority)"},
		{"another name", registry.Host{Host: "registry.corp.example:5000", CAPEM: r.CAPEM()}, r.Host(), "has a certificate that is not trusted (it is for another name)"},
		{"expired", registry.Host{Host: expired, CAPEM: expiredPEM}, "", "has a certificate that is not trusted (expired or not yet valid)"},
		{"plain HTTP is not tried", registry.Host{Host: plain.Host()}, "", "speaks plain HTTP where TLS is required"},
		{"not for private addresses either", registry.Host{Host: "10.0.0.5:5000"}, plain.Host(), "speaks plain HTTP where TLS is required"},
		{"not for localhost either", registry.Host{Host: "localhost:5000"}, plain.Host(), "speaks plain HTTP where TLS is required"},
		{"old TLS", registry.Host{Host: old.Listener.Addr().String()}, "", "failed the TLS handshake"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			config := registry.Config{Hosts: []registry.Host{test.host}}
			if test.dial != "" {
				config.DialContext = dialTo(test.dial, nil)
			}
			client, err := registry.New(config)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = client.ReadImage(t.Context(), parse(t, test.host.Host+"/golden/base:v1"), webhook.WithConfig)
			wantReadError(t, err, webhook.Unavailable, test.host.Host, test.reason)
		})
	}
	if n := len(plain.Requests()); n != 0 {
		t.Errorf("%d requests over plain HTTP, want none", n)
	}
}

func TestNobodyThere(t *testing.T) {
	r := serve(t, registrytest.Config{})
	host := r.Host()
	client := connect(t, r, nil)
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := client.ReadImage(t.Context(), parse(t, host+"/golden/base:v1"), webhook.DigestOnly)
	wantReadError(t, err, webhook.Unavailable, host, "refused the connection")

	client, err = registry.New(registry.Config{Hosts: []registry.Host{{Host: "registry.invalid"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.ReadImage(t.Context(), parse(t, "registry.invalid/golden/base:v1"), webhook.DigestOnly)
	wantReadError(t, err, webhook.Unavailable, "registry.invalid", "could not be found (DNS)")
}

// A proxy may carry plain HTTP, but not credentials in it.
func TestProxy(t *testing.T) {
	r := serve(t, registrytest.Config{PlainHTTP: true, Auth: &registrytest.Auth{User: "robot", Password: "s3cr3t"}})
	proxied := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxied++
		if r.Header.Get("Authorization") != "" {
			t.Error("the proxy saw credentials")
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(401)
	}))
	defer proxy.Close()
	address, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	login := withLogin(t, r, "robot", "s3cr3t")
	client := connect(t, r, func(c *registry.Config) {
		login(c)
		c.Proxy = http.ProxyURL(address)
	})
	_, err = client.ReadImage(t.Context(), parse(t, r.Host()+"/golden/base:v1"), webhook.DigestOnly)
	wantReadError(t, err, webhook.NotAllowed, r.Host(), "would get its credentials through a proxy in the clear")
	wantNoSecret(t, err)
	if proxied != 1 || len(r.Requests()) != 0 {
		t.Errorf("%d requests to the proxy and %v to the registry, want one and none", proxied, r.Requests())
	}
}
