package attack

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestKeylessSignatures: whose certificates count and when, and what a developer is told of the others.
func TestKeylessSignatures(t *testing.T) {
	s := newAuthority(t)
	second, err := registrytest.NewSigstore(registrytest.SigstoreConfig{Domain: "second.test", RekorV2: true})
	must(t, err)
	s.writeRoot(t, s.authority, second)
	s.start(t, registrytest.Config{}, trust{
		signers: releaseSigner("release", "") + releaseSigner("stamped", ", transparencyLog: ignored, timestamp: required") +
			releaseSigner("both", ", timestamp: required") +
			releaseSigner("again", "") + `  branches: {keyless: {issuer: "` + workflowIssuer + `", subjectPattern: "https://github[.]com/corp/x|https://github[.]com/corp/y"}, trustedRoot: ROOT}` + "\n" +
			`  long: {keyless: {issuer: "` + workflowIssuer + `", subject: "` + workflow + `"}, trustedRoot: ROOT}` + "\n" + `  short: {keyless: {issuer: "https://login.corp.example", subject: "release@corp.example"}, trustedRoot: ROOT}` + "\n",
		signatures: `  - {match: ["HOST/golden/release/**"], anyOf: [release]}
  - {match: ["HOST/golden/stamped/**"], anyOf: [stamped]}
  - {match: ["HOST/golden/both/**"], anyOf: [both]}
  - {match: ["HOST/golden/short/**"], anyOf: [short]}
  - {match: ["HOST/golden/long/**"], anyOf: [long]}
  - {match: ["HOST/golden/either/**"], anyOf: [ci, release]}
  - {match: ["HOST/golden/alias/**"], anyOf: [release, again], threshold: 2}
  - {match: ["HOST/golden/branches/**"], anyOf: [branches]}
  - {match: ["HOST/golden/each/**"], anyOf: [ci, release], threshold: 2}
`,
	})
	type certificate = *registrytest.Certificate
	by := func(witness registrytest.Witness, changes ...func(certificate)) func(subject) {
		return func(on subject) { on.sign(mark{by: s.release(changes...), witness: witness}) }
	}
	person := func(identity, issuer string) func(certificate) {
		return func(c certificate) { c.Identity, c.Issuer = identity, issuer }
	}
	const dev, login = "release@corp.example", "https://login.corp.example"
	now, hour := time.Now(), time.Hour
	refused := func(found string) want {
		return denied("containers[dev]: signature: not signed by release (found: " + found)
	}
	v2 := registrytest.Signer{Keyless: second, Certificate: s.release().Certificate}
	outside := "1 signature from outside the time of its certificate)"
	type witness = registrytest.Witness
	s.run(t, map[string]signedCase{
		"good":                                            {rule: "release", sign: by(witness{}), want: allowed()},
		"a person":                                        {rule: "short", sign: by(witness{}, person(dev, login)), want: allowed()},
		"logged in time (SIG-024)":                        {rule: "release", sign: by(witness{At: now.Add(-90 * 24 * hour)}), want: allowed()},
		"unsigned (SIG-001)":                              {rule: "release", sign: func(subject) {}, want: denied("not signed by release (no signature found)")},
		"by a key":                                        {rule: "release", sign: func(on subject) { on.sign(mark{by: registrytest.Signer{Key: s.OtherKey}}) }, want: refused("1 signature by an unknown key)")},
		"by a key that others trust":                      {rule: "release", sign: func(on subject) { on.sign(mark{by: registrytest.Signer{Key: s.Key}}) }, want: refused("1 signature by ci)")},
		"a key or an identity":                            {rule: "either", sign: by(witness{}), want: allowed()},
		"a key and an identity":                           {rule: "each", sign: func(on subject) { by(witness{})(on); on.sign(mark{by: registrytest.Signer{Key: s.Key}}) }, want: allowed()},
		"a key without an identity":                       {rule: "each", sign: func(on subject) { on.sign(mark{by: registrytest.Signer{Key: s.Key}}) }, want: denied("signed by 1 of the 2 signers that it needs from ci, release")},
		"another person (SIG-019)":                        {rule: "short", sign: by(witness{}, person("mallory@corp.example", login)), want: denied(`not signed by short (found: identity "mallory@corp.example", expected release@corp.example)`)},
		"another issuer (SIG-021)":                        {rule: "short", sign: by(witness{}, person(dev, "https://evil.example")), want: denied(`not signed by short (found: identity by issuer "https://evil.example", expected https://login.corp.example)`)},
		"no issuer (SIG-021)":                             {rule: "short", sign: by(witness{}, person(dev, "")), want: denied(`(found: identity by issuer "", expected https://login.corp.example)`)},
		"a longer person":                                 {rule: "short", sign: by(witness{}, person(dev+".evil.example", login)), want: denied(`identity "release@corp.example.evil.example", expected release@corp.example)`)},
		"another repository":                              {rule: "release", sign: by(witness{}, person("https://github.com/evil/x@refs/heads/main", workflowIssuer)), want: refused(`identity "https://github.com/evil/x@refs/heads/...", expected https://github\.com/corp/.*)`)},
		"another's workflow (SIG-019)":                    {rule: "long", sign: by(witness{}, person("https://github.com/evil/images/.github/workflows/build.yml@refs/heads/main", workflowIssuer)), want: denied(`(found: identity "https://github.com/evil/images/`, `", expected https://github.com/corp/images/`)},
		"a longer owner":                                  {rule: "release", sign: by(witness{}, person("https://github.com/corp-evil/x@main", workflowIssuer)), want: refused(`identity "https://github.com/corp-evil/x@main", expected `)},
		"another beginning":                               {rule: "release", sign: by(witness{}, person("https://evil.example/https://github.com/corp/x", workflowIssuer)), want: refused(`identity "https://evil.example/https://`)},
		"a newline in the identity":                       {rule: "release", sign: by(witness{}, func(c certificate) { c.Template = withNewline }), want: refused(`identity "x\ny@corp.example", expected `)},
		"one identity under two names":                    {rule: "alias", sign: by(witness{}), want: denied("signed by 1 of the 2 signers that it needs from release, again")},
		"one of two patterns":                             {rule: "branches", sign: by(witness{}, person("https://github.com/corp/y", workflowIssuer)), want: allowed()},
		"more than the first of two patterns":             {rule: "branches", sign: by(witness{}, person("https://github.com/corp/x-evil", workflowIssuer)), want: denied("not signed by branches (found: identity ")},
		"more than the second of two patterns":            {rule: "branches", sign: by(witness{}, person("https://evil.example/https://github.com/corp/y", workflowIssuer)), want: denied("not signed by branches (found: identity ")},
		"a long identity":                                 {rule: "release", sign: by(witness{}, person("https://github.com/evil/"+strings.Repeat("x", 5000), workflowIssuer)), want: refused(`identity "https://github.com/evil/xxx`)},
		"with the log's entry of another image (SIG-013)": {rule: "release", sign: func(on subject) { s.foreignEntry(on) }, want: refused("1 signature")},
		"not logged (SIG-015)":                            {rule: "release", sign: by(witness{NoLog: true}), want: refused("1 signature without a transparency log entry)")},
		"not logged, but stamped":                         {rule: "release", sign: by(witness{NoLog: true, Timestamp: s.authority}), want: refused("1 signature without a transparency log entry)")},
		"another log (SIG-016)":                           {rule: "release", sign: by(witness{UnknownLog: true}), want: refused("1 signature whose transparency log entry does not hold)")},
		"a forged log (SIG-016)":                          {rule: "release", sign: by(witness{LogByUnknownKey: true}), want: refused("1 signature whose transparency log entry does not hold)")},
		"a stranger's log (SIG-016)":                      {rule: "release", sign: by(witness{Log: s.stranger}), want: refused("1 signature whose transparency log entry does not hold)")},
		"logged too late (SIG-025)":                       {rule: "release", sign: by(witness{LogIntegratedTime: now.Add(hour)}), want: refused(outside)},
		"logged too early (SIG-025)":                      {rule: "release", sign: by(witness{LogIntegratedTime: now.Add(-hour)}), want: refused(outside)},
		"no SCT (SIG-028)":                                {rule: "release", sign: by(witness{}, func(c certificate) { c.NoSCT = true }), want: refused("1 signature whose certificate is in no trusted certificate log)")},
		"another CT log (SIG-028)":                        {rule: "release", sign: by(witness{}, func(c certificate) { c.SCTByUnknownLog = true }), want: refused("1 signature whose certificate is in no trusted certificate log)")},
		"a forged SCT (SIG-028)":                          {rule: "release", sign: by(witness{}, func(c certificate) { c.SCTByUnknownKey = true }), want: refused("1 signature whose certificate is in no trusted certificate log)")},
		"another authority": {rule: "release", sign: func(on subject) {
			on.sign(mark{by: registrytest.Signer{Keyless: s.stranger, Certificate: s.release().Certificate}})
		}, want: refused("1 signature by an authority that is not trusted)")},
		"for servers":                 {rule: "release", sign: by(witness{}, func(c certificate) { c.Template = forServers }), want: refused("1 signature from when its certificate authority had expired or not begun)")},
		"of another digest (SIG-003)": {rule: "release", sign: func(on subject) { on.sign(mark{by: s.release(), of: s.Digests["golden/ws:v1.0.0"]}) }, want: refused("right identity, other digest)")},
		"of another repository":       {rule: "release", sign: func(on subject) { on.sign(mark{by: s.release(), names: "registry.corp.example/x"}) }, want: refused(`right identity, other repository "registry.corp.example/x")`)},

		"in a log's second version, stamped":     {rule: "release", only: bundles, sign: func(on subject) { on.sign(mark{by: v2, witness: witness{Timestamp: second}}) }, want: allowed()},
		"in a log's second version, not stamped": {rule: "release", only: bundles, sign: func(on subject) { on.sign(mark{by: v2}) }, want: refused("1 signature without proof of its time)")},
		"logged without proof of inclusion":      {rule: "release", only: bundles, sign: by(witness{NoProof: true}), want: refused("1 signature")},
		"logged without a promise":               {rule: "release", only: bundles, sign: by(witness{NoPromise: true}), want: refused("1 signature")},

		"stamped":                    {rule: "stamped", sign: by(witness{NoLog: true, Timestamp: s.authority}), want: allowed()},
		"not stamped":                {rule: "stamped", sign: by(witness{}), want: denied("not signed by stamped (found: 1 signature without a timestamp)")},
		"stamped too late (SIG-025)": {rule: "stamped", sign: by(witness{NoLog: true, Timestamp: s.authority, TimestampAt: now.Add(hour)}), want: denied("not signed by stamped (found: " + outside)},
		"stamped by a stranger":      {rule: "stamped", sign: by(witness{NoLog: true, Timestamp: s.stranger}), want: denied("not signed by stamped (found: 1 signature whose timestamp does not hold)")},
		"logged and stamped":         {rule: "both", sign: by(witness{Timestamp: s.authority}), want: allowed()},
		"logged and not stamped":     {rule: "both", sign: by(witness{}), want: denied("not signed by both (found: 1 signature without a timestamp)")},
		"stamped, a trusted certificate first (SIG-031)": {rule: "stamped", sign: func(on subject) { s.confused(on) },
			want: denied("not signed by stamped (found: 1 signature whose timestamp does not hold)")},
	})
	t.Run("a long chain (SIG-027)", func(t *testing.T) {
		chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: bytes.Repeat([]byte{0x30, 0x03, 0x02, 0x01, 0x01}, 200)})
		for name, c := range map[string]struct {
			chain []byte
			by    *registrytest.Sigstore
			want  want
		}{
			"junk":            {bytes.Repeat(chain, 500), s.authority, allowed()},
			"of a stranger":   {bytes.Repeat(chain, 500), s.stranger, refused("1 signature by an authority that is not trusted)")},
			"real, 500 times": {bytes.Repeat(chainOf(t, s.stranger), 250), s.stranger, refused("1 signature by an authority that is not trusted)")},
		} {
			on := s.subject(t, "golden/release/chain-"+strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", ""), layers)
			on.sign(mark{
				by:    registrytest.Signer{Keyless: c.by, Certificate: s.release().Certificate},
				layer: registrytest.SignOptions{Annotations: map[string]string{registrytest.ChainAnnotation: string(c.chain)}},
			})
			withinCPU(t, s.PID(), time.Second, func() { on.judge(c.want) })
		}
	})
	s.sound(t)
}

func withNewline(c *x509.Certificate) { c.URIs, c.EmailAddresses = nil, []string{"x\ny@corp.example"} }

func forServers(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }

// confused stamps a signature by a stranger, and puts the certificate of a trusted authority before the stranger's.
func (s *signing) confused(on subject) {
	on.t.Helper()
	mine, theirs := timestampLeaf(on.t, s.authority), timestampLeaf(on.t, s.stranger)
	token := regexp.MustCompile(`("[Ss]igned(?:RFC3161Timestamp|Timestamp)":\s*")([^"]+)"`)
	swap := func(text []byte) []byte {
		found := token.FindSubmatch(text)
		if found == nil {
			on.t.Fatalf("no timestamp in %s", text)
		}
		der, err := base64.StdEncoding.DecodeString(string(found[2]))
		must(on.t, err)
		changed := insertBefore(on.t, der, theirs, mine)
		if bytes.Equal(changed, der) {
			on.t.Fatal("the timestamp has no certificate of its authority")
		}
		return bytes.Replace(text, found[2], []byte(base64.StdEncoding.EncodeToString(changed)), 1)
	}
	on.sign(mark{
		by: s.release(), witness: registrytest.Witness{NoLog: true, Timestamp: s.stranger},
		layer: registrytest.SignOptions{Mutate: func(made *registrytest.Signature) {
			made.Annotations[registrytest.TimestampAnnotation] = string(swap([]byte(made.Annotations[registrytest.TimestampAnnotation])))
		}},
		bundle: registrytest.BundleOptions{Mutate: swap},
	})
}

// foreignEntry signs with the log's entry of the same workflow's signature of another image.
func (s *signing) foreignEntry(on subject) {
	on.t.Helper()
	other, entry, material := s.subject(on.t, on.repository+"-other", on.layout), "", []byte(nil)
	other.sign(mark{
		by:    s.release(),
		layer: registrytest.SignOptions{Mutate: func(made *registrytest.Signature) { entry = made.Annotations[registrytest.BundleAnnotation] }},
		bundle: registrytest.BundleOptions{Mutate: func(made []byte) []byte {
			var whole struct{ VerificationMaterial map[string]json.RawMessage }
			must(on.t, json.Unmarshal(made, &whole))
			material = whole.VerificationMaterial["tlogEntries"]
			return made
		}},
	})
	on.sign(mark{
		by:    s.release(),
		layer: registrytest.SignOptions{Mutate: func(made *registrytest.Signature) { made.Annotations[registrytest.BundleAnnotation] = entry }},
		bundle: registrytest.BundleOptions{Mutate: func(made []byte) []byte {
			var entries []any
			must(on.t, json.Unmarshal(material, &entries))
			return replaced(on.t, made, entries, "verificationMaterial", "tlogEntries")
		}},
	})
}

// insertBefore puts an element before another one of the same set, wherever that is, and corrects all lengths.
func insertBefore(t *testing.T, der, before, element []byte) []byte {
	t.Helper()
	var out []byte
	for rest := der; len(rest) > 0; {
		var v asn1.RawValue
		next, err := asn1.Unmarshal(rest, &v)
		must(t, err)
		switch {
		case bytes.Equal(v.FullBytes, before):
			out = append(append(out, element...), before...)
		case v.IsCompound && bytes.Contains(v.Bytes, before):
			encoded, err := asn1.Marshal(asn1.RawValue{
				Class: v.Class, Tag: v.Tag, IsCompound: true, Bytes: insertBefore(t, v.Bytes, before, element),
			})
			must(t, err)
			out = append(out, encoded...)
		default:
			out = append(out, v.FullBytes...)
		}
		rest = next
	}
	return out
}

// A certChain is one of a trusted root.
type certChain struct {
	CertChain struct {
		Certificates []struct{ RawBytes []byte }
	}
}

func rootOf(t *testing.T, of *registrytest.Sigstore) (root struct {
	TimestampAuthorities, CertificateAuthorities []certChain
},
) {
	t.Helper()
	text, err := of.TrustedRootJSON()
	must(t, err)
	must(t, json.Unmarshal(text, &root))
	return root
}

func timestampLeaf(t *testing.T, of *registrytest.Sigstore) []byte {
	t.Helper()
	return rootOf(t, of).TimestampAuthorities[0].CertChain.Certificates[0].RawBytes
}

// chainOf are the certificates of an authority as PEM.
func chainOf(t *testing.T, of *registrytest.Sigstore) (chain []byte) {
	t.Helper()
	for _, c := range rootOf(t, of).CertificateAuthorities[0].CertChain.Certificates {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.RawBytes})...)
	}
	return chain
}

// TestTrustMistakes (SIG-022): a configuration that would trust everybody, or nobody, is refused with the place and the
// reason.
func TestTrustMistakes(t *testing.T) {
	s := newAuthority(t)
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	must(t, err)
	defer f.Registry.Close()
	good := "issuer: " + workflowIssuer
	for name, c := range map[string]struct{ signer, says string }{
		"no issuer":           {`{keyless: {subject: x}, trustedRoot: ROOT}`, "signers.release.keyless: an identity needs an issuer and a subject or subjectPattern; an empty one would trust everybody"},
		"no subject":          {`{keyless: {` + good + `}, trustedRoot: ROOT}`, "an identity needs an issuer and a subject"},
		"nothing":             {`{keyless: {}, trustedRoot: ROOT}`, "an identity needs an issuer and a subject"},
		"a pattern of all":    {`{keyless: {` + good + `, subjectPattern: ".*"}, trustedRoot: ROOT}`, "matches everybody"},
		"no root":             {`{keyless: {` + good + `, subject: x}}`, "signers.release.trustedRoot: is missing"},
		"a root that is gone": {`{keyless: {` + good + `, subject: x}, trustedRoot: /does/not/exist}`, "no such file"},
		"both proofs ignored": {`{keyless: {` + good + `, subject: x}, trustedRoot: ROOT, transparencyLog: ignored, timestamp: ignored}`, "do not ignore both"},
		"a private key":       {`{key: "-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"}`, "this is a private key; give the public one"},
		"a threshold of none": {`{keyless: {` + good + `, subject: x}, trustedRoot: ROOT}` + "\nsignatures:\n  - {match: [\"HOST/**\"], anyOf: [release], threshold: 2}\nX:", "want a number from 1 to the 1 signers of anyOf"},
	} {
		t.Run(name, func(t *testing.T) {
			signer, rules, own := strings.Cut(c.signer, "\nsignatures:\n")
			if rules, _, _ = strings.Cut(rules, "X:"); !own {
				rules = "  - {match: [\"HOST/**\"], anyOf: [release]}\n"
			}
			text := s.trusting(f.Configuration(), trust{signers: "  release: " + signer + "\n", signatures: rules})
			must(t, f.Write("hallmark.yaml", []byte(text)))
			out, err := exec.CommandContext(t.Context(), binary, "serve", "--config", filepath.Join(f.Dir, "hallmark.yaml"),
				"--listen", "127.0.0.1:0", "--metrics-listen", "", "--tls-cert", filepath.Join(f.Dir, "tls.crt"),
				"--tls-key", filepath.Join(f.Dir, "tls.key")).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !strings.Contains(string(out), c.says) {
				t.Errorf("got %v, %s\nwant %q", err, out, c.says)
			}
		})
	}
}
