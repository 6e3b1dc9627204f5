package server

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// newWatch watches a certificate that is valid around a time.
func newWatch(t *testing.T, dir string, at time.Time) (*certificateWatch, *bytes.Buffer) {
	t.Helper()
	writeCertificate(t, dir, at)
	log := &bytes.Buffer{}
	w := &certificateWatch{
		certificate: &certificate{certFile: filepath.Join(dir, "tls.crt"), keyFile: filepath.Join(dir, "tls.key")},
		metrics:     NewMetrics(), log: slog.New(slog.NewTextHandler(log, nil)),
	}
	if _, err := w.load(); err != nil {
		t.Fatal(err)
	}
	return w, log
}

// TestSwappedByKubelet: a mounted Secret is replaced by one renaming of the link ..data, and the new pair is served.
func TestSwappedByKubelet(t *testing.T) {
	dir := t.TempDir()
	mount := func(version string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		writeCertificate(t, filepath.Join(dir, version), time.Now())
		if err := os.Symlink(version, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	mount("..2027_03_31")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	log := &bytes.Buffer{}
	w := &certificateWatch{
		certificate: &certificate{certFile: filepath.Join(dir, "tls.crt"), keyFile: filepath.Join(dir, "tls.key")},
		metrics:     NewMetrics(), log: slog.New(slog.NewTextHandler(log, nil)),
	}
	if _, err := w.load(); err != nil {
		t.Fatal(err)
	}
	old := w.current.Load()
	w.look()
	if w.current.Load() != old {
		t.Error("reloaded without a change")
	}
	mount("..2027_04_01")
	w.look()
	if w.current.Load() == old || !strings.Contains(log.String(), "certificate reloaded") {
		t.Errorf("not reloaded; log: %s", log)
	}
	if got, want := testutil.ToFloat64(w.metrics.certificateExpiry), float64(w.current.Load().Leaf.NotAfter.Unix()); got != want {
		t.Errorf("the metric says %v, want %v", got, want)
	}
}

// TestHalfWritten: one file of a new pair is no reason to complain until it stays so, and never one to stop serving.
func TestHalfWritten(t *testing.T) {
	dir := t.TempDir()
	w, log := newWatch(t, dir, time.Now())
	old := w.current.Load()
	cert, key, err := servertest.Certificate(time.Now(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.keyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	w.look()
	if w.current.Load() != old || log.Len() > 0 {
		t.Errorf("after the first look: changed %t, log %s", w.current.Load() != old, log)
	}
	for range 3 {
		w.look()
	}
	if w.current.Load() != old || strings.Count(log.String(), "the old one stays") != 1 || !strings.Contains(log.String(), w.certFile) {
		t.Errorf("a wrong pair: changed %t, log %s", w.current.Load() != old, log)
	}
	if n := testutil.ToFloat64(w.metrics.reloads.WithLabelValues("certificate", "failure")); n != 1 {
		t.Errorf("%v failures counted", n)
	}
	if err := os.WriteFile(w.certFile, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	w.look()
	if w.current.Load() == old || !strings.Contains(log.String(), "certificate reloaded") {
		t.Errorf("the whole pair was not loaded; log %s", log)
	}
}

// TestEndOfCertificate is told of seven days before, once a day, and again when it has come.
func TestEndOfCertificate(t *testing.T) {
	w, log := newWatch(t, t.TempDir(), time.Now())
	end := w.current.Load().Leaf.NotAfter
	for _, step := range []struct {
		before time.Duration
		says   string // "" is nothing
	}{
		{8 * 24 * time.Hour, ""}, {7*24*time.Hour - time.Minute, "ends soon"}, {6*24*time.Hour + time.Hour, ""},
		{6*24*time.Hour - 2*time.Minute, "ends soon"}, {time.Hour, "ends soon"}, {-time.Minute, ""}, {-24 * time.Hour, "has expired"},
	} {
		log.Reset()
		w.warn(end.Add(-step.before))
		if step.says == "" && log.Len() > 0 || !strings.Contains(log.String(), step.says) {
			t.Errorf("%v before the end: %q, want %q", step.before, log, step.says)
		}
	}
}
