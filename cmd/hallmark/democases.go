package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// demoCase is a document of demo/cases.yaml.
type demoCase struct {
	Title        string
	Operation    string
	SubResource  string `yaml:"subresource"`
	RegistryDown bool   `yaml:"registryDown"`
	Object, Old  map[string]any
}

// demoCases reads the embedded workspaces.
func demoCases() ([]demoCase, error) {
	text, err := demoFiles.ReadFile("demo/cases.yaml")
	if err != nil {
		return nil, err
	}
	var cases []demoCase
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var c demoCase
		err := decoder.Decode(&c)
		if errors.Is(err, io.EOF) {
			return cases, nil
		}
		if err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
}

// show sends one workspace and prints what came back.
func (d *demo) show(ctx context.Context, number int, c demoCase) error {
	if c.RegistryDown {
		if err := d.registry.Close(); err != nil {
			return err
		}
	}
	object, err := json.Marshal(c.Object)
	if err != nil {
		return err
	}
	request := servertest.Object{Operation: c.Operation, SubResource: c.SubResource, JSON: object}
	if c.Old != nil {
		if request.Old, err = json.Marshal(c.Old); err != nil {
			return err
		}
	}
	answer, err := d.client.Admit(ctx, request)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\n%d. %s\n", number, c.Title)
	if answer.Allowed {
		d.counts["admitted"]++
		if len(answer.Replaced) > 0 {
			d.counts["pinned"]++
			fmt.Fprintln(d.out, "   admitted, pinned:")
		} else {
			fmt.Fprintln(d.out, "   admitted, unchanged (its pods are pinned when they start)")
		}
		for _, p := range answer.Replaced {
			fmt.Fprintf(d.out, "     %s\n       = %s\n", p.Pointer, p.Value)
		}
	} else {
		if answer.Code == 503 {
			d.counts["undecided"]++
		} else {
			d.counts["denied"]++
		}
		fmt.Fprintf(d.out, "   rejected (%d %s):\n", answer.Code, answer.Reason)
		for line := range strings.SplitSeq(answer.Message, "\n") {
			fmt.Fprintln(d.out, "     "+line)
		}
	}
	for _, warning := range answer.Warnings {
		fmt.Fprintln(d.out, "   warning: "+warning)
	}
	return nil
}
