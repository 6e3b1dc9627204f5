package attack

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// TestAttestedInAnOutage: what was proved by attestations in one layout needs no registry after a restart, though the other
// layout has nothing.
func TestAttestedInAnOutage(t *testing.T) {
	for _, api := range []bool{true, false} {
		for _, layout := range []string{layers, bundles} {
			t.Run(fmt.Sprintf("%s/API %v", layout, api), func(t *testing.T) {
				s, cache := newAuthority(t), t.TempDir()
				f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{Referrers: api}, func(text string) string {
					return s.trusting(text, trust{signers: releaseSigner("release", ""), signatures: signedElsewhere,
						more: fmt.Sprintf("cache: {dir: %q}\n", cache) + attestedBy})
				})
				must(t, err)
				t.Cleanup(func() { _ = f.Registry.Close() })
				s.world = world{Fixture: f}
				on := s.subject(t, "golden/built/ws", layout)
				on.attest(registrytest.AttestOptions{})
				s.served(t, func() { on.judge(allowed()) })
				must(t, s.Registry.Close())
				s.served(t, func() { on.judge(allowed()) })
			})
		}
	}
}

// TestFixIsTold: a refusal says what to do, in its first line or in the line of the finding.
func TestFixIsTold(t *testing.T) {
	s := newSigning(t, registrytest.Config{}, trust{signatures: signedAll})
	on := s.subject(t, "golden/key/ws", layers)
	on.judge(denied("not signed by ci (no signature found)", "ask the image's owner to sign"))
}

// TestOtherBranch: identities that begin alike are told apart in the message.
func TestOtherBranch(t *testing.T) {
	s := newSigning(t, registrytest.Config{}, trust{
		signers:    `  release: {keyless: {issuer: "` + workflowIssuer + `", subject: "` + workflow + `"}, trustedRoot: ROOT}` + "\n",
		signatures: `  - {match: ["HOST/golden/release/**"], anyOf: [release]}` + "\n",
	})
	on := s.subject(t, "golden/release/ws", bundles)
	on.sign(mark{by: s.release(func(c *registrytest.Certificate) {
		c.Identity = strings.Replace(workflow, "refs/heads/main", "refs/heads/mallory", 1)
	})})
	on.judge(denied("refs/heads/mallory", "refs/heads/main"))
}
