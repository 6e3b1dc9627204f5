package attack

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// tokenSecret is a token that an endpoint issues.
const tokenSecret = "t0ken-0f-the-r0b0t"

// TestSecrets: a registry and a token endpoint that send back what they were shown get it into no message, log line,
// audit annotation or metric; and what is for one registry is shown to no other.
func TestSecrets(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte(robot + ":" + robotPassword))
	secrets := []string{robotPassword, basic, strings.TrimRight(basic, "="), tokenSecret}
	all := strings.Join(secrets, " ")
	// What a registry's token endpoint answers, and what the registry does with a token.
	endpoint := func(status int, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("X-Echo", all)
			rw.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,error=%q", all, all))
			rw.WriteHeader(status)
			_, _ = rw.Write([]byte(body))
		}
	}
	issue := endpoint(200, `{"token":"`+tokenSecret+`","expires_in":300}`)
	manifest := func(status int, header, value, body string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", ociManifest)
			rw.Header().Set(header, value)
			rw.WriteHeader(status)
			_, _ = rw.Write([]byte(body))
		}
	}
	echo := manifest(500, "X-Echo", all, all)
	cases := map[string]struct{ token, registry http.HandlerFunc }{
		"token endpoint refuses with an echo":     {endpoint(401, all), echo},
		"token endpoint forbids with an echo":     {endpoint(403, `{"errors":[{"message":"`+all+`"}]}`), echo},
		"token endpoint fails with an echo":       {endpoint(500, all), echo},
		"token endpoint answers 418":              {endpoint(418, all), echo},
		"token endpoint redirects":                {manifest(307, "Location", "https://evil.example/?"+basic, all), echo},
		"token that is no JSON":                   {endpoint(200, all), echo},
		"token of another type":                   {endpoint(200, `{"token":{"`+all+`":1}}`), echo},
		"token that would split the header":       {endpoint(200, `{"token":"`+tokenSecret+`\r\nX: `+all+`"}`), echo},
		"token that is too long":                  {endpoint(200, `{"token":"`+strings.Repeat(tokenSecret, 3000)+`"}`), echo},
		"password as the token":                   {endpoint(200, `{"token":"`+robotPassword+`"}`), echo},
		"registry refuses the token with an echo": {issue, manifest(401, "WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", all), all)},
		"registry forbids with an echo":           {issue, manifest(403, "X-Echo", all, all)},
		"registry fails with an echo":             {issue, echo},
		"registry has no such thing but an echo":  {issue, manifest(404, "X-Echo", all, all)},
		"registry redirects with an echo":         {issue, manifest(307, "Location", "https://"+robot+":"+robotPassword+"@evil.example/"+tokenSecret+"?"+basic, all)},
		"registry redirects to a path":            {issue, manifest(307, "Location", "/v2/"+tokenSecret+"?"+basic, all)},
		"registry sends an echo as manifest":      {issue, manifest(200, "X-Echo", all, all)},
		"registry sends an echo in a manifest":    {issue, manifest(200, "X-Echo", all, `{"schemaVersion":2,"mediaType":"`+ociManifest+`","config":{"`+all+`":1},"layers":["`+all+`"]}`)},
		"registry sends an echo as digest":        {issue, manifest(200, "Docker-Content-Digest", all, `{}`)},
		// The next six are words of the registry that a message may be tempted to quote.
		"registry sends an echo as encoding":              {issue, manifest(200, "Content-Encoding", tokenSecret, `{}`)},
		"registry sends an echo as type":                  {issue, manifest(200, "Content-Type", tokenSecret, `{}`)},
		"registry sends an echo as type inside":           {issue, manifest(200, "X-Echo", all, `{"schemaVersion":2,"mediaType":"`+tokenSecret+`"}`)},
		"registry sends an echo as version":               {issue, manifest(200, "X-Echo", all, `{"schemaVersion":"`+tokenSecret+`"}`)},
		"registry redirects to an echo":                   {issue, manifest(307, "Location", "https://"+tokenSecret+".evil.example/", all)},
		"realm that is an echo":                           {nil, nil},
		"registry says to come again with an echo":        {issue, manifest(429, "Retry-After", all, all)},
		"registry breaks the protocol with an echo":       {issue, breakWith("HTTP/1.1 2OO " + all + "\r\n\r\n")},
		"registry sends a header that is an echo":         {issue, breakWith("HTTP/1.1 200 OK\r\n" + all + "\r\n\r\n")},
		"registry sends a length that is an echo":         {issue, breakWith("HTTP/1.1 200 OK\r\nContent-Length: " + all + "\r\n\r\n")},
		"registry sends an encoding that is an echo":      {issue, breakWith("HTTP/1.1 200 OK\r\nTransfer-Encoding: " + all + "\r\n\r\n")},
		"registry sends a chunk that is an echo":          {issue, breakWith("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + all + "\r\n")},
		"registry sends an answer too many, an echo":      {issue, breakWith("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 " + all + "\r\n\r\n")},
		"token endpoint breaks the protocol with an echo": {breakWith("HTTP/1.1 2OO " + all + "\r\n\r\n"), echo},
	}
	hosts := map[string]*harness.Hostile{}
	var targets []target
	for title, c := range cases {
		h := hostile(t, harness.HostileConfig{Protocols: []string{"http/1.1"}, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			switch {
			case c.token == nil:
				rw.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", "https://"+robotPassword+".evil.example/"+basic))
				rw.WriteHeader(http.StatusUnauthorized)
			case r.URL.Path == "/token":
				c.token(rw, r)
			case !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "):
				rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="s"`, r.Host))
				rw.WriteHeader(http.StatusUnauthorized)
			default:
				c.registry(rw, r)
			}
		})})
		hosts[title] = h
		targets = append(targets, target{h.Host(), h.CAPEM(), robot, robotPassword, ""})
	}
	anonymous := serving(t, nil, nil)
	anonymousSpy := hostile(t, harness.HostileConfig{Handler: http.NotFoundHandler()})
	honest := serving(t, &registrytest.Auth{User: robot, Password: robotPassword, Bearer: true}, nil)
	wrong := serving(t, &registrytest.Auth{User: robot, Password: "another"}, nil)
	nobody := serving(t, &registrytest.Auth{User: robot, Password: robotPassword, Bearer: true}, nil)
	w := besiege(t, "", append(targets, targetOf(anonymous), target{host: anonymousSpy.Host(), ca: anonymousSpy.CAPEM()}, targetOf(nobody),
		target{honest.Host(), honest.CAPEM(), robot, robotPassword, ""}, target{wrong.Host(), wrong.CAPEM(), robot, robotPassword, ""})...)
	for _, r := range []*registrytest.Registry{anonymous, honest, wrong, nobody} {
		w.publish(t, r, "golden/ws", "v1.0.0")
	}
	wantNoSecrets := func(t *testing.T, where, text string) {
		t.Helper()
		for _, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("a secret is in the %s: %s", where, text[max(0, i-200):min(len(text), i+100)])
				return
			}
		}
	}
	pods := map[string]object{}
	for title, h := range hosts {
		pods[title] = w.pod(image(h.Host() + "/golden/ws:v1.0.0"))
	}
	for title, got := range w.admitAll(t, 16, pods) {
		t.Run(title, func(t *testing.T) {
			want{code: got.Code, without: []string{"not signed"}}.check(t, got.Admission)
			wantNoSecrets(t, "answer", got.Message+fmt.Sprint(got.Audit, got.Warnings))
		})
	}
	good, refused := "/golden/ws:v1.0.0", want{says: []string{"refused access to golden/ws"}, without: []string{"not signed"}}
	allowed().check(t, w.admit(t, w.pod(image(honest.Host()+good))))
	allowed().check(t, w.admit(t, w.pod(image(anonymous.Host()+good))))
	refused.check(t, w.admit(t, w.pod(image(wrong.Host()+good))))
	refused.check(t, w.admit(t, w.pod(image(nobody.Host()+good))))
	denied().check(t, w.admit(t, w.pod(image(anonymousSpy.Host()+good))))
	for _, seen := range anonymousSpy.Seen() {
		for name, values := range seen.Header {
			if name != "Accept" && name != "Accept-Encoding" && name != "User-Agent" {
				t.Errorf("a registry without credentials was sent %s: %q", name, values)
			}
		}
	}
	wantNoSecrets(t, "log", w.Log())
	wantNoSecrets(t, "metrics", w.metrics(t))
	w.wantCleanLog(t)
	w.sound(t)
}

// breakWith answers with bytes instead of HTTP.
func breakWith(text string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			http.Error(rw, "this is HTTP/2", http.StatusInternalServerError)
			return
		}
		defer conn.Close()
		_, _ = conn.Write([]byte(text))
	}
}
