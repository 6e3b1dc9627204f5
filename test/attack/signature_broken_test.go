package attack

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestBundleBlobs: what comes for the digest of a bundle is that bundle or nothing (SIG-012), and neither its encoding nor
// its length costs memory.
func TestBundleBlobs(t *testing.T) {
	packed := bomb(t, 300)
	zip := func(made []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, err := w.Write(made)
		must(t, err)
		must(t, w.Close())
		return out.Bytes()
	}
	answers := map[string]http.HandlerFunc{
		"other": send("", `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`),
		"encoded": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed)
		},
		"endless": func(w http.ResponseWriter, _ *http.Request) { endless(w, bytes.Repeat([]byte(" "), 1<<16)) },
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5000")
			_, _ = io.WriteString(w, "{")
		},
		"gone": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
	}
	var mutex sync.Mutex
	disturbed := map[string]http.HandlerFunc{} // by repository
	s := newSigning(t, registrytest.Config{Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			repository, digest, blob := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
			mutex.Lock()
			answer := disturbed[repository+"@"+digest]
			mutex.Unlock()
			if blob && answer != nil {
				answer(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}}, trust{signatures: signedAll})
	by := registrytest.Signer{Key: s.Key}
	disturb := func(name string) func(subject) {
		return func(on subject) {
			on.sign(mark{by: by, bundle: registrytest.BundleOptions{Mutate: func(made []byte) []byte {
				digest, err := s.Registry.PushBlob(on.t.Context(), on.repository, made)
				must(on.t, err)
				mutex.Lock()
				disturbed[on.repository+"@"+digest] = answers[name]
				mutex.Unlock()
				return made
			}}})
		}
	}
	made := func(media string, change func([]byte) []byte) func(subject) {
		return func(on subject) {
			on.sign(mark{by: by, bundle: registrytest.BundleOptions{MediaType: media, Mutate: change}})
		}
	}
	refused := func(found string) want { return denied("not signed by ci (found: 1 signature" + found) }
	before := memoryOf(t, s.PID())
	most := peak(t, s.PID(), func() {
		s.run(t, map[string]signedCase{
			"other content (SIG-012)":          {rule: "key", only: bundles, sign: disturb("other"), want: refused(" with a broken payload)")},
			"a bomb that is said to be packed": {rule: "key", only: bundles, sign: disturb("encoded"), want: refused("")},
			"without an end":                   {rule: "key", only: bundles, sign: disturb("endless"), want: refused("")},
			"not there":                        {rule: "key", only: bundles, sign: disturb("gone"), want: refused(" without its payload)")},
			"cut off":                          {rule: "key", only: bundles, sign: disturb("cut"), want: want{code: 503, says: []string{"could not be checked"}, without: []string{"not signed"}}},
			"packed":                           {rule: "key", only: bundles, sign: made("", zip), want: refused(" in no valid form)")},
			"packed, with a type that says so": {rule: "key", only: bundles, sign: made(registrytest.BundleMediaType+"+gzip", zip), want: refused(" in no valid form)")},
			"a bomb with a type that says so":  {rule: "key", only: bundles, sign: made(registrytest.BundleMediaType+"+gzip", func([]byte) []byte { return packed }), want: refused(" too large to be read)")},
			"a bomb":                           {rule: "key", only: bundles, sign: made("", func([]byte) []byte { return packed }), want: refused(" too large to be read)")},
			"a type that begins alike":         {rule: "key", only: bundles, sign: made(registrytest.BundleMediaType+"x", nil), want: allowed()},
			"deep":                             {rule: "key", only: bundles, sign: made("", func([]byte) []byte { return bytes.Repeat([]byte("["), 30_000) }), want: refused(" in no valid form)")},
			"a statement that is deep": {rule: "key", only: bundles, sign: func(on subject) {
				on.sign(mark{by: by, bundle: registrytest.BundleOptions{Statement: registrytest.Statement{Raw: bytes.Repeat([]byte("["), 20_000)}}})
			}, want: refused(" in no valid form)")},
			"the image itself instead of one": {rule: "key", only: bundles, sign: func(on subject) {
				refer(on, registrytest.Referrer{ArtifactType: registrytest.BundleMediaType, MediaType: ociManifest, Content: []byte("{}")})
			}, want: denied("not signed by ci (no signature found)")},
			"a referrer that is no manifest": {rule: "key", only: bundles, sign: func(on subject) {
				refer(on, registrytest.Referrer{Manifest: fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"subject":{"mediaType":%q,"digest":%q,"size":1},"layers":7}`, ociManifest, registrytest.BundleMediaType, ociManifest, on.digest)})
			}, want: denied("not signed by ci")},
			"a referrer without layers": {rule: "key", only: bundles, sign: func(on subject) {
				refer(on, registrytest.Referrer{Manifest: fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"subject":{"mediaType":%q,"digest":%q,"size":1}}`, ociManifest, registrytest.BundleMediaType, ociManifest, on.digest)})
			}, want: refused(" with a broken payload)")},
		})
	})
	if most > before+32<<20 {
		t.Errorf("the webhook grew from %d to %d MiB", before>>20, most>>20)
	}
}

func refer(on subject, referrer registrytest.Referrer) {
	on.t.Helper()
	_, err := on.Registry.AttachReferrer(on.t.Context(), on.repository, on.digest, referrer)
	must(on.t, err)
}

// TestBrokenProofs: whatever stands in the proofs that come with a signature, the answer is that they do not hold, for
// signers who ask for them, and nothing panics.
func TestBrokenProofs(t *testing.T) {
	third, thirdPEM := newSigner(t)
	s := newSigning(t, registrytest.Config{}, trust{
		signers: releaseSigner("release", ", timestamp: required") +
			keySigner("logged", thirdPEM, ", trustedRoot: ROOT, transparencyLog: required, timestamp: required"),
		signatures: `  - {match: ["HOST/golden/release/**"], anyOf: [release]}
  - {match: ["HOST/golden/logged/**"], anyOf: [logged]}
`,
	})
	signers := map[string]registrytest.Signer{"release": s.release(), "logged": {Key: third}}
	payload := func(body, more string) string {
		return `{"SignedEntryTimestamp":"AA==","Payload":{"body":` + body + `,"integratedTime":1,"logIndex":1,"logID":"aa"` + more + `}}`
	}
	cases := map[string]signedCase{}
	broken := func(rule string) want { return denied("not signed by " + rule + " (found: 1 signature") }
	for name, annotations := range map[string]map[string]string{
		"body a number":       {registrytest.BundleAnnotation: payload("1", "")},
		"body an object":      {registrytest.BundleAnnotation: payload("{}", "")},
		"body an array":       {registrytest.BundleAnnotation: payload(`[""]`, "")},
		"body null":           {registrytest.BundleAnnotation: payload("null", "")},
		"body of no kind":     {registrytest.BundleAnnotation: payload(`"eyJraW5kIjoieCJ9"`, "")},
		"body empty":          {registrytest.BundleAnnotation: payload(`""`, "")},
		"payload null":        {registrytest.BundleAnnotation: `{"SignedEntryTimestamp":"AA==","Payload":null}`},
		"log null":            {registrytest.BundleAnnotation: "null"},
		"log an array":        {registrytest.BundleAnnotation: "[]"},
		"log cut":             {registrytest.BundleAnnotation: "{"},
		"log huge":            {registrytest.BundleAnnotation: payload(`"`+strings.Repeat("A", 200_000)+`"`, "")},
		"timestamp empty":     {registrytest.TimestampAnnotation: `{}`},
		"timestamp null":      {registrytest.TimestampAnnotation: `null`},
		"timestamp broken":    {registrytest.TimestampAnnotation: `{"SignedRFC3161Timestamp":"MAAwAA=="}`},
		"timestamp no Base64": {registrytest.TimestampAnnotation: `{"SignedRFC3161Timestamp":1}`},
	} {
		for rule, by := range signers {
			cases[rule+": "+name] = signedCase{rule: rule, only: layers, want: broken(rule), sign: func(on subject) {
				on.sign(mark{by: by, witness: registrytest.Witness{Log: s.authority, Timestamp: s.authority}, layer: registrytest.SignOptions{Annotations: annotations}})
			}}
		}
	}
	for name, path := range map[string][]any{
		"entries null":          {nil, "verificationMaterial", "tlogEntries"},
		"entries of null":       {[]any{nil}, "verificationMaterial", "tlogEntries"},
		"an empty entry":        {[]any{map[string]any{}}, "verificationMaterial", "tlogEntries"},
		"entries a number":      {7, "verificationMaterial", "tlogEntries"},
		"body a number":         {7, "verificationMaterial", "tlogEntries", 0, "canonicalizedBody"},
		"body of no JSON":       {"AAAA", "verificationMaterial", "tlogEntries", 0, "canonicalizedBody"},
		"body null inside":      {"bnVsbA==", "verificationMaterial", "tlogEntries", 0, "canonicalizedBody"},
		"no proof":              {nil, "verificationMaterial", "tlogEntries", 0, "inclusionProof"},
		"an empty proof":        {map[string]any{}, "verificationMaterial", "tlogEntries", 0, "inclusionProof"},
		"a negative index":      {"-1", "verificationMaterial", "tlogEntries", 0, "logIndex"},
		"an index of no number": {"x", "verificationMaterial", "tlogEntries", 0, "logIndex"},
		"timestamps of null":    {map[string]any{"rfc3161Timestamps": []any{nil}}, "verificationMaterial", "timestampVerificationData"},
		"an empty timestamp":    {map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": ""}}}, "verificationMaterial", "timestampVerificationData"},
		"a broken timestamp":    {map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": "MAAwAA=="}}}, "verificationMaterial", "timestampVerificationData"},
		"no material":           {nil, "verificationMaterial"},
		"empty material":        {map[string]any{}, "verificationMaterial"},
		"no envelope":           {nil, "dsseEnvelope"},
		"an empty envelope":     {map[string]any{}, "dsseEnvelope"},
		"no signatures":         {[]any{}, "dsseEnvelope", "signatures"},
		"a signature of null":   {[]any{nil}, "dsseEnvelope", "signatures"},
		"an empty signature":    {[]any{map[string]any{"sig": ""}}, "dsseEnvelope", "signatures"},
		"a thousand signatures": {bytesOf(1000), "dsseEnvelope", "signatures"},
		"a message beside":      {map[string]any{"signature": "AA=="}, "messageSignature"},
		"another media type":    {"application/vnd.dev.sigstore.bundle+json;version=9", "mediaType"},
		"no media type":         {nil, "mediaType"},
	} {
		for rule, by := range signers {
			cases[rule+": "+name+" in a bundle"] = signedCase{rule: rule, only: bundles, want: broken(rule), sign: func(on subject) {
				on.sign(mark{by: by, witness: registrytest.Witness{Log: s.authority, Timestamp: s.authority}, bundle: registrytest.BundleOptions{
					Mutate: func(made []byte) []byte { return replaced(on.t, made, path[0], path[1:]...) },
				}})
			}}
		}
	}
	s.run(t, cases)
}

// bytesOf are signatures that are none.
func bytesOf(n int) (list []any) {
	for range n {
		list = append(list, map[string]any{"sig": "AAAA"})
	}
	return list
}

// replaced puts a value at a path of names and indices into JSON; nil takes away what is there.
func replaced(t *testing.T, text []byte, value any, path ...any) []byte {
	t.Helper()
	var document any
	must(t, json.Unmarshal(text, &document))
	at := document
	for _, step := range path[:len(path)-1] {
		switch step := step.(type) {
		case string:
			at = at.(map[string]any)[step]
		case int:
			at = at.([]any)[step]
		}
	}
	last := path[len(path)-1].(string)
	if value == nil {
		delete(at.(map[string]any), last)
	} else {
		at.(map[string]any)[last] = value
	}
	return encode(t, document)
}
