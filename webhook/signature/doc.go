// Package signature says which of the configured signers have signed an image.
//
//	verifier, err := signature.New(signature.Config{
//		Signers: map[string]signature.Signer{"devex-ci": {KeyFile: "/etc/hallmark/devex-ci.pub"}},
//		Fetch:   client, // *registry.Client
//	})
//	signatures, err := verifier.Verify(ctx, ref, []string{"devex-ci"})
//
// # What a signature is
//
// cosign (up to v2) stores the signatures of sha256:<hex> as the manifest tagged sha256-<hex>.sig in the same
// repository: a layer for each, whose content is what was signed ("simple signing": type, digest, repository) and
// whose annotation is the signature in base64. Anyone who can push may put anything there. So
//
//   - what is read is bounded: the number of layers, and the bytes of the manifest and of each payload, which do not
//     share a budget. A huge layer cannot use up what the good one needs;
//   - layers are judged one by one. Garbage, a missing payload or a wrong digest are counted as rejected and hide
//     nothing; the search ends when every signer that was asked for is found;
//   - the bytes are fetched here and given to cosign's own verification (cosign.VerifyImageSignature) without the
//     other annotations: with a key, certificates and Rekor entries prove nothing, and cosign's parsers of them have
//     panicked on goroutines where nobody recovers.
//
// A signature counts when it verifies with the key of a signer that was asked for and says that it is an image
// signature, for this digest, in this repository (Config.BindIdentity). An image that was copied to a mirror keeps its
// signatures only without BindIdentity, or when it is signed again.
//
// The signature of an index speaks for its platforms, since its digest covers them; the digest of one platform needs a
// signature of its own.
//
// # What an answer means
//
// webhook.Signatures with nothing valid means that it was looked and none was found: no signature manifest at all
// (Found 0), or only signatures that do not count, with the reasons in Rejected. When the registry failed and the
// answer could have been another one, the error says so. Unsigned and unknown are never confused.
//
// # Keys
//
// ECDSA on P-256, P-384 and P-521, RSA (PKCS #1 v1.5) from 2048 bits and Ed25519, each with the hashes that cosign has
// used for them. No transparency log is asked for: who trusts a static key trusts its holder.
package signature
