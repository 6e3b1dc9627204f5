// Referrers lists twice what refers to an image, reads each manifest of the list, and prints the digests and what it asked
// the registry for. It is built from this file with the product's module.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/registry"
)

func main() {
	ca := flag.String("ca", "", "file with the registry's authority")
	credentials := flag.String("credentials", "", "Docker config")
	flag.Parse()
	if err := run(flag.Arg(0), *ca, *credentials); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(image, ca, credentials string) error {
	ref, err := webhook.ParseReference(image)
	if err != nil {
		return err
	}
	var said struct{ Referrers, Requests []string }
	client, err := registry.New(registry.Config{
		Hosts: []registry.Host{{Host: ref.Registry, CAFile: ca, CredentialsFile: credentials}},
		Observe: func(_ context.Context, _, operation string, code int, _ time.Duration) {
			said.Requests = append(said.Requests, fmt.Sprint(operation, " ", code))
		},
	})
	if err != nil {
		return err
	}
	defer client.Close()
	ctx := context.Background()
	_, first := client.Referrers(ctx, ref, 0)
	list, second := client.Referrers(ctx, ref, 0)
	if err := errors.Join(first, second); err != nil {
		return err
	}
	var index struct{ Manifests []struct{ Digest string } }
	if err := json.Unmarshal(list.Body, &index); err != nil {
		return err
	}
	for _, entry := range index.Manifests {
		read, err := client.Manifest(ctx, ref.WithTag("").WithDigest(entry.Digest), 4<<10)
		if err != nil {
			return err
		}
		said.Referrers = append(said.Referrers, read.Digest)
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}
