// Package distribution builds CNCF's registry (github.com/distribution/distribution): an honest registry of another make than
// the one that the other tests use. It is a tool of this module.
package distribution

import (
	"context"
	"io"

	"github.com/hallmark-admission/hallmark/test/pinned"
)

// CacheVariable names the environment variable that moves the cache.
const CacheVariable = "HALLMARK_DISTRIBUTION_CACHE"

// Program gives the path of the registry program, after building it if it is absent. It must run inside this module.
// Progress gets a line when a build begins and ends.
func Program(ctx context.Context, progress io.Writer) (string, error) {
	cache, err := pinned.CacheDir(CacheVariable, "distribution")
	if err != nil {
		return "", err
	}
	dir, err := pinned.ModuleDir(ctx, "github.com/hallmark-admission/hallmark/test/distribution")
	if err != nil {
		return "", err
	}
	return pinned.Program{
		Cache: cache, Dir: dir, Module: "github.com/distribution/distribution/v3", Package: "cmd/registry",
	}.Build(ctx, progress)
}
