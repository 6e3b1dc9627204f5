// Package evidence remembers what was read and proved, so that an image is read once and not once a pod.
//
// What it remembers is evidence, not verdicts: bytes by digest, what is known of a digest, which signers were proved to
// have signed one. All of it stands in a Store, which outlives configurations; three wrappers use it for one of them:
//
//	Content   around what fetches manifests and blobs
//	Reader    around the webhook.ImageReader
//	Verifier  around the webhook.Verifier
//
// A digest names the same bytes for ever; only what a tag names goes stale. A tag is read again behind a request before
// its time is over. After that it is asked for, and the last answer is used only while the registry fails, for a time,
// and marked as stale. A failure is never remembered as an answer, and neither is a signature that is missing: somebody
// may be about to make it. What refers to a digest, as signatures in bundles do, is treated like what a tag names; but
// it is always asked for, since a new signature has to be seen at once. A proof holds under one hash of the trusted
// keys, so a key that is taken away counts for nothing from the reload on. Everything is bounded in entries and bytes.
//
// Callers that want the same thing at the same time share one request (single-flight). It runs detached from the caller
// that began it, with a deadline of its own, so that one impatient caller cannot fail the others.
package evidence
