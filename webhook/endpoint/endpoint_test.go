package endpoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// stranger is an authority that has issued nothing here, as PEM.
func stranger(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestEndpoint: a service is believed by the authority of the file alone, and told the token that the file holds then.
func TestEndpoint(t *testing.T) {
	tokens := make(chan string, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { tokens <- r.Header.Get("Authorization") }))
	defer server.Close()
	server.Config.ErrorLog = nil
	ca := write(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	token := write(t, "first\n")
	ask := func(caFile string) error {
		transport, err := Transport(caFile, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if err := TokenFile(token).Authorize(request); err != nil {
			return err
		}
		response, err := transport.RoundTrip(request)
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	for name, authority := range map[string]string{"the system": "", "the file": write(t, stranger(t))} {
		if err := ask(authority); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("a server that %s does not know: %v", name, err)
		}
	}
	for _, want := range []string{"first", "second"} {
		if err := os.WriteFile(token, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ask(ca); err != nil {
			t.Fatal(err)
		}
		if got := <-tokens; got != "Bearer "+want {
			t.Errorf("it came with %q, want %s", got, want)
		}
	}
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	if err := ask(ca); err == nil || !strings.HasPrefix(err.Error(), "credentials: ") {
		t.Errorf("without its token: %v", err)
	}
}

// TestRefused: a file that holds something else is an error that names it, and not what stands in it.
func TestRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "blank": " \n", "two lines": "secret\nsecret", "a space": "secret secret", "a control character": "secret\x00",
		"too long": strings.Repeat("secret", maxTokenBytes/6+1),
	} {
		file := write(t, text)
		err := TokenFile(file).Check()
		if err == nil || !strings.Contains(err.Error(), file+" holds no bearer token") || strings.Contains(strings.ReplaceAll(err.Error(), file, ""), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := TokenFile("").Check(); err != nil {
		t.Errorf("no token is wanted: %v", err)
	}
	for name, file := range map[string]string{"ca: ": filepath.Join(t.TempDir(), "none"), "holds no certificate in PEM": write(t, "x")} {
		if _, err := Transport(file, nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}
