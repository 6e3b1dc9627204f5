package registry

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	// maxTokens bounds the tokens kept for one registry, one a repository.
	maxTokens = 1000
	// defaultTokenLife is what a token has that does not say (the Docker token specification's figure).
	defaultTokenLife = 60 * time.Second
	// maxTokenLife keeps a token from being used for ever because a server said so.
	maxTokenLife = 24 * time.Hour
	// maxTokenMargin: a token is given up a tenth of its life early, at most this much.
	maxTokenMargin = 30 * time.Second
)

// A tokenKey is what a token was asked for. The credentials need not be part of it: they follow from the repository,
// which is in the scope.
type tokenKey struct{ realm, service, scope string }

// A credential is the value of an Authorization header, and the key of the token in it if there is one.
type credential struct {
	header string
	key    tokenKey
}

// A token is a bearer token as a header, good until it expires.
type token struct {
	header  string
	expires time.Time
}

func expiry(issued time.Time, life time.Duration) time.Time {
	if life <= 0 {
		life = defaultTokenLife
	}
	life = min(life, maxTokenLife)
	return issued.Add(life - min(life/10, maxTokenMargin))
}

// tokens remembers bearer tokens and fetches each once, however many callers need it. A failure is told to those who
// wait for it and then forgotten.
type tokens struct {
	now   func() time.Time
	known *lru.Cache[tokenKey, token]

	mu       sync.Mutex
	fetching map[tokenKey]*fetch
	running  sync.WaitGroup
	closed   bool // nothing is added to running any more
}

type fetch struct {
	done  chan struct{} // closed when token and err are set
	token token
	err   error
}

// values lists the tokens that are known, without the scheme in front.
func (t *tokens) values() []string {
	var values []string
	for _, known := range t.known.Values() {
		_, value, _ := strings.Cut(known.header, " ")
		values = append(values, value)
	}
	return values
}

var errNoToken = errors.New("no token")

func newTokens(now func() time.Time) *tokens {
	known, err := lru.New[tokenKey, token](maxTokens)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &tokens{now: now, known: known, fetching: map[tokenKey]*fetch{}}
}

// get gives the token for key, from memory or by ask. ask runs without the caller's cancellation, since others may
// wait for it; it has to end by itself.
func (t *tokens) get(ctx context.Context, key tokenKey, ask func(context.Context) (token, error)) (token, error) {
	t.mu.Lock()
	if known, ok := t.known.Get(key); ok && t.now().Before(known.expires) {
		t.mu.Unlock()
		return known, nil
	}
	f := t.fetching[key]
	if f == nil {
		f = &fetch{done: make(chan struct{}), err: errNoToken}
		t.fetching[key] = f
		detached := context.WithoutCancel(ctx)
		if t.closed { // by a reader that outlived the client; it ends by itself
			go t.run(detached, key, f, ask)
		} else {
			t.running.Go(func() { t.run(detached, key, f, ask) })
		}
	}
	t.mu.Unlock()
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return token{}, ctx.Err()
	}
}

func (t *tokens) run(ctx context.Context, key tokenKey, f *fetch, ask func(context.Context) (token, error)) {
	f.token, f.err = ask(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.err == nil {
		t.known.Add(key, f.token)
	}
	delete(t.fetching, key)
	close(f.done)
}

// forget drops a token that the registry has refused, unless another one has taken its place.
func (t *tokens) forget(c credential) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.known.Peek(c.key); ok && known.header == c.header {
		t.known.Remove(c.key)
	}
}

// close returns when no token is being fetched.
func (t *tokens) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.running.Wait()
}
