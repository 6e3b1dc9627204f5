package main

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/hallmark-admission/hallmark/webhook/config"
	"github.com/hallmark-admission/hallmark/webhook/policy"
)

// A waitingError says that bundles are missing. Without them there would be a part of the configured policies in force.
type waitingError struct{ names []string }

func (e *waitingError) Error() string {
	return "these policy bundles could not be read yet: " + strings.Join(e.names, ", ")
}

// A bundleError says that no generation could be made with the latest bundles, where others may help.
type bundleError struct{ cause error }

func (e *bundleError) Error() string { return e.cause.Error() }

func (e *bundleError) Unwrap() error { return e.cause }

// unfinished says whether an error may pass when bundles arrive.
func unfinished(err error) bool {
	_, waiting := errors.AsType[*waitingError](err)
	_, bad := errors.AsType[*bundleError](err)
	return waiting || bad
}

// follow gives the followings of a configuration: those that there are, and new ones for entries that are new.
func (l *loader) follow(ctx context.Context, c *config.Config, out outside) ([]*following, error) {
	var all []*following
	var errs []error
	for _, entry := range c.Policies.Bundles {
		identity, err := bundleIdentity(entry, c, out)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f := l.following[identity]
		if f == nil {
			f, err = newFollowing(followingConfig{
				entry: entry, config: c, outside: out, before: l.acceptedOf(entry.Name()),
				changed: l.bundleArrived, failed: l.bundleUnread,
			})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			f.start(ctx)
			l.following[identity] = f
		}
		all = append(all, f)
	}
	return all, errors.Join(errs...)
}

// acceptedOf is the archive of a bundle in force; nil for none.
func (l *loader) acceptedOf(name string) []byte {
	if l.inForce == nil {
		return nil
	}
	for _, f := range l.inForce.bundles {
		if f.name == name {
			return f.accepted.Archive
		}
	}
	return nil
}

// unfollow ends the followings that nothing needs any more.
func (l *loader) unfollow() {
	for identity, f := range l.following {
		needed := l.wanted != nil && slices.Contains(l.wanted.bundles, f) ||
			l.inForce != nil && slices.Contains(l.inForce.bundles, f)
		if !needed {
			delete(l.following, identity)
			f.close()
		}
	}
}

// bundleArrived has the generation renewed. It does not wait for it, since the loader may be waiting for its caller.
func (l *loader) bundleArrived() {
	select {
	case l.arrived <- struct{}{}:
	default: // that is to happen already
	}
}

// bundleUnread tells of a bundle that cannot be read.
func (l *loader) bundleUnread(name string, err error) {
	l.metrics.Reloaded("bundle", err)
	l.log.Error("policy bundle could not be read; what is in force stays", "bundle", name, "error", err)
}

// renewBundles puts bundles in force that have arrived.
func (l *loader) renewBundles(ctx context.Context) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	defer l.unfollow()
	if l.wanted == nil {
		return
	}
	// Another error was told when the files were loaded, and the new bundles did not help.
	if err := l.renew(ctx); unfinished(err) {
		l.tell(err)
	}
}

// renew makes a generation of what is wanted. While that cannot be, bundles of what is in force go on being renewed.
func (l *loader) renew(ctx context.Context) error {
	err := l.advance(ctx, l.wanted)
	if err != nil && l.inForce != nil && l.inForce != l.wanted {
		// What it says is of the files that were in force; they have changed.
		_ = l.advance(ctx, l.inForce)
	}
	return err
}

// advance puts inputs in force with the newest bundles that they can be with, and accepts those.
func (l *loader) advance(ctx context.Context, in *inputs) error {
	choices, err := in.choices()
	if err != nil {
		return err
	}
	var errs []error
	for i, bundles := range choices {
		err := l.install(ctx, in, bundles)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if i == 0 {
			if in == l.wanted {
				l.told = ""
			}
			return nil
		}
		l.tell(&bundleError{errs[0]})
		if i < len(choices)-1 { // one of several new ones was good: perhaps the others are, beside it
			l.bundleArrived()
		}
		return nil
	}
	never := slices.ContainsFunc(in.bundles, func(f *following) bool { return f.accepted == nil })
	if never || l.inForce == nil && len(in.bundles) > 0 {
		return &bundleError{errs[0]}
	}
	return errs[len(errs)-1] // with the bundles from before it is bad, too
}

// choices are the bundles to try, one set after the other: the latest of all, each new one beside those that were
// accepted, and the accepted ones. A bundle that never was accepted is in all of them.
func (in *inputs) choices() ([][]*policy.Bundle, error) {
	var missing []string
	latest, before := make([]*policy.Bundle, len(in.bundles)), make([]*policy.Bundle, len(in.bundles))
	var changed []int
	for i, f := range in.bundles {
		latest[i] = f.follower.Latest()
		before[i] = cmp.Or(f.accepted, latest[i])
		if latest[i] == nil {
			missing = append(missing, f.name)
		}
		if latest[i] != before[i] {
			changed = append(changed, i)
		}
	}
	if missing != nil {
		return nil, &waitingError{missing}
	}
	choices := [][]*policy.Bundle{latest}
	if len(changed) > 1 {
		for _, i := range changed {
			one := slices.Clone(before)
			one[i] = latest[i]
			choices = append(choices, one)
		}
	}
	if len(changed) > 0 {
		choices = append(choices, before)
	}
	return choices, nil
}

// install makes a generation of inputs and bundles, unless it is in force already.
func (l *loader) install(ctx context.Context, in *inputs, bundles []*policy.Bundle) error {
	source := maps.Clone(in.rules)
	if err := source.AddBundles(bundles); err != nil {
		return err
	}
	fingerprint, err := in.fingerprint(source)
	if err != nil {
		return err
	}
	if fingerprint != l.fingerprint {
		if err := l.replace(ctx, in, source); err != nil {
			return err
		}
		l.fingerprint = fingerprint
	}
	l.inForce = in
	for i, f := range in.bundles {
		l.accept(f, bundles[i])
	}
	return nil
}

// accept notes that a bundle is in force, and keeps it for a restart.
func (l *loader) accept(f *following, b *policy.Bundle) {
	if f.accepted != b {
		f.accepted = b
		l.metrics.Reloaded("bundle", nil)
		l.log.Info("policy bundle in force", "bundle", f.name, "revision", b.Revision, "digest", b.Digest)
	}
	if err := f.keep(); err != nil {
		l.log.Warn("policy bundle could not be kept for a restart", "bundle", f.name, "error", err)
	}
}

// tell logs trouble with bundles, and counts it when they are bad. The same trouble is told once.
func (l *loader) tell(err error) {
	if err.Error() == l.told {
		return
	}
	l.told = err.Error()
	if _, waiting := errors.AsType[*waitingError](err); waiting {
		l.log.Warn("configuration and policies are not in force yet", "error", err)
		return
	}
	l.metrics.Reloaded("bundle", err)
	l.log.Error("policy bundles could not be put in force; what is in force stays", "error", err)
}
