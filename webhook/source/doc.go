// Package source reads what would be sent to a cluster out of files: Kubernetes objects in YAML and JSON as people and
// tools write them, and AdmissionReviews as an API server sends them. Of each it makes the request that a Reviewer
// judges, and remembers the line on which everything stands, so that a finding can be shown where it was written.
//
// Find turns paths into files. Read takes a file apart: into documents, Lists into their items, and those that have no
// images are only counted. A document that cannot be read is a Problem with its line, and never hides the next one.
//
// YAML means what it means to kubectl: it is turned into JSON by the same library, but a name that stands twice is
// refused. JSON goes on byte for byte. What is bounded: a file by MaxBytes, aliases and nesting by the libraries.
package source
