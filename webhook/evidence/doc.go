// Package evidence remembers what was read and proved, so that an image is read once and not once a pod.
//
// What it remembers is evidence, not verdicts. Three wrappers stand at three places:
//
//	Content   around what fetches manifests and blobs: bytes by digest, checked against it when they came
//	Reader    around the webhook.ImageReader: tag → digest for a short time, and digest → facts
//	Verifier  around the webhook.Verifier: digest → the signers that were proved, under one configuration of trust
//
// A digest names the same bytes for ever, so only what a tag names goes stale. A failure is never remembered, and
// neither is a signature that is missing: somebody may be about to make it. Everything is bounded in entries and bytes.
//
// Callers that want the same thing at the same time share one request (single-flight). It runs detached from the caller
// that began it, with a deadline of its own, so that one impatient caller cannot fail the others.
package evidence
