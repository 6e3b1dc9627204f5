// Package policies holds the rules that Hallmark ships, and the schema of what a rule sees.
//
// A rule is a Rego package data.hallmark.rules.<name> with a set deny (or warn) of findings:
//
//	deny contains {"image": image.where, "message": "…", "fix": "…"} if { some image in input.images; … }
//
// It is found by its path; no list names it. The message may have placeholders in braces, which are filled from "args":
// {"message": "{registry} is not an internal registry", "args": {"registry": image.registry}}. Rules live in
// hallmark/rules/<name>, each with its test.
package policies

import "embed"

//go:embed hallmark/rules/*/*.rego schema/input.json
var files embed.FS

// Files are the shipped rules with their tests, and schema/input.json.
func Files() embed.FS { return files }
