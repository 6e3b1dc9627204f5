// Package trace sends traces of reviews by OTLP over HTTP. It is the only importer of OpenTelemetry.
//
// It wraps what a review goes through: the handler, which takes the API server's traceparent, the reviewer, and the
// one-method interfaces by which it reads, verifies and judges. So nothing of a decision knows of it, and nothing is
// wrapped while it is off. Which spans are sampled and where they are sent is said by the variables of the OpenTelemetry
// specification.
//
//	mutate or validate       a review, with its outcome
//	├ select                 decode the object, find its images, catalogue them
//	├ judge                  the rules that need nothing fetched
//	├ read, verify, attest   of one image, from the registry or from what is remembered
//	│ └ registry             a request to a registry, below the first of the reviews that wait for it
//	└ judge                  the rules on what was fetched
//
// Attributes hold names: of images, namespaces, kinds, registries, rules' phases. No part of an object is among them.
package trace
