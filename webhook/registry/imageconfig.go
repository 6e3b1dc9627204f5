package registry

import (
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hallmark-admission/hallmark/webhook"
)

// maxEntries bounds labels and variables of a config. Real images have dozens.
const maxEntries = 10_000

// A platform is what an image runs on; zero when nothing says.
type platform struct{ os, architecture, variant string }

func (p platform) isZero() bool { return p.os == "" && p.architecture == "" }

// isUnknown marks what lies beside the images of an index: BuildKit gives its attestations this platform, and no
// runtime picks it. The annotation that it adds is not looked at: a runtime does not either, so an image marked with
// it would run unjudged.
func (p platform) isUnknown() bool { return p.os == "unknown" && p.architecture == "unknown" }

// agrees says whether an index may give this platform to an image whose config gives that one. Variants may differ:
// builders leave them out of the config.
func (p platform) agrees(config platform) bool {
	same := func(a, b string) bool { return a == "" || b == "" || a == b }
	return same(p.os, config.os) && same(architecture(p.architecture), architecture(config.architecture))
}

// orElse fills in from other what the platform does not say.
func (p platform) orElse(other platform) platform {
	if p.os == "" {
		p.os = other.os
	}
	if p.architecture == "" {
		p.architecture = other.architecture
	}
	if p.variant == "" && architecture(p.architecture) == architecture(other.architecture) {
		p.variant = other.variant
	}
	return p
}

// String is for messages.
func (p platform) String() string {
	if p.isZero() {
		return "no platform"
	}
	return show(p.os + "/" + p.architecture)
}

// architecture folds the spellings that containerd folds (platforms.Normalize).
func architecture(name string) string {
	switch strings.ToLower(name) {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386":
		return "386"
	case "armhf", "armel":
		return "arm"
	}
	return strings.ToLower(name)
}

// readPlatformOf reads the platform of a descriptor; zero when there is none.
func readPlatformOf(value jsontext.Value) (platform, error) {
	if value == nil {
		return platform{}, nil
	}
	object, err := members(value, "os", "architecture", "variant")
	if err != nil {
		return platform{}, err
	}
	return platformOf(object)
}

func platformOf(object map[string]jsontext.Value) (p platform, err error) {
	if p.os, err = text(object["os"]); err != nil {
		return platform{}, err
	}
	if p.architecture, err = text(object["architecture"]); err != nil {
		return platform{}, err
	}
	p.variant, err = text(object["variant"])
	return p, err
}

// parseConfig reads an image config. The bytes are whatever a registry sent; Digest is left to the caller.
func parseConfig(body []byte) (webhook.Platform, error) {
	read, err := readConfig(body)
	if err != nil {
		return webhook.Platform{}, invalidf("sent an image config that %v", err)
	}
	return read, nil
}

func readConfig(body []byte) (webhook.Platform, error) {
	top, err := members(body, "os", "architecture", "variant", "created", "config", "rootfs")
	if err != nil {
		return webhook.Platform{}, err
	}
	p, err := platformOf(top)
	if err != nil {
		return webhook.Platform{}, err
	}
	read := webhook.Platform{OS: p.os, Architecture: p.architecture, Variant: p.variant}
	created, err := text(top["created"])
	if err != nil {
		return webhook.Platform{}, err
	}
	// An unreadable time is none: nothing is decided by it but how old an image is.
	read.Created, _ = time.Parse(time.RFC3339Nano, created)
	if err := readRunConfig(top["config"], &read); err != nil {
		return webhook.Platform{}, err
	}
	if top["rootfs"] == nil {
		return read, nil
	}
	rootfs, err := members(top["rootfs"], "type", "diff_ids")
	if err != nil {
		return webhook.Platform{}, err
	}
	read.Layers, err = texts(rootfs["diff_ids"], maxLayers)
	return read, err
}

// readRunConfig reads what the runtime takes from the image when the pod does not say otherwise.
func readRunConfig(value jsontext.Value, read *webhook.Platform) error {
	if value == nil {
		return nil
	}
	object, err := members(value, "User", "Env", "Labels")
	if err != nil {
		return err
	}
	if read.User, err = text(object["User"]); err != nil {
		return err
	}
	if read.Labels, err = textMap(object["Labels"], maxEntries); err != nil {
		return err
	}
	variables, err := texts(object["Env"], maxEntries)
	if err != nil {
		return err
	}
	for _, variable := range variables {
		name, _, _ := strings.Cut(variable, "=")
		read.EnvNames = append(read.EnvNames, name)
	}
	slices.Sort(read.EnvNames)
	read.EnvNames = slices.Compact(read.EnvNames)
	return nil
}
