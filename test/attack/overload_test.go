package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// cell is a control group with a memory limit, as a container is in one.
type cell struct {
	dir, procs, peak string
}

// newCell makes one, or gives nil where that may not be done.
func newCell(t *testing.T, limit int64) *cell {
	t.Helper()
	for _, version := range []struct{ root, limit, peak string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"}, {"/sys/fs/cgroup", "memory.max", "memory.peak"},
	} {
		dir := filepath.Join(version.root, fmt.Sprintf("hallmark-attack-%d", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		if os.WriteFile(filepath.Join(dir, version.limit), []byte(strconv.FormatInt(limit, 10)), 0o600) != nil {
			_ = os.Remove(dir)
			continue
		}
		return &cell{dir, filepath.Join(dir, "cgroup.procs"), filepath.Join(dir, version.peak)}
	}
	return nil
}

// program is a program that runs another one in the cell.
func (c *cell) program(t *testing.T, program string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hallmark")
	text := fmt.Sprintf("#!/bin/sh\necho $$ > %s && exec %s \"$@\"\n", c.procs, program)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// A siege sends a webhook what nobody should, over connections of its own, and counts the answers by their status; 0 is
// none.
type siege struct {
	address string
	tls     *tls.Config
	started atomic.Int64
	mutex   sync.Mutex
	answers map[int]int
}

func newSiege(w world) *siege {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.CAPEM)
	return &siege{
		address: strings.TrimPrefix(w.URL, "https://"), tls: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, answers: map[int]int{},
	}
}

// post sends a request whose body is of that length, -1 for unknown, and waits for the answer.
func (s *siege) post(ctx context.Context, body io.Reader, length int64) {
	transport := &http.Transport{TLSClientConfig: s.tls, DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s.address+"/validate?timeout=10s", body)
	if err != nil {
		return
	}
	request.ContentLength = length
	request.Header.Set("Content-Type", "application/json")
	s.started.Add(1)
	response, err := transport.RoundTrip(request)
	status := 0
	if err == nil {
		status = response.StatusCode
		_ = response.Body.Close()
	}
	s.mutex.Lock()
	s.answers[status]++
	s.mutex.Unlock()
}

// hold keeps a connection that sends the beginning of a request and then a byte now and then, as long as it is let.
func (s *siege) hold(ctx context.Context, begin string, every time.Duration) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: s.tls}
	conn, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return
	}
	defer conn.Close()
	s.started.Add(1)
	_, err = io.WriteString(conn, begin)
	for err == nil && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(every):
			_, err = io.WriteString(conn, " ")
		}
	}
}

// blanks never end.
type blanks struct{}

func (blanks) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestMemoryCeiling: with the memory of a small container, and somebody who sends it more than a hundred large, endless,
// deep or slow requests a second over more connections than there may be, while its registry sends manifests without an
// end, the webhook is not killed and goes on to answer the others.
func TestMemoryCeiling(t *testing.T) {
	const limit = 256 << 20
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/golden/endless") {
				w.Header().Set("Content-Type", ociManifest)
				endless(w, bytes.Repeat([]byte(" "), 32<<10))
				return
			}
			next.ServeHTTP(w, r)
		})
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Registry.Close()
	program, inCell := binary, newCell(t, limit)
	if inCell != nil {
		program = inCell.program(t, binary)
	} else {
		t.Log("no control group can be made here: GOMEMLIMIT stands in for it, and the resident memory is looked at")
		t.Setenv("GOMEMLIMIT", strconv.Itoa(limit*9/10))
	}
	hook, err := harness.Serve(t.Context(), program, f)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := hook.Stop(); err != nil {
			t.Errorf("stop: %v\n%s", err, hook.Log())
		}
	}()
	w := world{f, hook}
	if !strings.Contains(w.Log(), fmt.Sprintf(`"memory":%d`, limit*9/10)) {
		t.Errorf("the limit was not seen:\n%s", w.Log())
	}
	allowed().check(t, w.admit(t, w.pod()))
	most := peak(t, w.PID(), func() { w.withstand(t, newSiege(w)) })
	t.Logf("resident %d MiB at most", most>>20)
	const ofProgram = 64 << 20 // of the resident memory is the program itself, which the kernel can read again
	if most > limit+ofProgram {
		t.Errorf("the webhook grew to %d MiB", most>>20)
	}
	if inCell != nil {
		text, err := os.ReadFile(inCell.peak)
		t.Logf("peak of the control group: %s bytes (%v)", strings.TrimSpace(string(text)), err)
	}
	w.sound(t)
}

// A siege takes as long as it needs for so many requests, which is some ten seconds where processors have nothing else to
// do.
const (
	siegeRequests = 1500
	siegeLeast    = 10 * time.Second
	siegeMost     = 2 * time.Minute
)

// withstand besieges a webhook, and wants good admissions to be answered meanwhile.
func (w world) withstand(t *testing.T, s *siege) {
	ctx, cancel := context.WithTimeout(t.Context(), siegeMost)
	defer cancel()
	const size = 7 << 20
	review := func(spec string) []byte {
		text := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE",` +
			`"kind":{"group":"","version":"v1","kind":"Pod"},"object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{` + spec + `}}}}`
		return append([]byte(text), bytes.Repeat([]byte(" "), size-len(text))...)
	}
	fill := func(unit string) string { return strings.TrimSuffix(strings.Repeat(unit, (size-1024)/len(unit)), ",") }
	bodies := [][]byte{
		review(`"containers":[` + fill(`{"name":"a","image":"`+w.Ref("golden/ws:v1.0.0")+`"},`) + `]`),
		review(`"containers":[{"name":"a","env":[` + fill(`{"name":"CODER_INNER_IMAGE","value":"x"},`) + `]}]`),
		review(`"containers":` + fill("[")),
		bytes.Repeat([]byte(`{"a":`), size/5),
		bytes.Repeat([]byte("x"), size),
		review(`"nodeName":"` + fill("x") + `","containers":[{"name":"a","image":"` + w.Ref("golden/ws:v1.0.0") + `"}]`),
	}
	var group sync.WaitGroup
	repeat := func(times int, pause time.Duration, f func(i int)) {
		for i := range times {
			group.Go(func() {
				for ctx.Err() == nil {
					f(i)
					select {
					case <-ctx.Done():
					case <-time.After(pause):
					}
				}
			})
		}
	}
	repeat(12, 100*time.Millisecond, func(i int) { body := bodies[i%len(bodies)]; s.post(ctx, bytes.NewReader(body), int64(len(body))) })
	repeat(4, 100*time.Millisecond, func(int) { s.post(ctx, blanks{}, -1) })
	for _, begin := range []string{
		"", "POST /validate HTTP/1.1\r\nX: ",
		"POST /validate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 65536\r\n\r\n",
	} {
		repeat(150, 2*time.Second, func(int) { s.hold(ctx, begin, time.Second) })
	}
	repeat(10, 100*time.Millisecond, func(i int) {
		pod := encode(t, w.pod(image(w.Ref(fmt.Sprintf("golden/endless%d:v1.0.0", s.started.Load())))))
		text := []byte(fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE",`+
			`"namespace":"team","kind":{"group":"","version":"v1","kind":"Pod"},"object":%s}}`, pod))
		s.post(ctx, bytes.NewReader(text), int64(len(text)))
	})
	good, slowest := 0, time.Duration(0)
	pod := encode(t, w.pod())
	start := time.Now()
	for ctx.Err() == nil && (time.Since(start) < siegeLeast || s.started.Load() < siegeRequests) {
		began := time.Now()
		a, err := w.Client.Admit(t.Context(), servertest.Object{JSON: pod})
		if err != nil {
			t.Errorf("a good admission: %v", err)
			break
		}
		allowed().check(t, a)
		slowest = max(slowest, time.Since(began))
		good++
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	group.Wait()
	t.Logf("%d bad requests in %v, answered %v; %d good ones, the slowest in %v",
		s.started.Load(), time.Since(start).Round(time.Second), s.answers, good, slowest)
	if n := s.started.Load(); n < siegeRequests {
		t.Errorf("only %d bad requests", n)
	}
	if good < 10 {
		t.Errorf("%d good admissions", good)
	}
}
