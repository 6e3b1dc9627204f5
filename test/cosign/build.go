// Package cosign builds the cosign programs (github.com/sigstore/cosign): what they sign is what the product has to verify,
// whatever the other tests take for a signature. The modules v2 and v3 beside this file pin one each, since what one is made
// of would change the other.
package cosign

import (
	"context"
	"io"
	"path/filepath"

	"github.com/hallmark-admission/hallmark/test/pinned"
)

// CacheVariable names the environment variable that moves the cache.
const CacheVariable = "HALLMARK_COSIGN_CACHE"

// Programs are the paths of the cosign programs.
type Programs struct{ V2, V3 string }

// Build gives the programs, after building those that are absent. It must run inside this module. Progress gets a line when
// a build begins and ends.
func Build(ctx context.Context, progress io.Writer) (Programs, error) {
	cache, err := pinned.CacheDir(CacheVariable, "cosign")
	if err != nil {
		return Programs{}, err
	}
	dir, err := pinned.ModuleDir(ctx, "github.com/hallmark-admission/hallmark/test/cosign")
	if err != nil {
		return Programs{}, err
	}
	program := func(major string) (string, error) {
		return pinned.Program{
			Cache: cache, Dir: filepath.Join(dir, major), Module: "github.com/sigstore/cosign/" + major, Package: "cmd/cosign",
		}.Build(ctx, progress)
	}
	var built Programs
	if built.V2, err = program("v2"); err == nil {
		built.V3, err = program("v3")
	}
	return built, err
}
