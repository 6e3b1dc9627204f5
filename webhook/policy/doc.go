// Package policy compiles Rego once and turns facts into findings. It is the only importer of OPA.
//
// A rule is a package data.hallmark.rules.<name>. Load finds all of them, checks them against the schema of the input,
// restricts what they may call (no network, no clock, no environment), and finds out which fetched facts each mentions:
// that decides in which phase it is judged and what is fetched at all. An Engine is one compiled generation; it never
// changes, so a decision that holds one is consistent while the next is being loaded.
//
// Rules are functions of their input, so what they said of one is remembered (memory). The input is written as bytes
// (document), without what no rule in force reads: the workspaces of a template have the same then, whoever opens them.
// The hash of the bytes is asked for first; only an input that nobody remembers becomes an OPA value and is judged, by one
// prepared query for all rules of a phase, over a store that is read-only and never copied. A rule that fails is judged
// again by itself, so that one broken rule is one finding and not a broken webhook.
package policy
