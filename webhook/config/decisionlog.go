package config

import (
	"path/filepath"
	"time"
)

// minLogEvery keeps batches from being single decisions.
const minLogEvery = 100 * time.Millisecond

// ownLabels are set by Hallmark.
func ownLabels() []string { return []string{"app", "id", "version"} }

// decisionLog checks what can be told from the file. Certificates and token are read where they are used.
func (v *validator) decisionLog(d *DecisionLog) {
	if d.URL == "" {
		if d.CA != "" || d.Credentials != "" || len(d.Labels) > 0 || d.Input {
			v.bad("decisionLog.url", "is missing")
		}
		return
	}
	v.url("decisionLog.url", d.URL, "https://logs.corp.example/logs")
	for key, file := range map[string]string{"decisionLog.ca": d.CA, "decisionLog.credentials": d.Credentials} {
		if file != "" && !filepath.IsAbs(file) {
			v.bad(key, "want an absolute path, not %q", file)
		}
	}
	for _, name := range ownLabels() {
		if _, there := d.Labels[name]; there {
			v.bad("decisionLog.labels."+name, "this label is set by Hallmark; give another name")
		}
	}
	if time.Duration(d.Every) < minLogEvery {
		v.bad("decisionLog.every", "want at least %s", minLogEvery)
	}
}
