package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/hallmark-admission/hallmark/policies"
	"github.com/hallmark-admission/hallmark/webhook/policy"
)

// version is stamped by the Makefile (-ldflags -X); without, it is what the Go tool knows.
var version string

func newVersion(io streams) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit, Go version and the revision of the shipped policies",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			source := policy.Source{}
			if err := source.ReadFS(policies.Files()); err != nil {
				return err
			}
			v, commit, goVersion := buildInfo()
			_, err := fmt.Fprintf(io.out, "hallmark %s\ncommit   %s\ngo       %s\npolicies %s\n",
				v, commit, goVersion, source.Revision(nil))
			return err
		},
	}
}

func buildInfo() (v, commit, goVersion string) {
	v, commit, goVersion = version, "unknown", "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v, commit, goVersion
	}
	goVersion = info.GoVersion
	if v == "" {
		v = info.Main.Version
	}
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			commit = setting.Value
		case setting.Key == "vcs.modified" && setting.Value == "true":
			commit += " (modified)"
		}
	}
	return v, commit, goVersion
}
