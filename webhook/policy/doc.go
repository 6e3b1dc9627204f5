// Package policy compiles Rego once and turns facts into findings. It is the only importer of OPA.
//
// A rule is a package data.hallmark.rules.<name>. Load finds all of them, checks them against the schema of the input,
// restricts what they may call (no network, no clock, no environment), and finds out which fetched facts each mentions:
// that decides in which phase it is judged and what is fetched at all. An Engine is one compiled generation; it never
// changes, so a decision that holds one is consistent while the next is being loaded.
//
// Evaluation is shaped for speed: the input is built as an OPA value straight from the typed facts, all rules of a phase
// are one prepared query, the store is read-only and never copied. A rule that fails is judged again by itself, so that
// one broken rule is one finding and not a broken webhook.
package policy
