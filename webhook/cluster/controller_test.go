package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const goodRules = `judge.hallmark.dev:
  - {operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}
`

// files writes rules and a kubeconfig of a server.
func files(t *testing.T, server string) (rules, kubeconfig string) {
	t.Helper()
	dir := t.TempDir()
	rules, kubeconfig = filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "kubeconfig")
	for file, text := range map[string]string{
		rules: goodRules,
		kubeconfig: fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: c, namespace: ns}}],
			clusters: [{name: c, cluster: {server: %q}}], users: [{name: c, user: {token: t}}]}`, server),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return rules, kubeconfig
}

// TestUnreachable: without an API server the controller lives, is not ready, says why, and goes on trying until it is told to
// end.
func TestUnreachable(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	rules, kubeconfig := files(t, "http://"+closed.Addr().String())
	var log bytes.Buffer
	c, err := New(Config{
		Kubeconfig: kubeconfig, Service: "w", TLSSecret: "w-tls", CASecret: "w-ca", WebhookConfiguration: "w", RulesFile: rules,
		Lifetimes: years(), MetricsListen: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	get := func(path string) (int, string) {
		response, err := http.Get("http://" + c.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(text)
	}
	tried := func() string {
		_, text := get("/metrics")
		_, rest, _ := strings.Cut(text, `hallmark_reconciles_total{result="failure"} `)
		count, _, _ := strings.Cut(rest, "\n")
		return count
	}
	for began := time.Now(); tried() < "2"; time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("it does not try again")
		}
	}
	if status, text := get("/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %d: %s", status, text)
	}
	if status, _ := get("/livez"); status != http.StatusOK {
		t.Errorf("/livez answers %d", status)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "connection refused"); n != 1 {
		t.Errorf("the same trouble is logged %d times:\n%s", n, &log)
	}
}

func TestReadRules(t *testing.T) {
	got, err := readRules([]byte(goodRules))
	want := map[string][]rule{"judge.hallmark.dev": {{
		Operations: []string{"CREATE"}, APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}, Scope: "*",
	}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "it names no webhook; want a map from the name of an entry to its rules"},
		{"no map", "[]", "cannot unmarshal array"},
		{"no rules", "a: []", "a has no rules"},
		{"typo", "a: [{operation: [CREATE]}]", `unknown field "operation"`},
		{"twice", "a: [{}]\na: [{}]", `key "a" already set`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := readRules([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TestInactive: the mutating half comes first, and entries that the file does not name are nobody's business.
func TestInactive(t *testing.T) {
	want := map[string][]rule{"pin": {{Scope: "*"}}, "judge": {{Scope: "Namespaced"}}}
	pin, judge := entry{name: "pin", rules: want["pin"]}, entry{name: "judge", rules: want["judge"]}
	for _, tc := range []struct {
		name       string
		pin, judge entry
		fresh      bool
		target     int
		entries    []int
	}{
		{name: "active", pin: pin, judge: judge, target: -1},
		{name: "neither", pin: entry{name: "pin"}, judge: entry{name: "judge"}, target: 0, entries: []int{1}},
		{name: "judging half", pin: pin, judge: entry{name: "judge"}, target: 1, entries: []int{0}},
		{name: "not marked", pin: pin, judge: judge, fresh: true, target: 1},
		{name: "other rules", pin: pin, judge: entry{name: "judge", rules: want["pin"]}, target: 1, entries: []int{0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := state{configurations: []configuration{
				{kind: mutating, entries: []entry{{name: "stranger"}, tc.pin}}, {kind: validating, activated: !tc.fresh, entries: []entry{tc.judge}},
			}}
			target, entries := s.inactive(want)
			if target != tc.target || !cmp.Equal(entries, tc.entries) {
				t.Errorf("got configuration %d, entries %v; want %d, %v", target, entries, tc.target, tc.entries)
			}
			if got := s.missing(want); got != "" {
				t.Errorf("%s is missing", got)
			}
		})
	}
	if got := (state{}).missing(want); got != "judge" {
		t.Errorf("without configurations %q is missing, want judge", got)
	}
}

// TestPatch holds that a patch says nothing but its own fields, and the version that it changes.
func TestPatch(t *testing.T) {
	c := configuration{kind: validating, version: "7", activated: true, entries: []entry{{name: "a"}, {name: "b"}}}
	fresh := c
	fresh.activated = false
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, tc := range []struct{ name, got, want string }{
		{"bundle", string(must(c.bundlePatch([]byte("x")))),
			`{"metadata":{"resourceVersion":"7"},"webhooks":[{"name":"a","clientConfig":{"caBundle":"eA=="}},{"name":"b","clientConfig":{"caBundle":"eA=="}}]}`},
		{"rules", string(must(c.rulesPatch(now, []int{1}, map[string][]rule{"b": {{Operations: []string{"CREATE"}, Scope: "*"}}}))),
			`{"metadata":{"resourceVersion":"7"},"webhooks":[{"name":"b","rules":[{"operations":["CREATE"],"apiGroups":null,"apiVersions":null,"resources":null,"scope":"*"}]}]}`},
		{"mark", string(must(fresh.rulesPatch(now, nil, nil))),
			`{"metadata":{"resourceVersion":"7","annotations":{"hallmark.dev/activated":"2026-01-02T03:04:05Z"}}}`},
	} {
		if diff := cmp.Diff(tc.want, tc.got); diff != "" {
			t.Errorf("%s:\n%s", tc.name, diff)
		}
	}
}

func TestClock(t *testing.T) {
	a := &api{}
	a.observeClock(time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	if got := time.Until(a.now()); got < 59*time.Minute || got > 61*time.Minute {
		t.Errorf("the API server's clock is an hour ahead, and this one takes it for %s", got)
	}
	a.observeClock(time.Now().Add(time.Second).UTC().Format(http.TimeFormat))
	if got := a.offset.Load(); got != 0 {
		t.Errorf("a second, which a Date cannot tell, counts: %d", got)
	}
	a.observeClock("yesterday")
	if got := a.offset.Load(); got != 0 {
		t.Errorf("what is no date counts: %d", got)
	}
}

func TestLifetimes(t *testing.T) {
	for _, tc := range []struct {
		l    Lifetimes
		want string
	}{
		{years(), ""},
		{Lifetimes{CA: time.Hour, Serving: time.Second}, "a serving certificate must live at least 10s, and not 1s"},
		{Lifetimes{CA: time.Minute, Serving: time.Minute}, "an authority must live at least twice as long as its certificates (1m0s), and not 1m0s"},
	} {
		got := ""
		if err := tc.l.check(); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.l, got, tc.want)
		}
	}
}
