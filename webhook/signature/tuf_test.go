package signature

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// A tufWorld is a repository that published a root "first", and a reader of it with a clock.
type tufWorld struct {
	*tufRepo
	config TUF
	clock  time.Time
	read   func(context.Context) (*trustedRoot, time.Time, error)
}

func newTUFWorld(t *testing.T) *tufWorld {
	t.Helper()
	w := &tufWorld{tufRepo: newTUFRepo(t)}
	w.publish(newTrustedRootJSON(t, "first"))
	w.clock = w.start
	w.config = TUF{URL: w.URL, RootFile: filepath.Join(t.TempDir(), "root.json"), Dir: filepath.Join(t.TempDir(), "tuf")}
	w.must(os.WriteFile(w.config.RootFile, w.anchor, 0o600))
	w.restart()
	return w
}

// restart forgets what is not on disk.
func (w *tufWorld) restart() {
	w.t.Helper()
	reader, err := newTUFReader(w.config, os.ReadFile, func() time.Time { return w.clock })
	w.must(err)
	w.read = reader.read
}

// want reads once. A provisional value is told by fromDisk.
func (w *tufWorld) want(logURL string, fromDisk bool) {
	w.t.Helper()
	trusted, expires, err := w.read(w.t.Context())
	var early *provisional
	if errors.As(err, &early) != fromDisk || !fromDisk && err != nil {
		w.t.Fatalf("got error %v, from disk is %t", err, fromDisk)
	}
	for _, log := range trusted.RekorLogs() {
		if log.BaseURL != logURL {
			w.t.Errorf("got the root with %s, want %s", log.BaseURL, logURL)
		}
	}
	if want := w.expires[metadata.TIMESTAMP]; !expires.Equal(want) || len(trusted.RekorLogs()) != 1 || trusted.hash == "" {
		w.t.Errorf("got %d logs, hash %q, expiry %s; want 1 and %s", len(trusted.RekorLogs()), trusted.hash, expires, want)
	}
}

func (w *tufWorld) wantError(text string) {
	w.t.Helper()
	trusted, _, err := w.read(w.t.Context())
	if trusted != nil || err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), w.URL) {
		w.t.Errorf("got %v, %v\nwant error %q", trusted, err, text)
	}
}

func TestTUF(t *testing.T) {
	for _, tc := range []struct {
		name string
		run  func(w *tufWorld)
	}{
		{"fresh, and again", func(w *tufWorld) { w.want("first", false); w.want("first", false) }},
		{"nothing on disk", func(w *tufWorld) {
			w.config.Dir = ""
			w.restart()
			w.want("first", false)
			w.restart()
			w.fails()
			w.wantError("503")
		}},
		{"updated", func(w *tufWorld) {
			w.want("first", false)
			w.publish(newTrustedRootJSON(w.t, "second"))
			w.want("second", false)
		}},
		{"restart", func(w *tufWorld) {
			w.want("first", false)
			w.publish(newTrustedRootJSON(w.t, "second"))
			w.restart()
			asked := w.asked
			w.want("first", true)
			if w.asked != asked {
				w.t.Error("the network was asked first")
			}
			w.want("second", false)
		}},
		{"restart offline", func(w *tufWorld) {
			w.want("first", false)
			w.restart()
			w.fails()
			w.want("first", true)
			w.wantError("503")
		}},
		{"restart offline after the expiry", func(w *tufWorld) {
			w.want("first", false)
			w.restart()
			w.fails()
			w.clock = w.expires[metadata.TIMESTAMP]
			w.wantError("503")
		}},
		{"keys were replaced", func(w *tufWorld) {
			w.want("first", false)
			for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
				w.rotate(role)
			}
			w.publish(newTrustedRootJSON(w.t, "second"))
			w.want("second", false)
			w.restart()
			w.fails()
			w.want("second", true)
		}},
		{"expired", func(w *tufWorld) {
			w.clock = w.expires[metadata.TIMESTAMP].Add(time.Second)
			w.wantError("timestamp.json is expired")
		}},
		{"target tampered with", func(w *tufWorld) {
			path := w.publish(newTrustedRootJSON(w.t, "second"))
			body := bytes.Replace(w.files[path], []byte("second"), []byte("s3c0nd"), 1)
			for path := range w.files {
				if strings.HasPrefix(path, "targets/") {
					w.file(path, body)
				}
			}
			w.wantError("hash")
		}},
		{"target is no trusted root", func(w *tufWorld) {
			w.want("first", false)
			w.publish([]byte(`{"mediaType":"other"}`))
			w.wantError("trusted_root.json: it is not in the format")
			w.restart()
			w.want("first", true)
		}},
		{"metadata tampered with", func(w *tufWorld) {
			body := w.files["1.targets.json"]
			w.file("1.targets.json", bytes.Replace(body, []byte(`"version":1`), []byte(`"version":1,"a":1`), 1))
			w.wantError("targets failed")
		}},
		{"another repository", func(w *tufWorld) {
			other := newTUFRepo(w.t)
			w.must(os.WriteFile(w.config.RootFile, other.anchor, 0o600))
			w.restart()
			w.wantError("timestamp failed")
		}},
		{"cache of another repository", func(w *tufWorld) {
			w.want("first", false)
			other := newTUFRepo(w.t)
			w.must(os.WriteFile(w.config.RootFile, other.anchor, 0o600))
			w.restart()
			w.fails()
			w.wantError("503")
		}},
		{"cache tampered with", func(w *tufWorld) {
			w.want("first", false)
			files, err := loadTUF(w.config.Dir, w.URL)
			w.must(err)
			files["targets/"+tufTarget] = newTrustedRootJSON(w.t, "evil!")
			w.must(saveTUF(w.config.Dir, w.URL, files))
			w.restart()
			w.want("first", false)
		}},
		{"cache torn", func(w *tufWorld) {
			w.want("first", false)
			w.must(os.Truncate(filepath.Join(w.config.Dir, tufCacheFile), 100))
			w.restart()
			w.want("first", false)
			w.restart()
			w.want("first", true)
		}},
		{"cache cannot be written", func(w *tufWorld) {
			w.must(os.RemoveAll(w.config.Dir))
			trusted, _, err := w.read(w.t.Context())
			var early *provisional
			if trusted == nil || !errors.As(err, &early) || !strings.Contains(err.Error(), "keep what was read by TUF") {
				w.t.Errorf("got %v, %v", trusted, err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.run(newTUFWorld(t)) })
	}
}

// Older metadata that have not expired are refused in the same process, after a restart, and even when what is on disk
// has expired meanwhile.
func TestTUFRollback(t *testing.T) {
	w := newTUFWorld(t)
	w.publish(newTrustedRootJSON(t, "second"))
	older := maps.Clone(w.files)
	w.publish(newTrustedRootJSON(t, "third"))
	w.want("third", false)
	latest := w.files
	w.files = older
	w.wantError("it went back from version 3 to 2 of timestamp")
	w.restart()
	w.want("third", true)
	w.wantError("it went back from version 3 to 2 of timestamp")

	w.expires[metadata.TIMESTAMP] = w.start.Add(15 * day)
	w.version = 1
	w.publish(newTrustedRootJSON(t, "second"))
	w.clock = w.start.Add(8 * day)
	w.restart()
	w.wantError("it went back from version 3 to 2 of timestamp")

	// Whoever stole a key may have set a high version; with the key replaced it goes on from the repository's own.
	w.files = latest
	w.rotate(metadata.TIMESTAMP)
	w.rotate(metadata.SNAPSHOT)
	w.version = 1
	w.publish(newTrustedRootJSON(t, "fourth"))
	w.want("fourth", false)
}

func TestTUFExpiry(t *testing.T) {
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		t.Run(role, func(t *testing.T) {
			w := newTUFWorld(t)
			w.expires[role] = w.start.Add(time.Hour)
			if role == metadata.ROOT {
				w.tufRepo.root.Signed.Expires = w.expires[role]
				w.rotate(role)
			}
			w.publish(newTrustedRootJSON(t, "first"))
			if _, expires, err := w.read(t.Context()); err != nil || !expires.Equal(w.expires[role]) {
				t.Errorf("got %s, %v; want %s", expires, err, w.expires[role])
			}
			w.clock = w.expires[role].Add(time.Second)
			w.wantError("expired")
		})
	}
}

func TestTUFHostileServer(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}, "has more than 512000 bytes"},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) }, "no answer in time"},
		{"to plain HTTP elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://tuf.example.com/", http.StatusFound)
		}, "redirect: the URL has to begin with https://"},
		{"redirects without end", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, "too many redirects"},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "invalid character"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newTUFWorld(t)
			w.answerWith(tc.answer)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if tc.name == "hangs" {
				cancel()
			}
			if _, _, err := w.read(ctx); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// Everything together has a limit, however small the parts are: here the roots, each of which is valid.
func TestTUFBytes(t *testing.T) {
	w := newTUFWorld(t)
	for range 10 {
		w.tufRepo.root.UnrecognizedFields = map[string]any{"padding": strings.Repeat("a", 500_000)}
		w.rotate(metadata.TARGETS)
	}
	w.wantError(".root.json has more than ")
}

func TestTUFConfig(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := newTUFReader(TUF{URL: "http://tuf.example.com", RootFile: file, Dir: file}, os.ReadFile, time.Now)
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		"tuf: url: the URL has to begin with https://", "is not a root.json of TUF", "tuf: dir: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %q", err, want)
		}
	}
	if _, err := newTUFReader(TUF{RootFile: filepath.Join(dir, "missing")}, os.ReadFile, time.Now); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := newTUFReader(TUF{}, os.ReadFile, time.Now); err != nil {
		t.Errorf("the public-good instance: %v", err)
	}
}

// Behind requests, the root that was read is used while its repository is down, until it expires and not longer.
func TestTUFFetched(t *testing.T) {
	w := newTUFWorld(t)
	f := startFetching(t.Context(), fetching{
		every: time.Hour, timeout: time.Minute, now: func() time.Time { return w.start },
	}, w.read)
	w.must(f.wait(t.Context()))
	f.close()
	w.restart()
	w.fails()
	reported := make(chan error)
	f = startFetching(t.Context(), fetching{
		every: time.Hour, timeout: time.Minute, now: func() time.Time { return w.start },
		report: func(err error) { reported <- err },
	}, w.read)
	w.must(f.wait(t.Context()))
	if err := <-reported; !strings.Contains(err.Error(), "503") {
		t.Errorf("reported %v", err)
	}
	if _, err := f.get(); err != nil {
		t.Errorf("while it is down: %v", err)
	}
	done := make(chan struct{})
	go func() { defer close(done); f.close() }()
	for {
		select {
		case <-reported:
			continue
		case <-done:
		}
		break
	}
}
