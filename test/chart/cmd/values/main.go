// Values writes charts/hallmark/README.md from the comments in charts/hallmark/values.yaml: a value is described by the
// comment above it that begins with "-- ".
//
//	go -C test/chart run ./cmd/values
package main

import (
	"fmt"
	"os"

	"github.com/hallmark-admission/hallmark/test/chart/readme"
)

func main() {
	text, err := readme.Of("../../charts/hallmark")
	if err == nil {
		err = os.WriteFile("../../charts/hallmark/README.md", text, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "values:", err)
		os.Exit(1)
	}
}
