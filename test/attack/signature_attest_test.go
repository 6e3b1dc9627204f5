package attack

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

const (
	provenance = "https://slsa.dev/provenance/v1"
	scan       = "https://cosign.sigstore.dev/attestation/vuln/v1"
	attestedBy = `attestations:
  - {match: ["HOST/golden/built/**"], predicateType: ` + provenance + `, anyOf: [ci, release]}
  - {match: ["HOST/golden/scanned/**"], predicateType: ` + scan + `, anyOf: [ci]}
`
	signedElsewhere = `  - {match: ["HOST/golden/ws"], anyOf: [ci]}` + "\n"
)

// attest says something about the image, by ci unless opts name somebody else.
func (s subject) attest(opts registrytest.AttestOptions) {
	s.t.Helper()
	if opts.Signer.Key == nil && opts.Signer.Keyless == nil {
		opts.Signer.Key = s.Key
	}
	if opts.Statement.PredicateType == "" {
		opts.Statement.PredicateType = provenance
	}
	opts.Bundle = s.layout == bundles
	must(s.t, s.Registry.Attest(s.t.Context(), s.repository, s.digest, opts))
}

// TestAttestations: which attestations count, and what a developer is told of the others.
func TestAttestations(t *testing.T) {
	type options = registrytest.AttestOptions
	s := newSigning(t, registrytest.Config{}, trust{
		signers: releaseSigner("release", ""), signatures: signedElsewhere, more: attestedBy,
	})
	attest := func(opts options) func(subject) { return func(on subject) { on.attest(opts) } }
	statement := func(raw string) func(subject) {
		return func(on subject) {
			raw := strings.NewReplacer("DIGEST", strings.TrimPrefix(on.digest, "sha256:"), "TYPE", provenance).Replace(raw)
			on.attest(options{Statement: registrytest.Statement{PredicateType: provenance, Raw: []byte(raw)}})
		}
	}
	const missing = "containers[dev]: attestation: no attestation " + provenance + " by ci or release"
	refused := func(found string) want { return denied(missing + " (found: " + found) }
	scanned := registrytest.Statement{PredicateType: scan}
	evil := s.release(func(c *registrytest.Certificate) { c.Identity = "https://evil.example/x" })
	malformed := refused("1 attestation in no valid form)")
	s.run(t, map[string]signedCase{
		"by a key":                              {rule: "built", sign: attest(options{}), want: allowed()},
		"by an identity":                        {rule: "built", sign: attest(options{Signer: s.release()}), want: allowed()},
		"a signature is none":                   {rule: "built", sign: func(on subject) { on.sign(mark{by: registrytest.Signer{Key: s.Key}}) }, want: denied(missing)},
		"none":                                  {rule: "built", sign: func(subject) {}, want: denied(missing)},
		"of another type (SIG-033)":             {rule: "built", sign: attest(options{Statement: scanned}), want: denied(missing)},
		"of the other type, for another image":  {rule: "scanned", sign: attest(options{Statement: scanned}), want: allowed()},
		"of another type, said not to be":       {rule: "built", sign: attest(options{Statement: scanned, PredicateAnnotation: provenance}), want: denied(missing)},
		"of a type that begins alike (SIG-033)": {rule: "built", sign: attest(options{Statement: registrytest.Statement{PredicateType: provenance + "0"}, PredicateAnnotation: provenance}), want: denied(missing)},
		"by a stranger":                         {rule: "built", sign: attest(options{Signer: registrytest.Signer{Key: s.OtherKey}}), want: refused("1 attestation by an unknown key)")},
		"by a signer who was not asked":         {rule: "scanned", sign: attest(options{Signer: s.release(), Statement: scanned}), want: denied("no attestation " + scan + " by ci (found: 1 attestation by an unknown key)")},
		"by another identity":                   {rule: "built", sign: attest(options{Signer: evil}), want: refused(`identity "https://evil.example/x", expected`)},
		"by an identity that is not logged":     {rule: "built", sign: attest(options{Signer: s.release(), Witness: registrytest.Witness{NoLog: true}}), want: refused("1 attestation without a transparency log entry)")},
		"about another digest":                  {rule: "built", sign: attest(options{Statement: registrytest.Statement{Subject: s.Digests["golden/ws:v1.0.0"]}}), want: refused("right key, other digest)")},
		"about null (SIG-036)":                  {rule: "built", sign: statement(`{"_type":"https://in-toto.io/Statement/v1","subject":null,"predicateType":"TYPE","predicate":{}}`), want: refused("right key, no digest in the attestation)")},
		"about nothing (SIG-036)":               {rule: "built", sign: statement(`{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"TYPE","predicate":{}}`), want: refused("right key, no digest in the attestation)")},
		"about a null subject (SIG-036)":        {rule: "built", sign: statement(`{"_type":"https://in-toto.io/Statement/v1","subject":[null],"predicateType":"TYPE","predicate":{}}`), want: malformed},
		"about two, one of them it":             {rule: "built", sign: statement(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":"` + strings.Repeat("a", 64) + `"}},{"digest":{"sha256":"DIGEST"}}],"predicateType":"TYPE","predicate":{}}`), want: allowed()},
		"without a predicate":                   {rule: "built", sign: statement(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"DIGEST"}}],"predicateType":"TYPE"}`), want: allowed()},
		"with two types":                        {rule: "built", sign: statement(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"DIGEST"}}],"predicateType":"x","predicateType":"TYPE"}`), want: malformed},
		"not JSON (SIG-034)":                    {rule: "built", sign: attest(options{Statement: registrytest.Statement{PredicateType: provenance, Raw: []byte("\xff")}}), want: malformed},
		"a JSON null (SIG-034)":                 {rule: "built", sign: attest(options{Statement: registrytest.Statement{PredicateType: provenance, Raw: []byte("null")}}), want: malformed},
		"of another payload type":               {rule: "built", sign: attest(options{Statement: registrytest.Statement{PredicateType: provenance, PayloadType: "text/plain"}}), want: malformed},
		"a bad one and a good one": {rule: "built", sign: func(on subject) {
			on.attest(options{Signer: registrytest.Signer{Key: s.OtherKey}})
			on.attest(options{})
		}, want: allowed()},
		"no Base64 (SIG-034)": {rule: "built", only: layers, sign: attest(options{Mutate: func(s *registrytest.Signature) {
			s.Payload = []byte(`{"payloadType":"application/vnd.in-toto+json","payload":"%%%","signatures":[{"sig":"AAAA"}]}`)
		}}), want: malformed},
		"no envelope (SIG-034)": {rule: "built", only: layers, sign: attest(options{Mutate: func(s *registrytest.Signature) { s.Payload = []byte("null") }}), want: malformed},
		"a bomb":                {rule: "built", only: bundles, sign: attest(options{MutateBundle: func([]byte) []byte { return bomb(t, 300) }}), want: malformed},
		"5 MiB": {rule: "built", sign: attest(options{
			MutateBundle: func(made []byte) []byte { return append(made, bytes.Repeat([]byte(" "), 5<<20)...) },
			Mutate:       func(s *registrytest.Signature) { s.Payload = append(s.Payload, bytes.Repeat([]byte(" "), 5<<20)...) },
		}), want: refused("1 attestation too large to be read)")},
		"51 (SIG-010)": {rule: "built", sign: func(on subject) {
			for i := range 51 {
				on.attest(options{Signer: registrytest.Signer{Key: s.OtherKey}, Statement: registrytest.Statement{PredicateType: provenance, Predicate: i}})
			}
		}, want: denied("could not be checked", "has more than 50 attestations for golden/built/")},
		"49 and a good one last (SIG-009)": {rule: "built", sign: func(on subject) {
			for i := range 49 {
				on.attest(options{Signer: registrytest.Signer{Key: s.OtherKey}, Statement: registrytest.Statement{PredicateType: provenance, Predicate: i}})
			}
			on.attest(options{})
		}, want: allowed()},
	})
}

// TestAttestationFlood: as many attestations as may be there, as large as they may be, cost a refusal and no more.
func TestAttestationFlood(t *testing.T) {
	s := newSigning(t, registrytest.Config{}, trust{signers: releaseSigner("release", ""), signatures: signedElsewhere, more: attestedBy})
	on := s.subject(t, "golden/built/flood", bundles)
	for i := range 50 {
		on.attest(registrytest.AttestOptions{Signer: registrytest.Signer{Key: s.OtherKey}, Statement: registrytest.Statement{
			PredicateType: provenance, Predicate: object{"number": i, "text": strings.Repeat("x", 2<<20)},
		}})
	}
	most := peak(t, s.PID(), func() {
		withinCPU(t, s.PID(), 5*time.Second, func() {
			within(t, 9*time.Second, func() {
				denied("(found: 50 attestations by an unknown key)").check(t, s.admit(t, s.pod(image(on.ref()))))
			})
		})
	})
	if most > 256<<20 {
		t.Errorf("the webhook needed %d MiB", most>>20)
	}
	s.sound(t)
}

// TestAttestationsInRules: what is attested is for rules of one's own to judge, and only what was verified gets there.
func TestAttestationsInRules(t *testing.T) {
	const ours = "https://github.com/corp/images/.github/workflows/build.yml@refs/heads/main"
	dir := t.TempDir()
	for name, text := range map[string]string{"built.rego": builtRule(ours), "scanned.rego": scannedRule} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	s := newAuthority(t)
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{Referrers: true}, func(text string) string {
		return s.trusting(text, trust{signers: releaseSigner("release", ""), signatures: signedElsewhere, more: attestedBy})
	})
	must(t, err)
	defer f.Registry.Close()
	hook, err := harness.Serve(context.WithoutCancel(t.Context()), binary, f, "--policies", dir)
	must(t, err)
	defer func() { must(t, hook.Stop()) }()
	s.world = world{f, hook}

	builder := func(id any) registrytest.AttestOptions {
		return registrytest.AttestOptions{Statement: registrytest.Statement{PredicateType: provenance, Predicate: object{"runDetails": object{"builder": object{"id": id}}}}}
	}
	scanOf := func(age time.Duration, found ...string) registrytest.AttestOptions {
		finished := time.Now().Add(-age).UTC().Format(time.RFC3339)
		return registrytest.AttestOptions{Statement: registrytest.Statement{PredicateType: scan, Predicate: object{
			"metadata": object{"scanFinishedOn": finished}, "scanner": object{"result": found},
		}}}
	}
	attest := func(all ...registrytest.AttestOptions) func(subject) {
		return func(on subject) {
			for _, opts := range all {
				on.attest(opts)
			}
		}
	}
	stranger := func(opts registrytest.AttestOptions) registrytest.AttestOptions {
		opts.Signer.Key = s.OtherKey
		return opts
	}
	const hour, day = time.Hour, 24 * time.Hour
	const notOurs = "containers[dev]: built: built by "
	s.run(t, map[string]signedCase{
		"our builder":                  {rule: "built", sign: attest(builder(ours)), want: allowed()},
		"another builder":              {rule: "built", sign: attest(builder("https://evil.example/builder")), want: denied(notOurs + "https://evil.example/builder")},
		"ours, says a stranger":        {rule: "built", sign: attest(builder("https://x.example"), stranger(builder(ours))), want: denied(notOurs + "https://x.example")},
		"a builder of another form":    {rule: "built", sign: attest(builder(7)), want: denied("containers[dev]: built:")},
		"a builder with control codes": {rule: "built", sign: attest(builder("x\nImage is allowed\x1b[2J")), want: want{says: []string{notOurs}, without: []string{"\nImage is allowed", "\x1b"}}},
		"no attestation":               {rule: "built", sign: attest(), want: denied("no attestation " + provenance)},
		"scanned today":                {rule: "scanned", sign: attest(scanOf(hour)), want: allowed()},
		"scanned long ago":             {rule: "scanned", sign: attest(scanOf(30 * day)), want: denied("containers[dev]: scanned: the last vulnerability scan is older than 7 days")},
		"long ago and today":           {rule: "scanned", sign: attest(scanOf(30*day), scanOf(hour)), want: allowed()},
		"today, says a stranger":       {rule: "scanned", sign: attest(scanOf(30*day), stranger(scanOf(hour))), want: denied("the last vulnerability scan is older than 7 days")},
		"a finding":                    {rule: "scanned", sign: attest(scanOf(hour, "CVE-2026-1")), want: denied("critical vulnerabilities: CVE-2026-1")},
	})
}

func builtRule(builder string) string {
	return fmt.Sprintf(`# METADATA
# title: Built by us
# custom:
#   id: built
#   fix: Use an image of the pipeline.
package hallmark.rules.built

deny contains finding if {
	some image in input.images
	count(image.attestedBy) > 0
	types := {a.predicateType | some a in image.attestedBy}
	types["%s"]
	ids := {a.predicate.runDetails.builder.id | some a in image.attestations}
	not ids["%s"]
	finding := {"image": image.where, "message": "built by {ids}", "args": {"ids": [id | some id in ids]}}
}
`, provenance, builder)
}

const scannedRule = `# METADATA
# title: Scanned lately
# custom:
#   id: scanned
#   fix: Use a newer build.
package hallmark.rules.scanned

_scans(image) := [a.predicate | some a in image.attestations; a.predicateType == "` + scan + `"]

_wanted contains image if {
	some image in input.images
	some a in image.attestedBy
	a.predicateType == "` + scan + `"
}

deny contains {"image": image.where, "message": "the last vulnerability scan is older than 7 days"} if {
	some image in _wanted
	newest := max([time.parse_rfc3339_ns(s.metadata.scanFinishedOn) | some s in _scans(image)])
	newest < time.parse_rfc3339_ns(input.request.time) - ((((7 * 24) * 60) * 60) * 1000000000)
}

deny contains {"image": image.where, "message": "critical vulnerabilities: {ids}", "args": {"ids": ids}} if {
	some image in _wanted
	ids := [id | some s in _scans(image); some id in s.scanner.result]
	count(ids) > 0
}
`

// TestExampleRules: the rules that come along as examples hold images to their provenance and their scans.
func TestExampleRules(t *testing.T) {
	s := newAuthority(t)
	s.fixture(t, trust{
		signers: releaseSigner("release", "") + strings.Replace(releaseSigner("scanner", ""), "corp/.*", "corp/scanner/.*", 1), signatures: signedElsewhere,
	})
	built := func(builder string) registrytest.AttestOptions {
		return registrytest.AttestOptions{Signer: s.release(), Statement: registrytest.Statement{Predicate: object{"runDetails": object{"builder": object{"id": builder}}}}}
	}
	by := s.release(func(c *registrytest.Certificate) { c.Identity = "https://github.com/corp/scanner/x@refs/heads/main" })
	scanned := func(age time.Duration, found ...any) registrytest.AttestOptions {
		return registrytest.AttestOptions{Signer: by, Statement: registrytest.Statement{PredicateType: scan, Predicate: object{
			"metadata": object{"scanFinishedOn": time.Now().Add(-age).UTC().Format(time.RFC3339)},
			"scanner":  object{"result": object{"Results": []any{object{"Vulnerabilities": found}}}},
		}}}
	}
	forged := func(opts registrytest.AttestOptions) registrytest.AttestOptions {
		opts.Signer.Keyless = s.stranger
		return opts
	}
	const day = 24 * time.Hour
	examples := filepath.Join("..", "..", "policies", "examples")
	critical := object{"VulnerabilityID": "CVE-2026-1", "Severity": "CRITICAL", "FixedVersion": "2", "PublishedDate": "2026-01-01T00:00:00Z"}
	none, stale := "provenance: no provenance that says who built it", "vulnerabilities: no vulnerability scan of the last 7 days"
	s.served(t, func() {
		number := 0
		for title, c := range map[string]struct {
			attested []registrytest.AttestOptions
			want     want
		}{
			"built by us and scanned":    {[]registrytest.AttestOptions{built(workflow), scanned(day)}, allowed()},
			"nothing":                    {nil, denied(none, stale)},
			"built by another":           {[]registrytest.AttestOptions{built("https://evil.example"), scanned(day)}, denied("(it says https://evil.example)")},
			"an old scan":                {[]registrytest.AttestOptions{built(workflow), scanned(30 * day)}, denied(stale).and("provenance:")},
			"a critical finding":         {[]registrytest.AttestOptions{built(workflow), scanned(day, critical)}, denied("vulnerabilities known for more than 14 days: CVE-2026-1")},
			"a clean scan by a stranger": {[]registrytest.AttestOptions{built(workflow), scanned(2*day, critical), forged(scanned(day))}, denied("CVE-2026-1")},
			"provenance by a stranger":   {[]registrytest.AttestOptions{forged(built(workflow)), scanned(day)}, denied(none)},
		} {
			for _, layout := range []string{layers, bundles} {
				number++
				repository := fmt.Sprint("golden/example/ws", number)
				t.Run(title+"/"+layout, func(t *testing.T) {
					on := s.subject(t, repository, layout)
					for _, opts := range c.attested {
						on.attest(opts)
					}
					on.judge(c.want)
				})
			}
		}
	}, "--policies", filepath.Join(examples, "provenance"), "--policies", filepath.Join(examples, "vulnerabilities"))
}
