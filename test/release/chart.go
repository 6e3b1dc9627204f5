package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
)

// A stamp is what a chart is told of the release that it belongs to.
type stamp struct {
	version            string // of the release, as v1.2.3
	repository, digest string // of the image
	date               time.Time
}

var semantic = regexp.MustCompile(`^v(\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?)$`)

// chartVersion is the version of a release as Helm has it. What is no release becomes one before all of them.
func (s stamp) chartVersion() string {
	if found := semantic.FindStringSubmatch(s.version); found != nil {
		return found[1]
	}
	return "0.0.0-g" + regexp.MustCompile(`[^0-9A-Za-z-]+`).ReplaceAllString(s.version, "-")
}

// packChart packs a chart as `helm package` does, but for the date in it: the same chart gives the same bytes. It gives the name
// of the file and the content.
func packChart(dir string, s stamp) (packed file, err error) {
	loaded, err := loader.LoadDir(dir)
	if err != nil {
		return file{}, fmt.Errorf("read the chart %s: %w", dir, err)
	}
	if len(loaded.Dependencies()) > 0 {
		return file{}, fmt.Errorf("the chart %s has charts in it, which this does not pack", dir)
	}
	files, err := stampedFiles(loaded, s)
	if err != nil {
		return file{}, fmt.Errorf("stamp the chart %s: %w", dir, err)
	}
	var out bytes.Buffer
	if err := writeTarGz(&out, files, s.date); err != nil {
		return file{}, fmt.Errorf("pack the chart: %w", err)
	}
	again, err := loader.LoadArchive(bytes.NewReader(out.Bytes()))
	if err == nil {
		err = again.Validate()
	}
	if err != nil {
		return file{}, fmt.Errorf("helm cannot read the packed chart: %w", err)
	}
	return file{loaded.Name() + "-" + s.chartVersion() + ".tgz", out.Bytes()}, nil
}

// stampedFiles gives the files of a chart, Chart.yaml first as readers of archives expect it.
func stampedFiles(loaded *chart.Chart, s stamp) (files []file, err error) {
	for _, raw := range loaded.Raw {
		f := file{loaded.Name() + "/" + raw.Name, raw.Data}
		switch raw.Name {
		case "Chart.yaml":
			f.content, err = setScalars(raw.Data, map[string]string{"version": s.chartVersion(), "appVersion": s.version})
		case "values.yaml":
			f.content, err = setScalars(raw.Data, map[string]string{"image.repository": s.repository, "image.digest": s.digest})
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", raw.Name, err)
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b file) int {
		if first := loaded.Name() + "/Chart.yaml"; a.name == first || b.name == first {
			return map[bool]int{true: -1, false: 1}[a.name == first]
		}
		return strings.Compare(a.name, b.name)
	})
	return files, nil
}

// setScalars replaces values of a YAML file where they stand, so that everything else stays as it is, comments too.
func setScalars(text []byte, values map[string]string) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	if len(document.Content) == 0 {
		return nil, errors.New("it is empty")
	}
	lines := strings.SplitAfter(string(text), "\n")
	for path, value := range values {
		node := document.Content[0]
		for part := range strings.SplitSeq(path, ".") {
			if node = member(node, part); node == nil {
				return nil, fmt.Errorf("it has no %s to stamp", path)
			}
		}
		if node.Kind != yaml.ScalarNode || node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 || node.Column == 0 {
			return nil, fmt.Errorf("line %d: %s is not a text on one line", node.Line, path)
		}
		line := lines[node.Line-1]
		begin := node.Column - 1
		end := begin + len(node.Value)
		if node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			end += 2
		}
		if end > len(line) {
			return nil, fmt.Errorf("line %d: %s cannot be replaced where it stands", node.Line, path)
		}
		lines[node.Line-1] = line[:begin] + fmt.Sprintf("%q", value) + line[end:]
	}
	return []byte(strings.Join(lines, "")), nil
}

// member is the value of a key, nil for none.
func member(of *yaml.Node, key string) *yaml.Node {
	for i := 0; of.Kind == yaml.MappingNode && i+1 < len(of.Content); i += 2 {
		if of.Content[i].Value == key {
			return of.Content[i+1]
		}
	}
	return nil
}
