package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	provenancePredicate = "https://slsa.dev/provenance/v1"
	// buildType says how to read the parameters; SECURITY.md describes it.
	buildType = "https://hallmark.dev/make-release/v1"
	source    = "git+https://github.com/hallmark-admission/hallmark"
)

// A build is what provenance says of how something came to be.
type build struct {
	version, commit string
	binaries        []binary
	certificates    file // in the image
}

// A builder is who has built: a workflow of GitHub, or somebody at a desk.
type builder struct{ id, invocation string }

// newBuilder reads what GitHub tells a workflow of itself. Whoever runs make release can say so, too: what makes it true is the
// signature, by a key that only that workflow has.
func newBuilder(getenv func(string) string) builder {
	server, workflow := getenv("GITHUB_SERVER_URL"), getenv("GITHUB_WORKFLOW_REF")
	if server == "" || workflow == "" {
		return builder{id: "https://hallmark.dev/make-release/local"}
	}
	return builder{
		id:         server + "/" + workflow,
		invocation: server + "/" + getenv("GITHUB_REPOSITORY") + "/actions/runs/" + getenv("GITHUB_RUN_ID") + "/attempts/" + cmp.Or(getenv("GITHUB_RUN_ATTEMPT"), "1"),
	}
}

// predicate is the provenance of all that one run has made (https://slsa.dev/spec/v1.0/provenance).
func (b build) predicate(by builder) ([]byte, error) {
	platforms := []any{}
	for _, one := range b.binaries {
		platforms = append(platforms, one.platform())
	}
	external, err := structpb.NewStruct(map[string]any{
		"source": source, "revision": b.commit, "target": "make release", "version": b.version, "platforms": platforms,
	})
	if err != nil {
		return nil, err
	}
	materials, err := b.materials()
	if err != nil {
		return nil, err
	}
	made := &provenance.Provenance{
		BuildDefinition: &provenance.BuildDefinition{
			BuildType: buildType, ExternalParameters: external, ResolvedDependencies: materials,
		},
		RunDetails: &provenance.RunDetails{Builder: &provenance.Builder{Id: by.id}},
	}
	if by.invocation != "" {
		made.RunDetails.Metadata = &provenance.BuildMetadata{InvocationId: by.invocation}
	}
	if err := made.Validate(); err != nil {
		return nil, fmt.Errorf("the provenance is not valid: %w", err)
	}
	encoded, err := protojson.Marshal(made)
	if err != nil {
		return nil, err
	}
	return stable(encoded)
}

// materials are the commit, the Go toolchain, the CA certificates, and every module that a binary has.
func (b build) materials() ([]*intoto.ResourceDescriptor, error) {
	list := []*intoto.ResourceDescriptor{
		{Uri: source + "@" + b.commit, Digest: map[string]string{"gitCommit": b.commit}},
	}
	if b.certificates.name != "" {
		list = append(list, &intoto.ResourceDescriptor{Name: b.certificates.name, Digest: map[string]string{"sha256": sha256Hex(b.certificates.content)}})
	}
	modules := map[string]*debug.Module{}
	var names []string
	for _, one := range b.binaries {
		names = append(names, golang("stdlib", strings.TrimPrefix(one.info.GoVersion, "go"))[0].Locator)
		for _, m := range one.info.Deps {
			name := golang(m.Path, m.Version)[0].Locator
			names, modules[name] = append(names, name), m
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		material := &intoto.ResourceDescriptor{Uri: name}
		if m := modules[name]; m != nil {
			hash, err := dirHash(m.Sum)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			material.Digest = map[string]string{"dirHash": hash}
		}
		list = append(list, material)
	}
	return list, nil
}

// statement is the provenance of these.
func (b build) statement(subjects []subject) ([]byte, error) {
	predicate, err := b.predicate(newBuilder(os.Getenv))
	if err != nil {
		return nil, err
	}
	return newStatement(provenancePredicate, predicate, subjects...)
}
