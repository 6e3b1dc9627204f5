package cosign

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	developer = "dev@corp.example"
	idp       = "https://accounts.corp.example"
)

// token is an identity token, which nobody here checks.
func token(email string) string {
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	claims := fmt.Sprintf(`{"iss":%q,"sub":%q,"email":%q,"email_verified":true,"aud":"sigstore","iat":%d,"exp":%d}`,
		idp, email, email, time.Now().Unix(), time.Now().Add(time.Hour).Unix())
	return encode(`{"alg":"RS256","typ":"JWT"}`) + "." + encode(claims) + "." + encode("signature")
}

// keylessLayouts are the layouts with the flags for keyless signatures by the services of the stand.
func keylessLayouts(s *stand) []layout {
	flags := []string{"--fulcio-url", s.sigstore, "--rekor-url", s.sigstore, "--timestamp-server-url", s.sigstore + "/stamp"}
	all := layouts()
	v2, bundle, old, v3 := all[0], all[1], all[2], all[3]
	v2.flags = append([]string{"--insecure-skip-verify"}, flags...)
	bundle.flags = append([]string{"--new-bundle-format", "--insecure-skip-verify"}, flags...)
	old.flags = append([]string{"--use-signing-config=false", "--new-bundle-format=false", "--insecure-skip-verify"}, flags...)
	v3.flags = []string{"--signing-config", "keyless.json"}
	return []layout{v2, bundle, old, v3}
}

// keylessConfig has v3 use the services of the stand.
func (d *desk) keylessConfig(s *stand) {
	d.t.Helper()
	from := ",api-version=1,start-time=2024-01-01T00:00:00Z,operator=corp.example"
	d.run(programs.V3, "signing-config", "create", "--out", "keyless.json", "--fulcio=url="+s.sigstore+from,
		"--rekor=url="+s.sigstore+from, "--rekor-config=ANY", "--tsa=url="+s.sigstore+"/stamp"+from, "--tsa-config=ANY",
		"--oidc-provider=url="+s.sigstore+from)
}

// TestKeyless: signatures and attestations by an identity, in a log and stamped.
func TestKeyless(t *testing.T) {
	for name, flags := range registries() {
		t.Run(name, func(t *testing.T) {
			s := startStand(t, flags...)
			d := newDesk(t, s.caFile)
			d.keylessConfig(s)
			dev := trusted{Keyless: &identity{idp, developer}, TrustedRoot: s.trustedRoot, SCT: "ignored"}
			stamped, certified := dev, dev
			stamped.Timestamp, certified.SCT = "required", "required"
			signers := map[string]trusted{"dev": dev, "stamped": stamped, "certified": certified}
			for _, in := range keylessLayouts(s) {
				t.Run(in.name, func(t *testing.T) {
					s, d := s.in(t), d.in(t)
					image := s.push("golden/"+strings.ReplaceAll(in.name, " ", "-"), false)
					run := func(command []string, email string) {
						t.Helper()
						command = append(command, "-y", "--identity-token", token(email))
						d.run(in.program(), slices.Concat(command, in.flags, d.registry, []string{image})...)
					}
					ask := func(signer string) answer {
						by := []rule{{AnyOf: []string{signer}, Threshold: 1}}
						return s.ask(question{Image: image, Signers: signers, Signatures: by})
					}
					run([]string{"sign"}, "evil@corp.example")
					wantUnsigned(t, ask("dev"), `identity "evil@corp.example", expected dev@corp.example`)
					run([]string{"sign"}, developer)
					for _, signer := range []string{"dev", "stamped"} {
						got := ask(signer)
						if valid := got.Signatures.Valid; len(valid) != 1 || valid[0].Signer != signer || valid[0].Identity != developer {
							t.Errorf("asked for %s: got %+v, error %q", signer, got.Signatures, got.Error)
						}
					}
					wantUnsigned(t, ask("certified"), "whose certificate is in no trusted certificate log")
					file := d.write("predicate.json", []byte(approved().predicate))
					run([]string{"attest", "--type", approved().name, "--predicate", file}, developer)
					byDev := []attestationRule{{approved().predicateType, []string{"dev"}}}
					got := s.ask(question{Image: image, Signers: signers, Attestations: byDev})
					wantAttested(t, got, attested{approved(), "dev", 1})
					for _, a := range got.Attestations.Valid {
						if a.Identity != developer {
							t.Errorf("attested by %s, want %s", a.Identity, developer)
						}
					}
				})
			}
		})
	}
}
