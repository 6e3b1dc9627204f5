package distribution

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/pinned"
)

// programs are the paths of those under test.
var programs struct{ registry, hallmark string }

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hallmark-distribution-")
	if err == nil {
		err = buildPrograms(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// buildPrograms builds the product, too. It belongs to the module around this one, so it is run and not imported.
func buildPrograms(ctx context.Context, dir string) (err error) {
	if programs.registry, err = Program(ctx, os.Stderr); err != nil {
		return err
	}
	programs.hallmark = filepath.Join(dir, "hallmark")
	return pinned.BuildOurs(ctx, filepath.Join("..", ".."), programs.hallmark, "./cmd/hallmark")
}

// process is a program that runs, and what it has said.
type process struct {
	command *exec.Cmd
	exited  chan error
	mutex   sync.Mutex
	log     bytes.Buffer
}

// start runs a program until the end of the test, and waits for the line that found takes.
func start(t *testing.T, command *exec.Cmd, found func(line []byte) bool) *process {
	t.Helper()
	p := &process{command: command, exited: make(chan error, 1)}
	// No proxy variables: what is reached is on loopback.
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "OTEL_TRACES_EXPORTER=none"}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stdout, command.Stderr = in, in
	err = command.Start()
	_ = in.Close()
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		waiting := true
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadBytes('\n')
			p.mutex.Lock()
			p.log.Write(line)
			p.mutex.Unlock()
			if waiting && found(line) {
				waiting = false
				close(ready)
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					_ = command.Process.Kill()
				}
				p.exited <- command.Wait()
				return
			}
		}
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(command.Path), p.said())
		}
	})
	select {
	case <-ready:
	case err := <-p.exited:
		p.exited <- err
		t.Fatalf("%s ended: %v\n%s", filepath.Base(command.Path), err, p.said())
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not start:\n%s", filepath.Base(command.Path), p.said())
	}
	return p
}

func (p *process) said() string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.log.String()
}

// stop ends the process; it may be called twice.
func (p *process) stop(t *testing.T) {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.exited:
		p.exited <- err
	case <-time.After(15 * time.Second):
		t.Errorf("%s does not end", filepath.Base(p.command.Path))
		_ = p.command.Process.Kill()
	}
}

// certificate writes a certificate for loopback that is its own authority, and its key.
func certificate(t *testing.T, dir string) (certFile, keyFile string, certPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "loopback"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	return write(t, dir, "tls.crt", certPEM), write(t, dir, "tls.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), certPEM
}

func write(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
