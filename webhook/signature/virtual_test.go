package signature_test

import (
	"cmp"
	"crypto"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/signature"
)

const (
	virtualIdentity = "dev@corp.example"
	virtualIssuer   = "https://accounts.corp.example"

	soon = 5 * time.Minute // after a certificate was issued sigstore-go logs what it signs
)

// A virtual world has sigstore-go's own authority, log and timestamps instead of those of package registrytest.
type virtualWorld struct {
	*world
	sigstore *ca.VirtualSigstore
	now      time.Time
}

func newVirtualWorld(t *testing.T) *virtualWorld {
	t.Helper()
	w := &virtualWorld{world: newReferrersWorld(t), now: time.Now()}
	var err error
	w.sigstore, err = ca.NewVirtualSigstore()
	w.must(err)
	w.trust.Signers["dev"] = signature.Signer{
		Keyless:     &signature.Identity{Issuer: virtualIssuer, Subject: virtualIdentity},
		TrustedRoot: w.virtualRoot(w.sigstore),
		SCT:         signature.Ignored, // its certificates have none
	}
	return w
}

// virtualRoot writes the trusted_root.json of an authority, which has its log IDs in hexadecimal digits instead of bytes.
func (w *virtualWorld) virtualRoot(of *ca.VirtualSigstore) string {
	w.t.Helper()
	decoded := func(logs map[string]*root.TransparencyLog) map[string]*root.TransparencyLog {
		for _, log := range logs {
			id, err := hex.DecodeString(string(log.ID))
			w.must(err)
			log.ID, log.SignatureHashFunc = id, crypto.SHA256
		}
		return logs
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, of.FulcioCertificateAuthorities(),
		decoded(of.CTLogs()), of.TimestampingAuthorities(), decoded(of.RekorLogs()))
	w.must(err)
	text, err := trusted.MarshalJSON()
	w.must(err)
	path := filepath.Join(w.t.TempDir(), "trusted_root.json")
	w.must(os.WriteFile(path, text, 0o600))
	return path
}

// attachBundle pushes a bundle without annotations, which prove nothing.
func (w *virtualWorld) attachBundle(body []byte) {
	w.t.Helper()
	_, err := w.registry.AttachReferrer(w.t.Context(), "golden/base", w.digest, registrytest.Referrer{
		ArtifactType: registrytest.BundleMediaType, MediaType: registrytest.BundleMediaType, Content: body,
	})
	w.must(err)
}

// statement is about the world's image.
func (w *virtualWorld) statement(predicateType string) []byte {
	return statement(predicateType, `[{"digest":{"sha256":"`+strings.TrimPrefix(w.digest, "sha256:")+`"}}]`)
}

// A virtualSigner is who makes a statement; the zero value is the signer of the world, who signs the image.
type virtualSigner struct {
	of                          *ca.VirtualSigstore
	identity, issuer, predicate string
}

// attested is a statement that is logged with a proof of inclusion, so long after now.
func (w *virtualWorld) attested(by virtualSigner, after time.Duration) (*ca.TestEntity, error) {
	if by.of == nil {
		by.of = w.sigstore
	}
	statement := w.statement(cmp.Or(by.predicate, registrytest.SignPredicate))
	identity, issuer := cmp.Or(by.identity, virtualIdentity), cmp.Or(by.issuer, virtualIssuer)
	return by.of.AttestAtTime(identity, issuer, statement, w.now.Add(after), true)
}

// manifest is what a signature without a statement is over.
func (w *virtualWorld) manifest() []byte {
	w.t.Helper()
	stored, err := w.registry.Manifest(w.t.Context(), "golden/base", w.digest)
	w.must(err)
	return stored.Body
}

// TestVirtualSigstore: what sigstore-go's own authority signs, logs and stamps.
func TestVirtualSigstore(t *testing.T) {
	tests := map[string]struct {
		entity   func(w *virtualWorld) (*ca.TestEntity, error)
		mutate   func(b *protobundle.Bundle)
		signer   func(w *virtualWorld, s *signature.Signer)
		rejected string // "" counts
	}{
		"statement with a proof of inclusion": {},
		"statement with a promise": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				return w.sigstore.Attest(virtualIdentity, virtualIssuer, w.statement(registrytest.SignPredicate))
			},
		},
		"statement in a log of the second version": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				return w.sigstore.AttestHashedRekordV2(virtualIdentity, virtualIssuer, w.statement(registrytest.SignPredicate))
			},
		},
		"manifest with a promise": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				return w.sigstore.Sign(virtualIdentity, virtualIssuer, w.manifest())
			},
		},
		"log and timestamp required": {
			signer: func(_ *virtualWorld, s *signature.Signer) {
				s.Log, s.Timestamp = signature.Required, signature.Required
			},
		},
		"timestamp alone": {
			mutate: func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil },
			signer: func(_ *virtualWorld, s *signature.Signer) { s.Log, s.Timestamp = signature.Ignored, signature.Required },
		},
		"log alone": {
			mutate: func(b *protobundle.Bundle) { b.VerificationMaterial.TimestampVerificationData = nil },
			signer: func(_ *virtualWorld, s *signature.Signer) { s.Timestamp = signature.Ignored },
		},
		"without a log": {
			mutate:   func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil },
			rejected: "1 signature without a transparency log entry",
		},
		"without a timestamp that is required": {
			mutate:   func(b *protobundle.Bundle) { b.VerificationMaterial.TimestampVerificationData = nil },
			signer:   func(_ *virtualWorld, s *signature.Signer) { s.Timestamp = signature.Required },
			rejected: "1 signature without a timestamp",
		},
		"proof of inclusion of something else": {
			mutate: func(b *protobundle.Bundle) {
				b.VerificationMaterial.TlogEntries[0].InclusionProof.RootHash[0] ^= 1
			},
			rejected: "1 signature whose transparency log entry does not hold",
		},
		"entry of another time than was promised": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				return w.sigstore.Attest(virtualIdentity, virtualIssuer, w.statement(registrytest.SignPredicate))
			},
			mutate:   func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].IntegratedTime-- },
			rejected: "1 signature whose transparency log entry does not hold",
		},
		"logged after the certificate had expired": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				return w.attested(virtualSigner{}, 20*time.Minute)
			},
			rejected: "1 signature from outside the time of its certificate",
		},
		"logged before the certificate began": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				return w.attested(virtualSigner{}, -20*time.Minute)
			},
			rejected: "1 signature from outside the time of its certificate",
		},
		"another identity": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				return w.attested(virtualSigner{identity: "evil@corp.example"}, soon)
			},
			rejected: `identity "evil@corp.example", expected dev@corp.example`,
		},
		"another issuer": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				return w.attested(virtualSigner{issuer: "https://evil.example"}, soon)
			},
			rejected: `identity by issuer "https://evil.example", expected https://accounts.corp.example`,
		},
		"another authority of the same names": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				other, err := ca.NewVirtualSigstore()
				w.must(err)
				return w.attested(virtualSigner{of: other}, soon)
			},
			rejected: "1 signature by an authority that is not trusted",
		},
		"an attestation": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				return w.attested(virtualSigner{predicate: provenance}, soon)
			},
			rejected: "right identity, but not a signature of an image",
		},
		"another manifest": {
			entity: func(w *virtualWorld) (*ca.TestEntity, error) {
				return w.sigstore.Sign(virtualIdentity, virtualIssuer, []byte("another manifest"))
			},
			rejected: "1 signature that does not verify",
		},
		"certificate in no log": {
			signer:   func(_ *virtualWorld, s *signature.Signer) { s.SCT = signature.Required },
			rejected: "1 signature whose certificate is in no trusted certificate log",
		},
	}
	for title, test := range tests {
		t.Run(title, func(t *testing.T) {
			w := newVirtualWorld(t)
			if test.signer != nil {
				signer := w.trust.Signers["dev"]
				test.signer(w, &signer)
				w.trust.Signers["dev"] = signer
			}
			if test.entity == nil {
				test.entity = func(w *virtualWorld) (*ca.TestEntity, error) {
					return w.attested(virtualSigner{}, soon)
				}
			}
			entity, err := test.entity(w)
			w.must(err)
			body := w.bundle(entity)
			if test.mutate != nil {
				var b protobundle.Bundle
				w.must(protojson.Unmarshal(body, &b))
				test.mutate(&b)
				body, err = protojson.Marshal(&b)
				w.must(err)
			}
			w.attachBundle(body)
			got, err := w.verify("dev")
			if test.rejected != "" {
				w.want(got, err, nil, 1, test.rejected)
				return
			}
			w.want(got, err, []string{"dev"}, 1)
		})
	}
}

// TestVirtualAttestation: the same for an attestation, with who made it and when.
func TestVirtualAttestation(t *testing.T) {
	w := newVirtualWorld(t)
	entity, err := w.attested(virtualSigner{predicate: provenance}, soon)
	w.must(err)
	w.attachBundle(w.bundle(entity))
	got, err := w.attestations(webhook.AttestationRule{PredicateType: provenance, AnyOf: []string{"dev"}})
	w.must(err)
	if len(got.Valid) != 1 || got.Found != 1 {
		t.Fatalf("got %+v", got)
	}
	a := got.Valid[0]
	if a.Identity != virtualIdentity || a.Issuer != virtualIssuer || a.Digest != w.digest || string(a.Predicate.JSON) != "{}" {
		t.Errorf("got %+v", a)
	}
	if early := a.At.Sub(w.now); early < -time.Minute || early > time.Minute { // the stamp is earlier than the log's entry
		t.Errorf("it was signed at %s, want about %s", a.At, w.now)
	}
}
