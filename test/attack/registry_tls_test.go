package attack

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestCertificates: a certificate that is not good is named as the reason, and nothing is asked behind it: neither without
// checking it nor without TLS.
func TestCertificates(t *testing.T) {
	handler := http.NotFoundHandler()
	stranger := hostile(t, harness.HostileConfig{Handler: handler})
	otherName := hostile(t, harness.HostileConfig{Handler: handler, Names: []string{"registry.corp.example", "127.0.0.2"}})
	expired := hostile(t, harness.HostileConfig{Handler: handler, Expired: true})
	plain := hostile(t, harness.HostileConfig{Handler: handler, Plain: true})
	system := hostile(t, harness.HostileConfig{Handler: handler})
	w := newWorld(t, registrytest.Config{}, nil)
	// One without a ca is held against the system's authorities.
	w.configure(t, func(text string) string {
		return strings.Replace(text, "\nregistries:\n", "\nrules: {golden: off}\nregistries:\n  - {host: \""+system.Host()+"\"}\n", 1)
	})
	eventually(t, "the entry without a ca", func() bool {
		return strings.Count(w.Log(), "configuration and policies loaded") > 1
	})
	const untrusted = "has a certificate that is not trusted"
	want{code: 503, says: []string{untrusted + " (unknown authority); try again."}}.check(t, w.admit(t, w.pod(image(system.Host()+"/golden/ws:v1.0.0"))))

	w = besiege(t, "",
		target{stranger.Host(), otherName.CAPEM(), robot, robotPassword, ""},
		target{otherName.Host(), otherName.CAPEM(), robot, robotPassword, ""},
		target{expired.Host(), expired.CAPEM(), robot, robotPassword, ""},
		target{plain.Host(), stranger.CAPEM(), robot, robotPassword, ""})
	for h, says := range map[*harness.Hostile]string{
		stranger: untrusted + " (unknown authority)", otherName: untrusted + " (it is for another name)",
		expired: untrusted + " (expired or not yet valid)", plain: "speaks plain HTTP where TLS is required",
	} {
		want{code: 503, says: []string{says}, without: []string{"not signed"}}.check(t, w.admit(t, w.pod(image(h.Host()+"/golden/ws:v1.0.0"))))
		if len(h.Seen()) > 0 || h.Connections() > 4 {
			t.Errorf("%s: %d connections, requests %+v", says, h.Connections(), h.Seen())
		}
	}
	w.sound(t)
	w.wantCleanLog(t)
}
