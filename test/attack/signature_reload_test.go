package attack

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// served runs a webhook over the fixture while f does, so that a test may start it again.
func (s *signing) served(t *testing.T, f func(), args ...string) {
	t.Helper()
	hook, err := harness.Serve(context.WithoutCancel(t.Context()), binary, s.Fixture, args...)
	must(t, err)
	s.Webhook = hook
	defer func() {
		if err := hook.Stop(); err != nil || t.Failed() {
			t.Errorf("stop: %v; log of the webhook:\n%s", err, hook.Log())
		}
	}()
	f()
}

// fixture has the signing a fixture, and no webhook yet.
func (s *signing) fixture(t *testing.T, by trust) {
	t.Helper()
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{Referrers: true}, func(text string) string {
		return s.trusting(text, by)
	})
	must(t, err)
	t.Cleanup(func() { _ = f.Registry.Close() })
	s.world = world{Fixture: f}
}

// TestTrustReloads (SIG-048): whoever is not trusted any longer is not, though what they signed was proved before.
func TestTrustReloads(t *testing.T) {
	team, teamPEM := newSigner(t)
	_, otherPEM := newSigner(t)
	keyFile := filepath.Join(t.TempDir(), "team.pub")
	must(t, os.WriteFile(keyFile, []byte(teamPEM), 0o600))
	by := trust{
		signers: fmt.Sprintf("  team: {keyFile: %q}\n", keyFile) + releaseSigner("release", ""),
		signatures: `  - {match: ["HOST/golden/team/**"], anyOf: [team]}
  - {match: ["HOST/golden/release/**"], anyOf: [release]}
`,
	}
	s := newSigning(t, registrytest.Config{}, by)
	subjects := map[string]subject{}
	for _, layout := range []string{layers, bundles} {
		subjects["team/"+layout] = s.subject(t, "golden/team/"+layout, layout)
		subjects["team/"+layout].sign(mark{by: registrytest.Signer{Key: team}})
		subjects["release/"+layout] = s.subject(t, "golden/release/"+layout, layout)
		subjects["release/"+layout].sign(mark{by: s.release()})
	}
	// after has all become as it is wanted, by signer.
	after := func(t *testing.T, what string, wants map[string]want) {
		t.Helper()
		for name, on := range subjects {
			signer, _, _ := strings.Cut(name, "/")
			outcome, told := wants[signer]
			if !told {
				outcome = allowed()
			}
			eventually(t, what+" of "+name, func() bool {
				got := s.admit(t, s.pod(image(on.ref())))
				return got.Allowed == outcome.allowed && (len(outcome.says) == 0 || strings.Contains(got.Message, outcome.says[0]))
			})
			on.t = t
			on.judge(outcome)
		}
	}
	replace := func(t *testing.T, changed trust) {
		t.Helper()
		must(t, s.Write("hallmark.yaml", []byte(s.trusting(s.Configuration(), changed))))
	}
	after(t, "the first admission", nil)
	t.Run("another key in the file", func(t *testing.T) {
		must(t, os.WriteFile(keyFile, []byte(otherPEM), 0o600))
		after(t, "the new key", map[string]want{"team": denied("not signed by team (found: 1 signature by an unknown key)")})
		must(t, os.WriteFile(keyFile, []byte(teamPEM), 0o600))
		after(t, "the old key", nil)
	})
	t.Run("another key for a moment", func(t *testing.T) {
		for i := range 8 {
			must(t, os.WriteFile(keyFile, []byte(teamPEM), 0o600))
			time.Sleep(time.Duration(100+2*i) * time.Millisecond) // about when it is read again
			must(t, os.WriteFile(keyFile, []byte(otherPEM), 0o600))
			time.Sleep(20 * time.Millisecond)
			must(t, os.WriteFile(keyFile, []byte(teamPEM), 0o600))
			time.Sleep(300 * time.Millisecond) // the last change has been seen
			after(t, "the key that stayed", nil)
		}
	})
	t.Run("another root in the file", func(t *testing.T) {
		s.writeRoot(t, s.stranger)
		after(t, "the new root", map[string]want{"release": denied("not signed by release (found: 1 signature by an authority that is not trusted)")})
		s.writeRoot(t, s.authority)
		after(t, "the old root", nil)
	})
	t.Run("a root that is broken", func(t *testing.T) {
		must(t, os.WriteFile(s.root, []byte("{"), 0o600))
		eventually(t, "the complaint", func() bool { return strings.Contains(s.Log(), "not in the format of sigstore's trusted_root.json") })
		after(t, "what was in force", nil)
		s.writeRoot(t, s.authority)
	})
	t.Run("another identity", func(t *testing.T) {
		changed := by
		changed.signers = strings.Replace(by.signers, `corp/.*`, `corp2/.*`, 1)
		replace(t, changed)
		after(t, "the new identity", map[string]want{"release": denied(`not signed by release (found: identity "https://github.com/corp/images/`)})
	})
	t.Run("a demand", func(t *testing.T) {
		changed := by
		changed.signers = strings.Replace(by.signers, "trustedRoot: ROOT", "trustedRoot: ROOT, timestamp: required", 1)
		replace(t, changed)
		after(t, "the demand", map[string]want{"release": denied("not signed by release (found: 1 signature without a timestamp)")})
	})
	t.Run("an expired key", func(t *testing.T) {
		changed := by
		changed.signers = strings.Replace(by.signers, "keyFile:", "notAfter: 2026-01-01, keyFile:", 1)
		replace(t, changed)
		after(t, "the end of the key", map[string]want{"team": denied("not signed by team (found: right key, signed or looked at after its time ended on 2026-01-01)")})
	})
	t.Run("a key that expires", func(t *testing.T) {
		changed := by
		end := time.Now().Add(6 * time.Second).UTC().Format(time.RFC3339)
		changed.signers = strings.Replace(by.signers, "keyFile:", "notAfter: "+end+", keyFile:", 1)
		replace(t, changed)
		after(t, "the last seconds of the key", nil)
		after(t, "the end of the key", map[string]want{"team": denied("not signed by team (found: right key, signed or looked at after its time ended on ")})
	})
	t.Run("a signer who is gone", func(t *testing.T) {
		changed := by
		changed.signers = releaseSigner("release", "")
		changed.signatures = strings.Replace(by.signatures, "anyOf: [team]", "anyOf: [release]", 1)
		replace(t, changed)
		after(t, "the end of the signer", map[string]want{"team": denied("not signed by release (found: 1 signature by an unknown key)")})
	})
	replace(t, by)
	after(t, "what was at first", nil)
}

// TestEnvironmentIsIgnored (SIG-046): what has cosign look elsewhere, believe others or ask a network means nothing here.
func TestEnvironmentIsIgnored(t *testing.T) {
	proxy, spy := spyProxy(t), hostile(t, harness.HostileConfig{})
	s := newAuthority(t)
	by := trust{signers: releaseSigner("release", ""), signatures: `  - {match: ["HOST/golden/key/**"], anyOf: [ci]}
  - {match: ["HOST/golden/release/**"], anyOf: [release]}
`}
	s.fixture(t, by)
	foreign, err := s.stranger.TrustedRootJSON()
	must(t, err)
	file := filepath.Join(t.TempDir(), "root.json")
	must(t, os.WriteFile(file, foreign, 0o600))
	elsewhere := "https://" + spy.Host()
	for name, value := range map[string]string{
		"COSIGN_REPOSITORY": s.Ref("golden/elsewhere"), "COSIGN_EXPERIMENTAL": "1", "COSIGN_DOCKER_MEDIA_TYPES": "1", "COSIGN_MAX_ATTACHMENT_SIZE": "1B",
		"SIGSTORE_ROOT_FILE": file, "SIGSTORE_REKOR_PUBLIC_KEY": file, "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE": file, "SIGSTORE_TSA_CERTIFICATE_FILE": file,
		"SIGSTORE_TRUSTED_ROOT": file, "SIGSTORE_REKOR_URL": elsewhere, "REKOR_URL": elsewhere, "FULCIO_URL": elsewhere, "SIGSTORE_NO_CACHE": "true",
		"TUF_ROOT": filepath.Dir(file), "TUF_MIRROR": elsewhere, "TUF_ROOT_JSON": file, "SIGSTORE_ID_TOKEN": "x", "VAULT_ADDR": elsewhere, "VAULT_TOKEN": "x",
		"DOCKER_CONFIG": filepath.Dir(file), "REGISTRY_AUTH_FILE": file,
	} {
		t.Setenv(name, value)
	}
	s.served(t, func() {
		for _, layout := range []string{layers, bundles} {
			on := s.subject(t, "golden/key/elsewhere"+layout, layout)
			away := on
			away.repository = "golden/elsewhere"
			moved, err := s.Registry.Manifest(t.Context(), on.repository, on.digest)
			must(t, err)
			_, err = s.Registry.PushManifest(t.Context(), away.repository, "", moved)
			must(t, err)
			away.sign(mark{by: registrytest.Signer{Key: s.Key}, names: s.Ref(on.repository)})
			on.judge(denied("not signed by ci (no signature found)"))
			on.sign(mark{by: registrytest.Signer{Key: s.Key}})
			on.judge(allowed())

			foreign := s.subject(t, "golden/release/foreign"+layout, layout)
			foreign.sign(mark{by: registrytest.Signer{Keyless: s.stranger, Certificate: s.release().Certificate}})
			foreign.judge(denied("not signed by release (found: 1 signature by an authority that is not trusted)"))
			foreign.sign(mark{by: s.release()})
			foreign.judge(allowed())
		}
		s.sound(t)
	})
	wantUntouched(t, "what the environment names", spy)
	wantUntouched(t, "the proxy", proxy)
}

// TestSignaturesInAnOutage: what was proved once by a bundle, an identity and an attestation, or was pulled before, is
// admitted by a new process without the registry, and nothing else is.
func TestSignaturesInAnOutage(t *testing.T) {
	for _, way := range []string{"admitted", "pulled"} {
		for _, layout := range []string{layers, bundles} {
			t.Run(way+"/"+layout, func(t *testing.T) {
				cache := filepath.Join(t.TempDir(), "cache")
				s := newAuthority(t)
				s.fixture(t, trust{
					signers: releaseSigner("release", ""), signatures: `  - {match: ["HOST/golden/**"], anyOf: [release]}` + "\n",
					more: fmt.Sprintf("cache: {dir: %q}\n", cache) + attestedBy,
				})
				good := s.subject(t, "golden/good", layout)
				good.sign(mark{by: s.release()})
				built := s.subject(t, "golden/built/good", layers)
				built.sign(mark{by: s.release()})
				built.attest(registrytest.AttestOptions{})
				unattested := s.subject(t, "golden/built/unattested", layout)
				unattested.sign(mark{by: s.release()})
				foreign := s.subject(t, "golden/foreign", layout)
				foreign.sign(mark{by: registrytest.Signer{Keyless: s.stranger, Certificate: s.release().Certificate}})
				later := s.subject(t, "golden/later", layout)
				later.sign(mark{by: s.release()})
				if way == "admitted" {
					s.served(t, func() {
						good.judge(allowed())
						built.judge(allowed())
						unattested.judge(denied("no attestation"))
						foreign.judge(denied("not signed by release"))
					})
				} else {
					out, err := s.pull(t, cache, good.ref(), built.ref())
					if err != nil || !strings.Contains(out, good.digest) {
						t.Fatalf("pull: %v\n%s", err, out)
					}
					if out, err := s.pull(t, cache, unattested.ref()); err == nil {
						t.Errorf("pull of what is not attested: %v\n%s", err, out)
					}
					if out, err := s.pull(t, cache, foreign.ref()); err == nil || !strings.Contains(out, "is not signed as the configuration demands") {
						t.Errorf("pull of what a stranger signed: %v\n%s", err, out)
					}
				}
				must(t, s.Registry.Close())
				for range 2 {
					s.served(t, func() {
						good.judge(allowed())
						built.judge(allowed())
						for _, on := range []subject{unattested, foreign, later} {
							got := s.admit(t, s.pod(image(on.ref())))
							if got.Allowed {
								t.Errorf("%s was allowed", on.repository)
							}
						}
						later.judge(want{code: 503, says: []string{"could not be checked"}, without: []string{"not signed"}})
					})
				}
				s.writeRoot(t, s.stranger)
				s.served(t, func() {
					if s.admit(t, s.pod(image(good.ref()))).Allowed {
						t.Error("what was proved under another root was allowed")
					}
				})
			})
		}
	}
}

// pull runs "hallmark image pull".
func (s *signing) pull(t *testing.T, cache string, images ...string) (string, error) {
	t.Helper()
	args := append([]string{"image", "pull", "--config", filepath.Join(s.Dir, "hallmark.yaml"), "--dir", cache}, images...)
	out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
	return string(out), err
}

// ready says whether the webhook would be sent requests.
func (w world) ready(t *testing.T) bool {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.MetricsURL+"/readyz", nil)
	must(t, err)
	status, _, err := w.Client.Do(request)
	return err == nil && status == http.StatusOK
}
