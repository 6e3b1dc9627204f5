package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// judgeRegistries asks every registry of the configuration for something: a golden image, or, where it has none, an image that
// nobody has.
func (d *doctor) judgeRegistries(ctx context.Context) {
	const check = "registries"
	for _, r := range d.checker.config.Registries {
		image := r.Host + "/hallmark/doctor:probe"
		for _, golden := range d.checker.config.GoldenImages {
			ref, err := webhook.ParseReference(golden.Repository + ":" + orDefault(golden.DefaultTag, "latest"))
			if err == nil && ref.Registry == r.Host {
				image = ref.String()
				break
			}
		}
		ref, err := webhook.ParseReference(image)
		if err != nil {
			d.report.add(check, doctorUnknown, fmt.Sprintf("%s: %v", r.Host, err), "")
			continue
		}
		bounded, cancel := d.bounded(ctx)
		_, err = d.checker.reviewer.Reader.ReadImage(bounded, ref, webhook.DigestOnly)
		cancel()
		var read *webhook.ReadError
		switch {
		case err == nil, errors.As(err, &read) && read.Failure == webhook.NotFound:
			d.report.add(check, doctorOK, r.Host+" answers", "")
		case read != nil && read.Failure == webhook.Unauthorized:
			d.report.add(check, doctorProblem, r.Host+" "+read.Reason, "check the file of registries[].credentials")
		case read != nil:
			d.report.add(check, doctorProblem, r.Host+" "+read.Reason, "check its address, its authority (registries[].ca) and the network policies")
		default:
			d.report.add(check, doctorProblem, fmt.Sprintf("%s did not answer within %s", r.Host, time.Duration(d.checker.config.Limits.Deadline)),
				"check its address and the network policies")
		}
	}
}

func (d *doctor) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Duration(d.checker.config.Limits.Deadline))
}

// judgeGolden reads and verifies the golden images as an admission would: by the default tag, and by each digest.
func (d *doctor) judgeGolden(ctx context.Context) {
	const check = "golden images"
	var untold []string
	for _, golden := range d.checker.config.GoldenImages {
		if golden.Status == "decommissioned" {
			continue
		}
		var images []string
		if golden.DefaultTag != "" {
			images = append(images, golden.Repository+":"+golden.DefaultTag)
		}
		for _, digest := range golden.Digests {
			images = append(images, golden.Repository+"@"+digest)
		}
		if len(images) == 0 {
			untold = append(untold, golden.Name)
		}
		for _, image := range images {
			d.judgeImage(ctx, check, golden.Name, image)
		}
	}
	if len(untold) > 0 {
		d.report.add(check, doctorWarning, fmt.Sprintf("%s without default tag or digests were not looked at, and developers are not told what to take: %s",
			plural(len(untold), "golden image"), some(untold, 8)), "set goldenImages[].defaultTag")
	}
}

func (d *doctor) judgeImage(ctx context.Context, check, name, image string) {
	ref, err := webhook.ParseReference(image)
	if err != nil {
		d.report.add(check, doctorProblem, fmt.Sprintf("%s: %s: %v", name, image, err), "")
		return
	}
	bounded, cancel := d.bounded(ctx)
	defer cancel()
	warmed := d.checker.reviewer.Warm(bounded, ref)
	switch {
	case len(warmed.Unknown) > 0:
		d.report.add(check, doctorProblem, fmt.Sprintf("%s: %s could not be read: %s", name, ref, warmed.Unknown[0].Reason), "")
	case !warmed.Signed:
		d.report.add(check, doctorProblem, fmt.Sprintf("%s: %s is not signed or attested as it must be, so no workspace starts from it", name, ref),
			"sign it, or take its default tag back to one that is")
	default:
		d.report.add(check, doctorOK, fmt.Sprintf("%s: %s is %s", name, ref, webhook.ShortDigest(warmed.Digest)), "")
	}
}
