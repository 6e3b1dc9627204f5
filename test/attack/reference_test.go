package attack

import (
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestReferences: what is not a canonical reference, or only looks like an allowed one, is denied, and nothing is
// contacted for it.
func TestReferences(t *testing.T) {
	w := newWorld(t, registrytest.Config{}, nil)
	host := w.Registry.Host() // 127.0.0.1:port
	name, port, _ := strings.Cut(host, ":")
	digest := strings.TrimPrefix(w.Digests["golden/ws:v1.0.0"], "sha256:")
	const invalid, registry = "reference: ", "is not an internal registry"
	for title, c := range map[string]struct {
		image string
		want  string
	}{
		"look-alike suffix":             {name + ".evil.example:" + port + "/golden/ws:v1.0.0", registry},
		"look-alike prefix":             {"evil-" + host + "/golden/ws:v1.0.0", registry},
		"host as a path":                {"evil.example/" + name + "/golden/ws:v1.0.0", registry},
		"userinfo":                      {host + "@evil.example/golden/ws:v1.0.0", invalid},
		"repository prefix":             {host + "/golden-evil/ws:v1.0.0", "golden-evil/ws is not among the repositories"},
		"parent segment":                {host + "/golden/../sandbox/evil:v1.0.0", invalid},
		"dot segment":                   {host + "/golden/./ws:v1.0.0", invalid},
		"double slash before":           {host + "//golden/ws:v1.0.0", invalid},
		"double slash inside":           {host + "/golden//ws:v1.0.0", invalid},
		"trailing slash":                {host + "/golden/ws/:v1.0.0", invalid},
		"percent-encoded traversal":     {host + "/golden/%2e%2e/sandbox/evil:v1.0.0", invalid},
		"backslash":                     {host + `/golden\ws:v1.0.0`, invalid},
		"trailing dot":                  {"registry.corp./golden/ws:v1.0.0", invalid},
		"leading dot":                   {".registry.corp/golden/ws:v1.0.0", invalid},
		"empty port":                    {name + ":/golden/ws:v1.0.0", invalid},
		"other port":                    {name + ":443/golden/ws:v1.0.0", registry},
		"no port":                       {name + "/golden/ws:v1.0.0", registry},
		"port with a leading zero":      {name + ":0" + port + "/golden/ws:v1.0.0", invalid},
		"port out of range":             {name + ":99999/golden/ws:v1.0.0", invalid},
		"port zero":                     {name + ":0/golden/ws:v1.0.0", invalid},
		"upper-case host":               {"LOCALHOST:" + port + "/golden/ws:v1.0.0", invalid},
		"upper-case first part":         {"Golden/ws:v1.0.0", invalid},
		"upper-case repository":         {host + "/Golden/ws:v1.0.0", invalid},
		"cyrillic homoglyph":            {"r\u0435gistry.corp/golden/ws:v1.0.0", `\u0435`},
		"fullwidth":                     {"\uff52egistry.corp/golden/ws:v1.0.0", invalid},
		"ideographic full stop":         {"registry\u3002corp/golden/ws:v1.0.0", invalid},
		"punycode":                      {"xn--rgistry-r2f.corp/golden/ws:v1.0.0", registry},
		"underscore in the host":        {"registry_corp.x/golden/ws:v1.0.0", invalid},
		"scheme https":                  {"https://" + host + "/golden/ws:v1.0.0", invalid},
		"scheme docker":                 {"docker://" + host + "/golden/ws:v1.0.0", invalid},
		"query":                         {host + "/golden/ws:v1.0.0?x=y", invalid},
		"fragment":                      {host + "#/golden/ws:v1.0.0", invalid},
		"IPv6 literal":                  {"[::1]:" + port + "/golden/ws:v1.0.0", invalid},
		"decimal address":               {"2130706433:" + port + "/golden/ws:v1.0.0", registry},
		"implicit Docker Hub":           {"ubuntu", "docker.io " + registry},
		"library":                       {"library/ubuntu", "docker.io " + registry},
		"docker.io":                     {"docker.io/ubuntu", "docker.io/library/ubuntu"},
		"index.docker.io":               {"index.docker.io/ubuntu", "docker.io/library/ubuntu"},
		"registry-1.docker.io":          {"registry-1.docker.io/library/ubuntu", "docker.io/library/ubuntu"},
		"short name without a dot":      {"registry/golden/ws:v1.0.0", "docker.io/registry/golden/ws"},
		"64 hexadecimal digits":         {digest, invalid},
		"image ID":                      {"sha256:" + digest, "docker.io/library/sha256"},
		"tag that begins with a hyphen": {host + "/golden/ws:-bad", invalid},
		"tag that begins with a dot":    {host + "/golden/ws:.bad", invalid},
		"bad tag before a digest":       {host + "/golden/ws:-bad@sha256:" + digest, invalid},
		"tag of 129 characters":         {host + "/golden/ws:" + strings.Repeat("a", 129), invalid},
		"two tags":                      {host + "/golden/ws:1:2", invalid},
		"two digests":                   {host + "/golden/ws@sha256:" + digest + "@sha256:" + digest, invalid},
		"upper-case digest":             {host + "/golden/ws@sha256:" + strings.ToUpper(digest), invalid},
		"upper-case algorithm":          {host + "/golden/ws@SHA256:" + digest, invalid},
		"short digest":                  {host + "/golden/ws@sha256:" + digest[:63], invalid},
		"sha512 digest":                 {host + "/golden/ws@sha512:" + digest + digest, "only sha256"},
		"newline in the tag":            {host + "/golden/ws:v1.0.0\nv1", invalid},
		"newline after the tag":         {host + "/golden/ws:v1.0.0\n", invalid},
		"space":                         {" " + host + "/golden/ws:v1.0.0", invalid},
		"null byte":                     {host + "/golden/ws:v1.0.0\x00", invalid},
		"variable":                      {"$(REGISTRY)/golden/ws:v1.0.0", invalid},
		"empty":                         {"", "it is empty"},
	} {
		t.Run(title, func(t *testing.T) {
			w.Registry.Reset()
			denied(c.want).check(t, w.admit(t, w.pod(image(c.image))))
			w.noRequests(t)
		})
	}
	t.Run("message hygiene", func(t *testing.T) {
		evil := "evil.example/\x1b[31mred\u202e" + strings.Repeat("a", 10_000) + "\r\nallowed: true"
		a := w.admit(t, w.pod(image(evil)))
		want{says: []string{"reference:"}, without: []string{"\x1b", "\u202e", "\r", "\nallowed"}}.check(t, a)
	})
}
