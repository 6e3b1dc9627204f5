// Package server speaks AdmissionReview of admission.k8s.io/v1 over TLS.
//
// It owns everything about the wire and nothing of the decision: which requests are reviews at all, how large they may
// be and how long they may take, certificates that change while it runs, probes, metrics, the one log line of a
// decision, and a stop that loses no request. A review is decoded by package webhook, decided by the Reviewer of the
// moment, and encoded here, once.
//
// New binds the listeners and finds every mistake; Run serves until its context ends.
package server
