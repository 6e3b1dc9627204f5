// Package servertest is the API server's side of an admission: it sends an object to the mutating half of a webhook,
// applies the patch, and sends the result to the validating half, over TLS. Demo, tests and benchmarks use it.
package servertest
