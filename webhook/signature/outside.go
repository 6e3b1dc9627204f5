package signature

import (
	"context"
	"fmt"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
)

// What comes from outside is read again after these times: a key that is rotated in its KMS, or a log that is added to a
// trusted root, is known within them, and at once after a restart.
const (
	kmsEvery = time.Hour
	tufEvery = 6 * time.Hour

	outsideTimeout = 30 * time.Second // of one reading
)

// TUF is a repository of The Update Framework that has a trusted_root.json. The zero value is sigstore's public-good
// instance.
type TUF struct {
	URL      string
	RootFile string // the first root.json, which everything later is proved by; "" is the one that sigstore-go brings
	Dir      string // where what was read is kept over a restart; "" is nowhere. Nothing in it is trusted
}

// kms gives the key of a KMS, which is read behind.
func (l *loader) kms(uri string) (source[*key], error) {
	read, err := kmsKey(uri)
	if err != nil {
		return nil, err
	}
	return follow(l, kmsEvery, uri, func(ctx context.Context) (*key, time.Time, error) {
		public, err := read(ctx)
		if err != nil {
			return nil, time.Time{}, err
		}
		k, err := newKey(public)
		return k, time.Time{}, err
	}), nil
}

// tuf gives the trusted root of the repository, which is read behind.
func (l *loader) tuf() (source[*trustedRoot], error) {
	reader, err := newTUFReader(l.config.TUF, l.config.ReadFile, l.config.Now)
	if err != nil {
		return nil, err
	}
	// What another root.json has proved is nothing to this one.
	what := fmt.Sprintf("the trusted root by TUF from %s, which begins with the root.json %s",
		reader.url, webhook.ShortDigest(webhook.DigestOf(reader.anchor)))
	return follow(l, tufEvery, what, func(ctx context.Context) (*trustedRoot, time.Time, error) {
		trusted, expires, err := reader.read(ctx)
		if trusted != nil {
			bounded := *trusted
			bounded.until = expires
			trusted = &bounded
		}
		return trusted, expires, err
	}), nil
}

// follow begins to read something, once for all signers who need it; it ends with the trust that is being loaded. What the
// trust before had read counts until it was read again.
func follow[T any](
	l *loader, every time.Duration, what string, read func(context.Context) (T, time.Time, error),
) source[T] {
	if known, ok := l.trust.outside[what].(*fetched[T]); ok {
		return known
	}
	f := startFetching(l.ctx, fetching{
		every: every, timeout: outsideTimeout, now: l.config.Now,
		changed: func() { l.trust.version.Add(1) },
		report: func(err error) {
			if l.config.Report != nil {
				l.config.Report(what, err)
			}
		},
	}, read)
	if l.config.Before != nil {
		if before, ok := l.config.Before.outside[what].(*fetched[T]); ok {
			f.takeOver(before)
		}
	}
	l.trust.outside[what] = f
	return f
}

// Wait waits for the first answer of everything that is read from outside, and gives what could not be read. Requests
// never wait; it is for programs that ask once.
func (t *Trust) Wait(ctx context.Context) error {
	for _, o := range t.outside {
		if err := o.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// An outside is something that is read behind requests.
type outside interface {
	wait(ctx context.Context) error
	close()
}
