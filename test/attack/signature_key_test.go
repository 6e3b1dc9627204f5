package attack

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestKeySignatures: which signatures by keys count, and what a developer is told of the others.
func TestKeySignatures(t *testing.T) {
	second, secondPEM := newSigner(t)
	third, thirdPEM := newSigner(t)
	yesterday := time.Now().AddDate(0, 0, -1).UTC().Format(time.DateOnly)
	s := newSigning(t, registrytest.Config{}, trust{
		signers: keySigner("second", secondPEM, "") + keySigner("second-again", secondPEM, "") + keySigner("third", thirdPEM, "") +
			keySigner("logged", thirdPEM, ", trustedRoot: ROOT, transparencyLog: required") +
			keySigner("retired", thirdPEM, ", trustedRoot: ROOT, notAfter: "+yesterday),
		signatures: `  - {match: ["HOST/golden/key/**"], anyOf: [ci]}
  - {match: ["HOST/golden/any/**"], anyOf: [ci], repository: any}
  - {match: ["HOST/golden/named/**"], anyOf: [ci], repository: require}
  - {match: ["HOST/golden/two/**"], anyOf: [ci, second, third], threshold: 2}
  - {match: ["HOST/golden/alias/**"], anyOf: [second, second-again], threshold: 2}
  - {match: ["HOST/golden/logged/**"], anyOf: [logged]}
  - {match: ["HOST/golden/retired/**"], anyOf: [retired]}
`,
		more: `rewrites: [{from: docker.io/corp, to: "HOST/golden"}]` + "\n",
	})
	byCI := registrytest.Signer{Key: s.Key}
	by := func(m mark) func(subject) {
		return func(on subject) {
			if m.by.Key == nil {
				m.by = byCI
			}
			on.sign(m)
		}
	}
	payload := func(format string) func(subject) {
		return func(on subject) {
			text := strings.NewReplacer("DIGEST", on.digest, "NAME", on.Ref(on.repository)).Replace(format)
			on.sign(mark{by: byCI, layer: registrytest.SignOptions{Payload: []byte(text)}})
		}
	}
	statement := func(subjects string) func(subject) {
		return func(on subject) {
			raw := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":%s,"predicateType":%q,"predicate":{}}`,
				subjects, registrytest.SignPredicate)
			on.sign(mark{by: byCI, bundle: registrytest.BundleOptions{Statement: registrytest.Statement{Raw: raw}}})
		}
	}
	const kind = `"type":"cosign container image signature"`
	keep := func(signature *registrytest.Signature) func(*registrytest.Signature) {
		return func(made *registrytest.Signature) { *signature = *made }
	}
	refused := func(found string) want {
		return denied("containers[dev]: signature: not signed by ci (found: " + found)
	}
	none := denied("containers[dev]: signature: not signed by ci (no signature found)")
	named := denied("containers[dev]: signature: not signed by ci (found: right key, no repository in the signature)")
	good := allowed()
	s.run(t, map[string]signedCase{
		"good":                                {rule: "key", sign: by(mark{}), want: good},
		"unsigned (SIG-001)":                  {rule: "key", sign: func(subject) {}, want: none},
		"by a stranger":                       {rule: "key", sign: by(mark{by: registrytest.Signer{Key: s.OtherKey}}), want: refused("1 signature by an unknown key)")},
		"by a signer who was not asked":       {rule: "key", sign: by(mark{by: registrytest.Signer{Key: second}}), want: refused("1 signature by second)")},
		"of another digest (SIG-003)":         {rule: "key", sign: by(mark{of: s.Digests["golden/ws:v1.0.0"]}), want: refused("right key, other digest)")},
		"of another repository":               {rule: "key", sign: by(mark{names: "registry.corp.example/golden/ws"}), want: refused(`right key, other repository "registry.corp.example/golden/ws")`)},
		"of another repository, any will do":  {rule: "any", sign: by(mark{names: "registry.corp.example/golden/ws"}), want: good},
		"of another digest, any will do":      {rule: "any", sign: by(mark{of: s.Digests["golden/ws:v1.0.0"]}), want: refused("right key, other digest)")},
		"that names its repository":           {rule: "named", sign: func(on subject) { on.sign(mark{by: byCI, names: on.Ref(on.repository)}) }, want: good},
		"that need not name one":              {rule: "named", sign: by(mark{}), want: good, bundles: &named},
		"without a digest (SIG-004)":          {rule: "any", only: layers, sign: payload(`{"critical":{"identity":{"docker-reference":"NAME"},"image":{},` + kind + `}}`), want: refused("right key, no digest in the signature)")},
		"with an empty digest (SIG-004)":      {rule: "key", only: layers, sign: payload(`{"critical":{"identity":{"docker-reference":"NAME"},"image":{"docker-manifest-digest":""},` + kind + `}}`), want: refused("right key, no digest")},
		"without a subject (SIG-004)":         {rule: "key", only: bundles, sign: statement("[]"), want: refused("right key, no digest in the signature)")},
		"with a null subject (SIG-036)":       {rule: "key", only: bundles, sign: statement("[null]"), want: refused("1 signature in no valid form)")},
		"with no subject at all (SIG-036)":    {rule: "key", only: bundles, sign: statement("null"), want: refused("right key, no digest in the signature)")},
		"without a repository (SIG-006)":      {rule: "key", only: layers, sign: payload(`{"critical":{"identity":{},"image":{"docker-manifest-digest":"DIGEST"},` + kind + `}}`), want: refused("right key, no repository in the signature)")},
		"without one, any will do (SIG-006)":  {rule: "any", only: layers, sign: payload(`{"critical":{"identity":{},"image":{"docker-manifest-digest":"DIGEST"},` + kind + `}}`), want: good},
		"of another type (SIG-007)":           {rule: "key", only: layers, sign: payload(`{"critical":{"identity":{"docker-reference":"NAME"},"image":{"docker-manifest-digest":"DIGEST"},"type":"atomic container signature"}}`), want: refused("right key, but not a signature of an image)")},
		"of another type, in a bundle":        {rule: "key", only: bundles, sign: by(mark{bundle: registrytest.BundleOptions{Statement: registrytest.Statement{PredicateType: "https://spdx.dev/Document"}}}), want: none},
		"that claims two digests":             {rule: "key", only: layers, sign: payload(`{"critical":{"identity":{"docker-reference":"NAME"},"image":{"docker-manifest-digest":"sha256:aa","docker-manifest-digest":"DIGEST"},` + kind + `}}`), want: refused("right key, unreadable payload)")},
		"of an unparsable payload (SIG-034)":  {rule: "key", only: layers, sign: payload("\xff"), want: refused("right key, unreadable payload)")},
		"of an unparsable payload in bundles": {rule: "key", only: bundles, sign: by(mark{bundle: registrytest.BundleOptions{Statement: registrytest.Statement{Raw: []byte("\xff")}}}), want: refused("1 signature in no valid form)")},
		"whose payload is gone (SIG-012)": {rule: "key", only: layers, sign: func(on subject) {
			on.sign(mark{by: byCI})
			must(on.t, on.Registry.DeleteBlob(on.t.Context(), on.repository, payloadOf(on.t, on.Registry, on.repository, on.digest)))
		}, want: refused("1 signature without its payload)")},
		"without its signature": {rule: "key", only: layers, sign: by(mark{layer: registrytest.SignOptions{Mutate: func(s *registrytest.Signature) { s.Base64 = "" }}}), want: refused("1 signature in no valid form)")},

		"of the origin of a mirror": {rule: "key", sign: func(on subject) {
			on.sign(mark{by: byCI, names: strings.Replace(on.repository, "golden", "docker.io/corp", 1)})
		}, want: good},
		"of the origin of another image":                 {rule: "key", sign: by(mark{names: "docker.io/corp/other"}), want: refused(`right key, other repository "docker.io/corp/other")`)},
		"of the manifest as a file":                      {rule: "key", only: bundles, sign: by(mark{bundle: registrytest.BundleOptions{Message: true}}), want: good},
		"of the manifest, that has to name a repository": {rule: "named", only: bundles, sign: by(mark{bundle: registrytest.BundleOptions{Message: true}}), want: named},
		"of the manifest of another image": {rule: "key", only: bundles, sign: func(on subject) {
			other, err := on.Registry.PushImage(on.t.Context(), registrytest.Image{Repository: on.repository, Tag: "v2.0.0", User: "0"})
			must(on.t, err)
			on.sign(mark{by: byCI, of: other, bundle: registrytest.BundleOptions{Message: true}})
		}, want: refused("1 signature by an unknown key)")},

		"two of three":                {rule: "two", sign: func(on subject) { on.sign(mark{by: byCI}); on.sign(mark{by: registrytest.Signer{Key: third}}) }, want: good},
		"one of three":                {rule: "two", sign: by(mark{}), want: denied("signed by 1 of the 2 signers that it needs from ci, second, third")},
		"one of three, twice":         {rule: "two", sign: func(on subject) { on.sign(mark{by: byCI}); on.sign(mark{by: byCI, names: on.Ref(on.repository)}) }, want: denied("signed by 1 of the 2 signers that it needs from ci, second, third")},
		"one of three and a stranger": {rule: "two", sign: func(on subject) { on.sign(mark{by: byCI}); on.sign(mark{by: registrytest.Signer{Key: s.OtherKey}}) }, want: denied("signed by 1 of the 2 signers", "(found: 1 signature by an unknown key)")},
		"one key under two names":     {rule: "alias", sign: by(mark{by: registrytest.Signer{Key: second}}), want: denied("signed by 1 of the 2 signers that it needs from second, second-again")},
		"one key under two names, twice": {rule: "alias", sign: func(on subject) {
			for _, name := range []string{"", on.Ref(on.repository)} {
				on.sign(mark{by: registrytest.Signer{Key: second}, names: name})
			}
		}, want: denied("signed by 1 of the 2 signers that it needs from second, second-again")},

		"logged":                            {rule: "logged", sign: by(mark{by: registrytest.Signer{Key: third}, witness: registrytest.Witness{Log: s.authority}}), want: good},
		"not logged (SIG-015)":              {rule: "logged", sign: by(mark{by: registrytest.Signer{Key: third}}), want: denied("not signed by logged (found: 1 signature without a transparency log entry)")},
		"logged by a stranger (SIG-016)":    {rule: "logged", sign: by(mark{by: registrytest.Signer{Key: third}, witness: registrytest.Witness{Log: s.stranger}}), want: denied("not signed by logged (found: 1 signature whose transparency log entry does not hold)")},
		"logged with another key (SIG-016)": {rule: "logged", sign: by(mark{by: registrytest.Signer{Key: third}, witness: registrytest.Witness{Log: s.authority, LogByUnknownKey: true}}), want: denied("not signed by logged (found: 1 signature whose transparency log entry does not hold)")},
		"with the entry of another signature (SIG-013)": {rule: "logged", only: layers, sign: func(on subject) {
			var logged registrytest.Signature
			on.sign(mark{by: registrytest.Signer{Key: s.OtherKey}, witness: registrytest.Witness{Log: s.authority}, layer: registrytest.SignOptions{Mutate: keep(&logged)}})
			must(on.t, on.Registry.Delete(on.t.Context(), on.repository, registrytest.SignatureTag(on.digest)))
			on.sign(mark{by: registrytest.Signer{Key: third}, layer: registrytest.SignOptions{Annotations: map[string]string{
				registrytest.BundleAnnotation: logged.Annotations[registrytest.BundleAnnotation],
			}}})
		}, want: denied("not signed by logged (found: 1 signature whose transparency log entry does not hold)")},
		"with the entry of another signature in a bundle (SIG-013)": {rule: "logged", only: bundles, sign: func(on subject) {
			var other []byte
			on.sign(mark{by: registrytest.Signer{Key: s.OtherKey}, witness: registrytest.Witness{Log: s.authority}, of: s.Digests["golden/ws:v1.0.0"],
				bundle: registrytest.BundleOptions{Mutate: func(made []byte) []byte { other = made; return made }}})
			on.sign(mark{by: registrytest.Signer{Key: third}, bundle: registrytest.BundleOptions{Mutate: func(made []byte) []byte {
				return withMember(on.t, made, "verificationMaterial", other)
			}}})
		}, want: denied("not signed by logged (found: 1 signature whose transparency log entry does not hold")},
		"with a certificate of another (SIG-018)": {rule: "key", only: layers, sign: func(on subject) {
			var certified registrytest.Signature
			on.sign(mark{by: s.release(), layer: registrytest.SignOptions{Mutate: keep(&certified)}})
			must(on.t, on.Registry.Delete(on.t.Context(), on.repository, registrytest.SignatureTag(on.digest)))
			on.sign(mark{by: byCI, layer: registrytest.SignOptions{Annotations: map[string]string{
				registrytest.CertificateAnnotation: certified.Annotations[registrytest.CertificateAnnotation],
			}}})
		}, want: refused("right key, but a certificate of another)")},

		"in its time, which is over":      {rule: "retired", sign: by(mark{by: registrytest.Signer{Key: third}, witness: registrytest.Witness{Log: s.authority, At: time.Now().AddDate(0, 0, -3)}}), want: good},
		"logged after its time (SIG-030)": {rule: "retired", sign: by(mark{by: registrytest.Signer{Key: third}, witness: registrytest.Witness{Log: s.authority}}), want: denied("not signed by retired (found: right key, signed or looked at after its time ended on " + yesterday)},
		"stamped after its time (SIG-030)": {rule: "retired", sign: by(mark{by: registrytest.Signer{Key: third}, witness: registrytest.Witness{Timestamp: s.authority}}),
			want: denied("right key, signed or looked at after its time ended on " + yesterday)},
		"at no time that is proved (SIG-030)": {rule: "retired", sign: by(mark{by: registrytest.Signer{Key: third}}), want: denied("right key, signed or looked at after its time ended on " + yesterday)},
	})
}
