package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/config"
)

func newImage(io streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Work with images as the webhook sees them",
	}
	cmd.AddCommand(newImagePull(io))
	return cmd
}

func newImagePull(io streams) *cobra.Command {
	var configFile, dir string
	cmd := &cobra.Command{
		Use:   "pull --config FILE --dir DIR [IMAGE...]",
		Short: "Fill a cache directory, for a webhook without a registry",
		Long: `Pull reads and verifies images as an admission would, and keeps what it read in a directory: manifests, configs and
signatures, but no layers. With that directory as cache.dir a webhook admits these images without a registry, for
cache.staleIfError from now on. Without IMAGE it pulls the golden images of the configuration by their default tags.
The policy bundles of the configuration are read as well, and kept there if they are signed.`,
		Example: "  hallmark image pull --config hallmark.yaml --dir cache registry.corp.example:5000/golden/base:v3.2.1",
		RunE: func(cmd *cobra.Command, args []string) error {
			return pullImages(cmd.Context(), io, pullFlags{configFile, dir, args})
		},
	}
	cmd.Flags().StringVar(&configFile, "config", "", "configuration `file`")
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` to fill: an OCI image layout, made if need be")
	for _, name := range []string{"config", "dir"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a name that is not a flag
		}
	}
	return cmd
}

type pullFlags struct {
	config, dir string
	images      []string
}

// pullImages reads and verifies images into a directory. Every image is tried; those that failed make the error.
func pullImages(ctx context.Context, io streams, f pullFlags) (err error) {
	text, err := os.ReadFile(f.config)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	c, _, err := config.Load(text, time.Now())
	if err != nil {
		return fmt.Errorf("%s:\n%w", f.config, err)
	}
	source, err := shippedPolicies(nil)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return err
	}
	c.Cache.Dir = dir
	c.PullSecrets.Enabled = false // there is no pod, and perhaps no cluster
	store, err := openStore(c, int64(c.Cache.MaxBytes))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := readBundles(ctx, c, outside{now: time.Now}, source); err != nil {
		return err
	}
	g, err := newGeneration(ctx, c, source, outside{now: time.Now, store: store})
	if err != nil {
		return err
	}
	defer g.close()
	images := f.images
	if len(images) == 0 {
		images = defaultImages(c)
	}
	if len(images) == 0 {
		return hinted{errors.New("no image to pull"), "name images, or give goldenImages a defaultTag in the configuration"}
	}
	var errs []error
	if err := g.trust.Wait(ctx); err != nil {
		fmt.Fprintln(io.err, "warning: images that need it cannot be verified:", err)
	}
	for _, image := range images {
		errs = append(errs, pullImage(ctx, io, g, image))
	}
	return errors.Join(errs...)
}

// defaultImages are the golden images by their default tags.
func defaultImages(c *config.Config) []string {
	var images []string
	for _, golden := range c.GoldenImages {
		if golden.DefaultTag != "" && golden.Status != "decommissioned" {
			images = append(images, golden.Repository+":"+golden.DefaultTag)
		}
	}
	return images
}

func pullImage(ctx context.Context, io streams, g *generation, image string) error {
	ref, err := webhook.ParseReference(image)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	bounded, cancel := context.WithTimeout(ctx, time.Duration(g.config.Limits.Deadline))
	defer cancel()
	warmed := g.reviewer.Warm(bounded, ref)
	switch {
	case len(warmed.Unknown) > 0:
		return fmt.Errorf("%s could not be read: %s", ref, warmed.Unknown[0].Reason)
	case !warmed.Signed:
		return fmt.Errorf("%s is not signed as the configuration demands", ref)
	}
	_, err = fmt.Fprintf(io.out, "%s %s\n", warmed.Digest, ref)
	return err
}
