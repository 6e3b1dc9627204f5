// Package signature says which of the configured signers have signed an image, and what they attest of it.
//
//	trust, err := signature.NewTrust(ctx, signature.TrustConfig{
//		Signers: map[string]signature.Signer{"devex-ci": {KeyFile: "/etc/hallmark/devex-ci.pub"}}, Now: time.Now,
//	})
//	verifier, err := signature.New(signature.Config{Trust: trust, Fetch: client}) // *registry.Client
//	signatures, err := verifier.Verify(ctx, ref, []webhook.SignatureRule{{AnyOf: []string{"devex-ci"}, Threshold: 1}})
//
// # Where signatures are
//
// cosign (up to v2) stores the signatures of sha256:<hex> as the manifest tagged sha256-<hex>.sig in the same
// repository: a layer for each, whose content is what was signed ("simple signing": type, digest, repository) and
// whose annotations are the signature and what proves it. Since v3 it stores each as a sigstore bundle in a manifest of
// its own that refers to the image (OCI distribution-spec 1.1). Both layouts are looked into, that which a registry had
// last first, and the other only while somebody is missing (layout.go).
//
// Anyone who can push may put anything there. So
//
//   - what is read is bounded: the number of signatures, and the bytes of the list and of each, which do not share a
//     budget. A huge one cannot use up what the good one needs;
//   - they are judged one by one (search.go). Garbage, a missing payload or a wrong digest are counted as rejected and
//     hide nothing; the search ends when every rule is satisfied;
//   - the bytes are fetched here, annotations are parsed here (entity.go), and only then given to cosign or sigstore-go,
//     on a goroutine of ours: their parsers have panicked where nobody recovers.
//
// # Whose they are
//
// A signer is a key or an identity (signer.go). A key's signature in cosign's layout is verified by cosign; everything
// with a certificate, a log or a timestamp, and every bundle, by sigstore-go, which holds the whole chain against the
// time of signing; an identity's signature in cosign's layout has to convince both. Proofs that a signer does not ask for
// are not read. What a library refuses is told by going through its checks again (explain.go).
//
// A signature counts when it is by a signer that was asked for and says that it is an image signature, for this digest,
// in this repository (claim.go, statement.go). It counts for the digest that it names: which digest may speak for an
// index or for a platform of one is a rule's choice (platforms.go).
//
// # Whom one trusts
//
// Trust holds the signers. Keys and roots in files are loaded with it; those of a KMS or a TUF repository are read behind
// requests and again from time to time (fetched.go). Until they are there, only signers who depend on them are unknown.
// Trust.Hash names all of it, so that proofs can be remembered for exactly as long as it stays.
//
// # What an answer means
//
// webhook.Signatures with nothing valid means that it was looked and none was found: nothing attached at all (Found 0),
// or only signatures that do not count, with the reasons in Rejected. When the registry failed, or a signer was not ready,
// and the answer could have been another one, the error says so. Unsigned and unknown are never confused.
//
// Attestations (attest.go) are verified in the same way. Of those, all of the types that were asked for are read: which of
// several counts is for a policy to say.
//
// # Keys
//
// ECDSA on P-256, P-384 and P-521, RSA (PKCS #1 v1.5) from 2048 bits and Ed25519, each with the hashes that cosign has
// used for them.
package signature
