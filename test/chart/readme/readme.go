// Package readme makes the README of a chart of the comments in its values.yaml.
package readme

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

const head = `# The chart of Hallmark

Admits developer workspaces only from approved, signed, pinned images: the webhook, its controller, the registration with the
API server, and what stands around them. It needs Kubernetes %s and Helm 3.14 or newer.

    helm install hallmark charts/hallmark -n hallmark-system --create-namespace

gives a working webhook that records and denies nothing. [docs/install.md](../../docs/install.md) goes from there to enforcement,
each step a value.

A change of ` + "`config`, `policies`" + ` or of what ` + "`files`" + ` names is in force a minute later, without a restart, as soon as kubelets
have brought it to the pods. A change of the webhook's arguments or resources is a rolling update, in which no admission is lost.

## Values

<!-- Made from values.yaml: go -C test/chart run ./cmd/values -->

| value | default | |
|---|---|---|
`

// Of gives the README of a chart. A value without a description is an error.
func Of(dir string) ([]byte, error) {
	var meta struct {
		KubeVersion string `yaml:"kubeVersion"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "Chart.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &meta)
	}
	if err != nil {
		return nil, err
	}
	text, err = os.ReadFile(filepath.Join(dir, "values.yaml"))
	if err != nil {
		return nil, err
	}
	var values yaml.Node
	if err := yaml.Unmarshal(text, &values); err != nil {
		return nil, fmt.Errorf("values.yaml: %w", err)
	}
	var out bytes.Buffer
	version, _, _ := strings.Cut(strings.TrimPrefix(meta.KubeVersion, ">="), "-")
	fmt.Fprintf(&out, head, strings.TrimSuffix(version, ".0")+" or newer")
	if err := rows(&out, "", values.Content[0]); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// rows writes a line for each value with a description, and goes into maps that have none.
func rows(out *bytes.Buffer, prefix string, mapping *yaml.Node) error {
	var errs []error
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		path := prefix + key.Value
		about, described := description(key.HeadComment)
		switch {
		case described:
			text, err := compact(value)
			errs = append(errs, err)
			fmt.Fprintf(out, "| `%s` | `%s` | %s |\n", path, text, strings.ReplaceAll(about, "|", `\|`))
		case value.Kind == yaml.MappingNode && len(value.Content) > 0:
			errs = append(errs, rows(out, path+".", value))
		default:
			errs = append(errs, fmt.Errorf("values.yaml:%d: %s has no comment that begins with \"-- \"", key.Line, path))
		}
	}
	return errors.Join(errs...)
}

// description is the part of a comment from the "-- " on.
func description(comment string) (string, bool) {
	var words []string
	found := false
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#"))
		if after, begins := strings.CutPrefix(line, "-- "); begins {
			line, found = after, true
		}
		if found {
			words = append(words, line)
		}
	}
	return strings.Join(words, " "), found
}

// compact is a value on one line.
func compact(value *yaml.Node) (string, error) {
	var decoded any
	if err := value.Decode(&decoded); err != nil {
		return "", err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(decoded)
	return strings.TrimSpace(out.String()), err
}
