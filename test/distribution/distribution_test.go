package distribution

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// hallmark is a running webhook.
type hallmark struct {
	*process
	url    string
	client *http.Client
}

// entry is a registry in the configuration of the webhook.
type entry struct{ host, caFile, credentials string }

func startHallmark(t *testing.T, publicKey string, entries ...entry) *hallmark {
	t.Helper()
	dir := t.TempDir()
	var registries, signatures strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&registries, "  - {host: %q, ca: %q, credentials: %q}\n", e.host, e.caFile, e.credentials)
		fmt.Fprintf(&signatures, "  - {match: [%q], anyOf: [ci]}\n", e.host+"/**")
	}
	config := write(t, dir, "hallmark.yaml", []byte(`apiVersion: hallmark.dev/v1alpha1
kind: Configuration
mode: enforce
registries:
`+registries.String()+`tags:
  allow: [exact]
cache: {tagTTL: 1ns}
signers:
  ci:
    key: |
      `+strings.ReplaceAll(strings.TrimSpace(publicKey), "\n", "\n      ")+`
signatures:
`+signatures.String()))
	cert, key, certPEM := certificate(t, dir)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	h := &hallmark{client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	h.process = start(t, exec.Command(programs.hallmark, "serve", "--config", config, "--listen", "127.0.0.1:0", "--metrics-listen", "",
		"--tls-cert", cert, "--tls-key", key, "--shutdown-delay", "0s"), func(line []byte) bool {
		var said struct{ Msg, Address string }
		if json.Unmarshal(line, &said) != nil || said.Msg != "serving" {
			return false
		}
		h.url = "https://" + said.Address
		return true
	})
	t.Cleanup(transport.CloseIdleConnections)
	return h
}

// answer is of one half of an admission.
type answer struct {
	Allowed bool
	Patch   []byte
	Status  struct {
		Code    int
		Message string
	}
	AuditAnnotations map[string]string
}

func (h *hallmark) review(t *testing.T, path string, pod []byte) answer {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": map[string]any{
			"uid": "1", "operation": "CREATE", "name": "ws", "namespace": "team",
			"kind": map[string]any{"group": "", "version": "v1", "kind": "Pod"}, "object": json.RawMessage(pod),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	response, err := h.client.Post(h.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var review struct{ Response answer }
	if err := json.NewDecoder(response.Body).Decode(&review); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s answered %d: %v", path, response.StatusCode, err)
	}
	return review.Response
}

// admit sends a pod with an image through both halves, and gives the image that it was pinned to.
func (h *hallmark) admit(t *testing.T, image string) (answer, string) {
	t.Helper()
	pod := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"ws","namespace":"team"},"spec":{"containers":[{"name":"dev","image":%q}]}}`, image)
	mutated := h.review(t, "/mutate", pod)
	if !mutated.Allowed {
		return mutated, ""
	}
	if mutated.Patch != nil {
		patch, err := jsonpatch.DecodePatch(mutated.Patch)
		if err == nil {
			pod, err = patch.Apply(pod)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var pinned struct {
		Spec struct{ Containers []struct{ Image string } }
	}
	if err := json.Unmarshal(pod, &pinned); err != nil {
		t.Fatal(err)
	}
	return h.review(t, "/validate", pod), pinned.Spec.Containers[0].Image
}

func (h *hallmark) wantPinned(t *testing.T, image, digest string) {
	t.Helper()
	a, pinned := h.admit(t, image)
	if !a.Allowed || pinned != image+"@"+digest {
		t.Errorf("%s: allowed %t, pinned to %s, want @%s\n%s", image, a.Allowed, pinned, digest, a.Status.Message)
	}
}

func (h *hallmark) wantRefused(t *testing.T, image string, code int, says ...string) {
	t.Helper()
	a, _ := h.admit(t, image)
	if a.Allowed || a.Status.Code != code {
		t.Errorf("%s: allowed %t with code %d, want %d\n%s", image, a.Allowed, a.Status.Code, code, a.Status.Message)
	}
	for _, part := range says {
		if !strings.Contains(a.Status.Message, part) {
			t.Errorf("%s: the message lacks %q:\n%s", image, part, a.Status.Message)
		}
	}
	if strings.Contains(a.Status.Message, password) || strings.Contains(h.said(), password) {
		t.Error("the password got out")
	}
}

func newKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// credentials writes a Docker config.
func credentials(t *testing.T, host, password string) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{
		"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password)),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, t.TempDir(), "config.json", text)
}

// TestDistribution: with CNCF's registry the webhook does what it does with the registry of the other tests.
func TestDistribution(t *testing.T) {
	key, public := newKey(t)
	other, _ := newKey(t)
	r := startRegistry(t, "filesystem", false)
	signed := func(to string, digest string) string {
		repository, _, _ := strings.Cut(to, ":")
		r.sign(r.host, repository, digest, key)
		return digest
	}
	good := signed("golden/ws:v1.0.0", r.push("golden/ws:v1.0.0", image(t, "1000", "amd64", types.OCIManifestSchema1)))
	docker := signed("golden/docker:v1.0.0", r.push("golden/docker:v1.0.0", image(t, "1000", "amd64", types.DockerManifestSchema2)))
	index := signed("golden/multi:v1.0.0", r.pushIndex("golden/multi:v1.0.0", "1000", "1000"))
	signed("golden/multiroot:v1.0.0", r.pushIndex("golden/multiroot:v1.0.0", "1000", "0"))
	r.push("golden/ws:v9.9.9", image(t, "2000", "amd64", types.OCIManifestSchema1))
	stranger := r.push("golden/stranger:v1.0.0", image(t, "1000", "arm64", types.OCIManifestSchema1))
	r.sign(r.host, "golden/stranger", stranger, other)
	r.sign(r.host, "golden/else", stranger, key)
	both := r.push("golden/both:v1.0.0", image(t, "3000", "amd64", types.OCIManifestSchema1))
	r.sign(r.host, "golden/both", both, other)
	r.sign(r.host, "golden/both", both, key)

	h := startHallmark(t, public, entry{r.host, r.caFile, ""})
	t.Run("pinned and admitted", func(t *testing.T) {
		for range 2 {
			h.wantPinned(t, r.host+"/golden/ws:v1.0.0", good)
		}
		h.wantPinned(t, r.host+"/golden/docker:v1.0.0", docker)
		h.wantPinned(t, r.host+"/golden/both:v1.0.0", both)
	})
	t.Run("index", func(t *testing.T) {
		h.wantPinned(t, r.host+"/golden/multi:v1.0.0", index)
		h.wantRefused(t, r.host+"/golden/multiroot:v1.0.0", 403, "runs as root")
	})
	t.Run("unsigned", func(t *testing.T) {
		h.wantRefused(t, r.host+"/golden/ws:v9.9.9", 403, "not signed by ci")
		h.wantRefused(t, r.host+"/golden/stranger:v1.0.0", 403, "not signed by ci", "1 signature by an unknown key")
	})
	t.Run("missing", func(t *testing.T) {
		h.wantRefused(t, r.host+"/golden/ws:v3.0.0", 403, "does not exist", "has no tag v3.0.0 of golden/ws")
		h.wantRefused(t, r.host+"/golden/nothing:v1.0.0", 403, "does not exist", "has no tag v1.0.0 of golden/nothing")
	})
	t.Run("signed meanwhile", func(t *testing.T) {
		late := r.push("golden/late:v1.0.0", image(t, "1001", "amd64", types.OCIManifestSchema1))
		h.wantRefused(t, r.host+"/golden/late:v1.0.0", 403, "not signed by ci")
		r.sign(r.host, "golden/late", late, key)
		h.wantPinned(t, r.host+"/golden/late:v1.0.0", late)
	})
	t.Run("outage", func(t *testing.T) {
		r.stop(t)
		h.wantPinned(t, r.host+"/golden/ws:v1.0.0", good)
		h.wantRefused(t, r.host+"/golden/ws:v1.0.1", 503, "could not be checked", "refused the connection; try again.")
	})
}

// TestPassword: with htpasswd the registry asks for Basic credentials. Two names of it have a right and a wrong password
// in the configuration, and a third webhook has none.
func TestPassword(t *testing.T) {
	key, public := newKey(t)
	r := startRegistry(t, "inmemory", true)
	digest := r.push("golden/ws:v1.0.0", image(t, "1000", "amd64", types.OCIManifestSchema1))
	wrong := strings.Replace(r.host, "127.0.0.1", "localhost", 1)
	r.sign(r.host, "golden/ws", digest, key)
	r.sign(wrong, "golden/ws", digest, key)
	h := startHallmark(t, public, entry{r.host, r.caFile, credentials(t, r.host, password)}, entry{wrong, r.caFile, credentials(t, wrong, "wrong")})
	h.wantPinned(t, r.host+"/golden/ws:v1.0.0", digest)
	h.wantRefused(t, r.host+"/golden/ws:v1.0.1", 403, "has no tag v1.0.1 of golden/ws")
	h.wantRefused(t, wrong+"/golden/ws:v1.0.0", 403, "could not be checked", "refused access to golden/ws (401)")
	anonymous := startHallmark(t, public, entry{r.host, r.caFile, ""})
	anonymous.wantRefused(t, r.host+"/golden/ws:v1.0.0", 403, "could not be checked", "refused access to golden/ws (401)")
}
