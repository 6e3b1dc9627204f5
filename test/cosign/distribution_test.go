package cosign

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDistribution: what the programs store in CNCF's registry, to which the image was copied by one of them.
func TestDistribution(t *testing.T) {
	s := startStand(t)
	host, caFile := startDistribution(t)
	d := newDesk(t, s.caFile, caFile)
	signers := map[string]trusted{"ci": d.key("ci"), "release": d.key("release")}
	authority, err := os.ReadFile(caFile)
	must(t, err)
	for _, in := range layouts() {
		t.Run(in.name, func(t *testing.T) {
			s, d := s.in(t), d.in(t)
			repository := "golden/" + strings.ReplaceAll(in.name, " ", "-")
			there := s.push(repository, false)
			image := strings.Replace(there, s.host, host, 1)
			d.run(programs.V2, slices.Concat([]string{"copy"}, d.registry, []string{there, host + "/" + repository + ":v1"})...)
			byCI := question{Image: image, CA: authority, Signers: signers, Signatures: []rule{{AnyOf: []string{"ci"}, Threshold: 1}}}
			wantUnsigned(t, s.ask(byCI), "")
			d.sign(in, "release", image)
			wantUnsigned(t, s.ask(byCI), "1 signature by release")
			d.sign(in, "ci", image)
			got := s.ask(byCI)
			wantSigned(t, got, signed{"ci", image, got.Signatures.Found})
			d.attest(in, image, approved().name, approved().predicate)
			byCI.Signatures, byCI.Attestations = nil, []attestationRule{{approved().predicateType, []string{"ci"}}}
			wantAttested(t, s.ask(byCI), attested{approved(), "ci", 1})
		})
	}
}

// startDistribution runs the registry that test/distribution builds, in memory and over TLS.
func startDistribution(t *testing.T) (host, caFile string) {
	t.Helper()
	find := exec.CommandContext(t.Context(), "go", "run", "./cmd/registrybin")
	find.Dir = filepath.Join("..", "distribution")
	path, err := find.Output()
	must(t, err)
	dir := t.TempDir()
	caFile, key := certificate(t, dir)
	config, err := json.Marshal(map[string]any{
		"version": "0.1", "log": map[string]any{"level": "info"},
		"storage": map[string]any{"inmemory": map[string]any{}, "delete": map[string]any{"enabled": true}},
		"http":    map[string]any{"addr": "127.0.0.1:0", "secret": "s", "tls": map[string]any{"certificate": caFile, "key": key}},
	})
	must(t, err)
	file := filepath.Join(dir, "config.yml") // JSON is YAML
	must(t, os.WriteFile(file, config, 0o600))
	command := exec.Command(strings.TrimSpace(string(path)), "serve", file)
	command.Env = append(environment(dir), "OTEL_TRACES_EXPORTER=none")
	out, in, err := os.Pipe()
	must(t, err)
	command.Stdout, command.Stderr = in, in
	err = command.Start()
	_ = in.Close()
	must(t, err)
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		killer := time.AfterFunc(15*time.Second, func() { _ = command.Process.Kill() })
		defer killer.Stop()
		_ = command.Wait()
		_ = out.Close()
	})
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+), tls`)
	said := bufio.NewScanner(out)
	for said.Scan() {
		if match := listening.FindStringSubmatch(said.Text()); match != nil {
			go func() { _, _ = io.Copy(io.Discard, out) }() // it ends with the program
			return match[1], caFile
		}
	}
	t.Fatal("the registry does not start")
	return "", ""
}

// certificate writes a certificate for loopback that is its own authority, and its key.
func certificate(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "loopback"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return certFile, keyFile
}
