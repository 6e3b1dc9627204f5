package attack

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/bundle"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// A policyKey signs bundles as opa sign does.
type policyKey struct {
	private string // PEM
	file    string // with the public key
}

func newPolicyKey(t *testing.T) policyKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	file := filepath.Join(t.TempDir(), "bundle.pub")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
	return policyKey{string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})), file}
}

// rules is a bundle with one rule of a name, which says message of pods with hostNetwork.
func rules(name, message string) *opa.Bundle {
	text := fmt.Sprintf("package hallmark.rules.%s\n\ndeny contains {\"message\": %q} if input.object.spec.hostNetwork\n", name, message)
	return regoBundle(name, text)
}

// regoBundle has any text as the rule.
func regoBundle(name, text string) *opa.Bundle {
	file := "/hallmark/rules/" + name + "/" + name + ".rego"
	return &opa.Bundle{
		Manifest: opa.Manifest{Revision: name, Roots: &[]string{"hallmark/rules/" + name}}, Data: map[string]any{},
		Modules: []opa.ModuleFile{{URL: file, Path: file, Raw: []byte(text), Parsed: ast.MustParseModule("package hallmark.rules." + name)}},
	}
}

// sign gives a bundle as opa build with a signing key writes it.
func (k policyKey) sign(t *testing.T, b *opa.Bundle) []byte {
	t.Helper()
	must(t, b.GenerateSignature(opa.NewSigningConfig(k.private, "ES256", ""), "", false))
	return archived(t, b)
}

func archived(t *testing.T, b *opa.Bundle) []byte {
	t.Helper()
	var archive bytes.Buffer
	must(t, opa.NewWriter(&archive).DisableFormat(true).Write(*b))
	return archive.Bytes()
}

// A policyServer serves bundles by path over HTTPS, with ETags.
type policyServer struct {
	*harness.Hostile
	ca string

	mutex     sync.Mutex
	archives  map[string][]byte // nil: 503
	unchanged int               // answers 304
	asked     map[string]int
}

func newPolicyServer(t *testing.T) *policyServer {
	t.Helper()
	s := &policyServer{archives: map[string][]byte{}, asked: map[string]int{}, ca: filepath.Join(t.TempDir(), "ca.pem")}
	s.Hostile = hostile(t, harness.HostileConfig{Handler: http.HandlerFunc(s.serve)})
	must(t, os.WriteFile(s.ca, s.CAPEM(), 0o600))
	return s
}

func (s *policyServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.asked[r.URL.Path]++
	archive := s.archives[r.URL.Path]
	if archive == nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	etag := fmt.Sprintf("\"%x\"", sha256.Sum256(archive))
	w.Header().Set("ETag", etag)
	if r.Header.Get("If-None-Match") == etag {
		s.unchanged++
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(archive)
}

// put has the server give an archive; nil is 503.
func (s *policyServer) put(path string, archive []byte) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.archives[path] = archive
}

// counts gives how often a path was asked for, and how often the answer was 304.
func (s *policyServer) counts(path string) (asked, unchanged int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.asked[path], s.unchanged
}

// polled waits until the webhook has asked some times more.
func (s *policyServer) polled(t *testing.T, path string, times int) {
	t.Helper()
	before, _ := s.counts(path)
	eventually(t, "another poll", func() bool { now, _ := s.counts(path); return now >= before+times })
}

// entry is the configuration of a bundle on the server.
func (s *policyServer) entry(path string, key policyKey) string {
	return fmt.Sprintf("    - {url: %q, ca: %q, every: 1s, verification: {keyFile: %q}}\n", "https://"+s.Host()+path, s.ca, key.file)
}

// bundled adds bundles to a configuration.
func bundled(entries ...string) func(string) string {
	return func(text string) string { return text + "policies:\n  bundles:\n" + strings.Join(entries, "") }
}

func (w world) hostNetwork(t *testing.T) servertest.Admission {
	t.Helper()
	return w.admit(t, w.pod(with("hostNetwork", true)))
}

// says waits until pods with hostNetwork are denied in these words.
func (w world) says(t *testing.T, message string) {
	t.Helper()
	eventually(t, "rule "+message, func() bool { return strings.Contains(w.hostNetwork(t).Message, message) })
	denied(message).check(t, w.hostNetwork(t))
	allowed().check(t, w.admit(t, w.pod()))
}

// logs waits until the webhook has written a text.
func (w world) logs(t *testing.T, text string) {
	t.Helper()
	eventually(t, "log of "+text, func() bool { return strings.Contains(w.Log(), text) })
}

// reloads is how often bundles were taken over or refused.
func (w world) reloads(t *testing.T, result string) string {
	t.Helper()
	m := regexp.MustCompile(`hallmark_reloads_total\{result="` + result + `",what="bundle"\} (\d+)`).FindStringSubmatch(w.metrics(t))
	if m == nil {
		return "0"
	}
	return m[1]
}

// TestPolicyBundle: what is signed is in force soon after it is served, without a restart. Nothing else ever is, and each
// failure is told once.
func TestPolicyBundle(t *testing.T) {
	t.Parallel() // they wait for polls
	key, stranger, server := newPolicyKey(t), newPolicyKey(t), newPolicyServer(t)
	const path = "/a.tar.gz"
	server.put(path, key.sign(t, rules("host", "first")))
	w := newWorld(t, registrytest.Config{}, bundled(server.entry(path, key)))
	w.says(t, "first")
	if !w.ready(t) {
		t.Error("the webhook is not ready")
	}
	t.Run("unchanged", func(t *testing.T) {
		loads := strings.Count(w.Log(), "configuration and policies loaded")
		_, before := server.counts(path)
		eventually(t, "304", func() bool { _, now := server.counts(path); return now > before+1 })
		if n := strings.Count(w.Log(), "configuration and policies loaded"); n != loads || w.reloads(t, "success") != "1" {
			t.Errorf("%d loads, were %d; %s bundles", n, loads, w.reloads(t, "success"))
		}
	})
	t.Run("updated", func(t *testing.T) {
		server.put(path, key.sign(t, rules("host", "second")))
		w.says(t, "second")
	})
	bomb := rules("host", "bomb")
	bomb.Modules[0].Raw = append(bomb.Modules[0].Raw, bytes.Repeat([]byte(" "), 17<<20)...)
	changed := rules("host", "tampered")
	changed.Signatures = func() opa.SignaturesConfig { b := rules("host", "first"); key.sign(t, b); return b.Signatures }()
	withData := rules("host", "data")
	withData.Data = map[string]any{"hallmark": map[string]any{"rules": map[string]any{"host": map[string]any{"x": 1}}}}
	for i, c := range []struct {
		name    string
		archive []byte
		log     string
	}{
		{"unsigned", archived(t, rules("host", "evil")), "bundle missing .signatures.json file"},
		{"by another key", stranger.sign(t, rules("host", "evil")), "failed to verify JWT signature"},
		{"tampered", archived(t, changed), "digest mismatch"},
		{"bomb", key.sign(t, bomb), "it unpacks to more than 16 MiB"},
		{"data", key.sign(t, withData), "it has data (hallmark)"},
		{"not Rego", key.sign(t, regoBundle("host", "package hallmark.rules.host\n\ndeny contains\n")), "rego_parse_error"},
		{"a typo in a field", key.sign(t, regoBundle("host", "package hallmark.rules.host\n\ndeny contains {\"message\": \"evil\"} if input.objekt\n")), "undefined ref: input.objekt"},
		{"decides nothing", key.sign(t, regoBundle("host", "package hallmark.rules.host\n\nx := 1\n")), "neither deny nor warn"},
		{"asks the network", key.sign(t, regoBundle("host", "package hallmark.rules.host\n\ndeny contains {\"message\": \"x\"} if http.send({})\n")), "http.send"},
		{"outside its roots", key.sign(t, func() *opa.Bundle {
			b := rules("host", "evil")
			b.Manifest.Roots = &[]string{"other"}
			return b
		}()), "do not permit"},
		{"no archive", []byte("<html>"), "it is not a gzipped archive"},
		{"down", nil, "the server answered 503"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server.put(path, c.archive)
			w.logs(t, c.log)
			server.polled(t, path, 2)
			denied("second").check(t, w.hostNetwork(t))
			logged := 0
			for line := range strings.Lines(w.Log()) {
				if strings.Contains(line, c.log) {
					logged++
				}
			}
			if logged != 1 {
				t.Errorf("logged %d times", logged)
			}
			if n := w.reloads(t, "failure"); n != fmt.Sprint(i+1) {
				t.Errorf("%s failures counted, want %d", n, i+1)
			}
			if !w.ready(t) {
				t.Error("the webhook is not ready")
			}
		})
	}
	t.Run("a configuration meanwhile", func(t *testing.T) {
		w.configure(t, func(text string) string {
			return bundled(server.entry(path, key))(text) + "message: {helpURL: \"https://help.example\"}\n"
		})
		eventually(t, "the reload", func() bool { return strings.Contains(w.hostNetwork(t).Message, "help.example") })
		denied("second").check(t, w.hostNetwork(t))
	})
	t.Run("good again", func(t *testing.T) {
		server.put(path, key.sign(t, rules("host", "third")))
		w.says(t, "third")
	})
	t.Run("another key", func(t *testing.T) {
		text, err := os.ReadFile(stranger.file)
		must(t, err)
		must(t, os.WriteFile(key.file, text, 0o600))
		w.logs(t, "these policy bundles could not be read yet")
		denied("third").check(t, w.hostNetwork(t))
		server.put(path, stranger.sign(t, rules("host", "fourth")))
		w.says(t, "fourth")
	})
	t.Run("taken out", func(t *testing.T) {
		server.put("/other.tar.gz", stranger.sign(t, rules("other", "other")))
		w.configure(t, bundled(server.entry("/other.tar.gz", key)))
		w.says(t, "other")
		if got := w.hostNetwork(t); strings.Contains(got.Message, "fourth") {
			t.Errorf("the rule is still there:\n%s", got.Message)
		}
		before, _ := server.counts(path)
		server.polled(t, "/other.tar.gz", 3)
		if now, _ := server.counts(path); now != before {
			t.Errorf("the server was asked %d times more for the old one", now-before)
		}
	})
}

// TestPolicyBundleLate: without all of its policies the webhook decides nothing.
func TestPolicyBundleLate(t *testing.T) {
	t.Parallel() // they wait for polls
	key, server := newPolicyKey(t), newPolicyServer(t)
	server.put("/a.tar.gz", key.sign(t, rules("a", "from a")))
	w := newWorld(t, registrytest.Config{}, bundled(server.entry("/a.tar.gz", key), server.entry("/b.tar.gz", key)))
	none := want{code: 503, says: []string{"Hallmark has no valid configuration yet; try again"}}
	w.logs(t, "/b.tar.gz: the server answered 503")
	for name, archive := range map[string][]byte{
		"missing": nil, "broken": key.sign(t, regoBundle("b", "package hallmark.rules.b\n\ndeny contains {\"message\": \"b\"} if input.objekt\n")),
		"the packages of the other": key.sign(t, rules("a", "from b")),
	} {
		t.Run(name, func(t *testing.T) {
			server.put("/b.tar.gz", archive)
			server.polled(t, "/b.tar.gz", 4)
			none.check(t, w.admit(t, w.pod()))
			if w.ready(t) {
				t.Error("the webhook is ready")
			}
		})
	}
	server.put("/b.tar.gz", key.sign(t, rules("b", "from b")))
	w.says(t, "from b")
	denied("from a", "from b").check(t, w.hostNetwork(t))
	if !w.ready(t) {
		t.Error("the webhook is not ready")
	}
	t.Run("one of two", func(t *testing.T) {
		server.put("/a.tar.gz", key.sign(t, regoBundle("a", "package hallmark.rules.a\n\ndeny contains {\"message\": \"a\"} if input.objekt2\n")))
		w.logs(t, "undefined ref: input.objekt2")
		server.put("/b.tar.gz", key.sign(t, rules("b", "newer b")))
		w.says(t, "newer b")
		denied("from a", "newer b").check(t, w.hostNetwork(t))
	})
	t.Run("a third that is not there", func(t *testing.T) {
		w.configure(t, bundled(server.entry("/a.tar.gz", key), server.entry("/b.tar.gz", key), server.entry("/c.tar.gz", key)))
		w.logs(t, "/c.tar.gz: the server answered 503")
		server.put("/b.tar.gz", key.sign(t, rules("b", "newest b")))
		w.says(t, "newest b")
		server.put("/c.tar.gz", key.sign(t, rules("c", "from c")))
		w.says(t, "from c")
	})
}
