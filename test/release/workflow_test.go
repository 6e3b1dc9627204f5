package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var pinned = regexp.MustCompile(`^\s*(- )?uses: [a-z0-9-]+/[a-z0-9-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)

// TestWorkflows: actions are named by commit, with their version for people; no job has rights that it does not name, and no
// checkout leaves its token behind.
func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob("../../.github/workflows/*.yml")
	must(t, err)
	if len(files) < 3 {
		t.Fatalf("found only %q", files)
	}
	commits := map[string]string{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		must(t, err)
		for line := range strings.Lines(string(text)) {
			line = strings.TrimRight(line, "\n")
			if !strings.Contains(line, "uses:") {
				continue
			}
			if !pinned.MatchString(line) {
				t.Errorf("%s: %q is not pinned by a commit with its version behind it", name, line)
				continue
			}
			action, commit, _ := strings.Cut(strings.TrimSpace(line), "@")
			action = action[strings.LastIndex(action, " ")+1:]
			if before, ok := commits[action]; ok && before != commit {
				t.Errorf("%s: %s is %s here and %s elsewhere", name, action, commit, before)
			}
			commits[action] = commit
		}
		var workflow struct {
			Permissions map[string]string
			Jobs        map[string]struct {
				Permissions map[string]string
				Timeout     int `yaml:"timeout-minutes"`
				Steps       []struct {
					Uses string
					Run  string
					With map[string]any
				}
			}
		}
		must(t, yaml.Unmarshal(text, &workflow))
		if workflow.Permissions == nil || len(workflow.Permissions) > 0 {
			t.Errorf("%s: permissions %v, want none for the jobs to begin with", name, workflow.Permissions)
		}
		for id, job := range workflow.Jobs {
			if len(job.Permissions) == 0 || job.Timeout == 0 {
				t.Errorf("%s: job %s names no permissions, or no time-out", name, id)
			}
			for _, step := range job.Steps {
				if strings.HasPrefix(step.Uses, "actions/checkout@") && step.With["persist-credentials"] != false {
					t.Errorf("%s: job %s leaves the token of its checkout behind; persist-credentials: false", name, id)
				}
				if strings.Contains(step.Run, "${{") {
					t.Errorf("%s: job %s puts an expression into a script; give it as env", name, id)
				}
			}
		}
	}
}
