package cluster

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const (
	// mountDelay is the longest that a replica serves a certificate after another has been written: a kubelet's two minutes
	// and the seconds until the server looks at its files.
	mountDelay = 125 * time.Second
	// watchDelay is the longest that an API server calls with a caBundle after another has been written.
	watchDelay = 60 * time.Second
)

func years() Lifetimes { return Lifetimes{CA: 365 * 24 * time.Hour, Serving: 90 * 24 * time.Hour} }

func hookNames() []string {
	return []string{"w.ns.svc", "w.ns.svc.cluster.local", "w.ns", "w"}
}

// A world is a cluster on a simulated clock: the objects that the controller writes, and all that others may still hold.
type world struct {
	*testing.T
	lifetimes Lifetimes
	now       time.Time
	chance    *rand.Rand

	ca, tls    stored
	hooks      [2]configuration
	versions   int
	chains     map[string][]*x509.Certificate
	held       [2][]heldBundle // by API servers
	served     []heldLeaf      // by replicas
	watched    bool            // whether admissions are checked
	issued     int
	conflicts  int
	rotations  int
	wake       time.Time
	most       int // authorities in one caBundle
	lastIssuer *x509.Certificate
}

// stored is a Secret: what it says, and a version that changes with it; 0 for absent.
type stored struct {
	version int
	text    []byte
	list    []authority // what is readable, and
	serving *serving
}

type heldBundle struct {
	bundle []byte
	until  time.Time // zero while it is the one that is written
}

type heldLeaf struct {
	leaf  *x509.Certificate
	until time.Time
}

func newWorld(t *testing.T, seed uint64, active bool) *world {
	w := &world{
		T: t, lifetimes: years(), now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), chance: rand.New(rand.NewPCG(seed, 1)),
		chains: map[string][]*x509.Certificate{},
	}
	for i, k := range []kind{mutating, validating} {
		w.hooks[i] = configuration{kind: k, version: w.version(), entries: []entry{{name: string(k)}}}
	}
	if active {
		w.activate()
	}
	return w
}

func (w *world) version() string {
	w.versions++
	return fmt.Sprint(w.versions)
}

func (w *world) activate() {
	for i := range w.hooks {
		w.hooks[i].entries = []entry{{name: string(w.hooks[i].kind), bundle: w.hooks[i].entries[0].bundle, rules: []rule{{}}}}
		w.hooks[i].version = w.version()
	}
	w.watched = true
}

// snapshot is what a controller has read, with the versions of it.
type snapshot struct {
	state
	ca, tls int
	hooks   [2]string
}

func (w *world) read() snapshot {
	s := snapshot{ca: w.ca.version, tls: w.tls.version, hooks: [2]string{w.hooks[0].version, w.hooks[1].version}}
	s.configurations = slices.Clone(w.hooks[:])
	s.serving = w.tls.serving
	s.authorities = slices.Clone(w.ca.list)
	return s
}

// step makes the next write of a controller that has read a snapshot. False says that there was none to make.
func (w *world) step(s snapshot, now time.Time) bool {
	var todo step
	todo, w.wake = w.lifetimes.next(now, s.state, hookNames())
	switch todo.task {
	case nothing:
		return false
	case storeAuthorities:
		list, err := todo.store(now, w.lifetimes)
		if err != nil {
			w.Fatal(err)
		}
		if s.ca != w.ca.version {
			w.conflicts++
			return true
		}
		text, err := encodeAuthorities(list)
		if err != nil {
			w.Fatal(err)
		}
		w.writeCA(text)
	case publish:
		if s.hooks[todo.target] != w.hooks[todo.target].version {
			w.conflicts++
			return true
		}
		w.writeBundle(todo.target, todo.bundle)
	case issueServing:
		next, err := todo.issue(now, w.lifetimes, s.serving, hookNames())
		if err != nil {
			w.Fatal(err)
		}
		if s.tls != w.tls.version {
			w.conflicts++
			return true
		}
		w.writeTLS(&next)
	}
	return true
}

func (w *world) writeCA(text []byte) {
	w.versions++
	list, _ := decodeAuthorities(text) // nil for one that is spoilt
	w.ca = stored{version: w.versions, text: text, list: list}
}

func (w *world) writeBundle(i int, bundle []byte) {
	e := w.hooks[i].entries[0]
	e.bundle = bundle
	w.hooks[i].entries, w.hooks[i].version = []entry{e}, w.version()
	if n := len(w.held[i]); n > 0 {
		w.held[i][n-1].until = w.now.Add(watchDelay)
	}
	w.held[i] = append(w.held[i], heldBundle{bundle: bundle})
	w.most = max(w.most, len(parseBundle(bundle)))
}

func (w *world) writeTLS(s *serving) {
	w.versions++
	w.tls = stored{version: w.versions, serving: s}
	if n := len(w.served); n > 0 && w.served[n-1].leaf.Equal(s.leaf) {
		return
	}
	w.issued++
	if n := len(w.served); n > 0 {
		w.served[n-1].until = w.now.Add(mountDelay)
	}
	w.served = append(w.served, heldLeaf{leaf: s.leaf})
	for _, a := range w.ca.list {
		if a.signed(s.leaf) && (w.lastIssuer == nil || !w.lastIssuer.Equal(a.cert)) {
			w.lastIssuer = a.cert
			w.rotations++
		}
	}
}

func must[T any](v T, _ error) T { return v }

// settle lets a controller work until it has nothing to do.
func (w *world) settle() {
	w.Helper()
	for range 30 {
		if !w.step(w.read(), w.now) {
			w.check()
			return
		}
		w.check()
	}
	w.Fatalf("at %s the controller does not come to rest", w.now)
}

// advance lets time pass; no replica and no API server holds what is too old then.
func (w *world) advance(d time.Duration) {
	w.now = w.now.Add(d)
	gone := func(until time.Time) bool { return !until.IsZero() && until.Before(w.now) }
	for i := range w.held {
		w.held[i] = slices.DeleteFunc(w.held[i], func(h heldBundle) bool { return gone(h.until) })
	}
	w.served = slices.DeleteFunc(w.served, func(h heldLeaf) bool { return gone(h.until) })
	w.check()
}

// live lets a controller work until a time, waking it when it wants to be woken, and once a week.
func (w *world) live(until time.Time) {
	w.Helper()
	w.settle()
	for w.now.Before(until) {
		if !w.wake.After(w.now) {
			w.Fatalf("at %s it wants to be woken at %s", w.now, w.wake)
		}
		w.advance(min(w.wake.Sub(w.now), 7*24*time.Hour, until.Sub(w.now)))
		w.settle()
	}
}

// check holds that any certificate that a replica may serve verifies against any caBundle that an API server may hold, by
// clocks that are two minutes apart.
func (w *world) check() {
	w.Helper()
	if !w.watched {
		return
	}
	for i, bundles := range w.held {
		for _, b := range bundles {
			for _, l := range w.served {
				from, to, err := w.verify(b.bundle, l.leaf)
				if err == nil && (w.now.Add(-2*time.Minute).Before(from) || w.now.Add(2*time.Minute).After(to)) {
					err = fmt.Errorf("it is valid from %s to %s", from, to)
				}
				if err != nil {
					w.Fatalf("at %s, %s: a certificate that may be served is refused: %v", w.now, w.hooks[i].kind, err)
				}
			}
		}
	}
}

// verify says from when to when a certificate is accepted. It asks once for each pair.
func (w *world) verify(bundle []byte, leaf *x509.Certificate) (from, to time.Time, err error) {
	key := string(bundle) + string(leaf.Raw)
	chain, known := w.chains[key]
	if !known {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundle)
		chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "w.ns.svc", CurrentTime: w.now})
		if err != nil {
			return from, to, err
		}
		chain = chains[0]
		w.chains[key] = chain
	}
	from, to = leaf.NotBefore, leaf.NotAfter
	for _, cert := range chain {
		from, to = slices.MaxFunc([]time.Time{from, cert.NotBefore}, time.Time.Compare), slices.MinFunc([]time.Time{to, cert.NotAfter}, time.Time.Compare)
	}
	return from, to, nil
}

// TestYears: a controller that looks now and then for five years. Nobody ever fails, and what should be renewed is.
func TestYears(t *testing.T) {
	w := newWorld(t, 1, false)
	w.settle()
	w.activate()
	w.live(w.now.Add(5 * 365 * 24 * time.Hour))
	if w.most != 2 {
		t.Errorf("a caBundle had up to %d authorities, want 2", w.most)
	}
	// Five years of two thirds of a year, and as many certificates as two thirds of 90 days fit in.
	if w.rotations != 8 || w.issued < 5*365/60 || w.issued > 5*365/60+w.rotations+1 {
		t.Errorf("%d authorities and %d certificates in five years, want 8 and about 30 to 39", w.rotations, w.issued)
	}
	for _, a := range w.ca.list {
		if a.key != nil && !a.signed(w.tls.serving.leaf) {
			t.Errorf("the key of an authority that issues nothing is kept: %s", a.cert.Subject)
		}
	}
}

// TestFresh: an installation that nobody calls yet waits for nothing.
func TestFresh(t *testing.T) {
	w := newWorld(t, 1, false)
	w.settle()
	if w.tls.serving == nil {
		t.Fatal("there is no serving certificate")
	}
	for i := range w.hooks {
		if !holds(parseBundle(w.hooks[i].entries[0].bundle), w.ca.list[0].cert) {
			t.Errorf("%s does not hold the authority", w.hooks[i].kind)
		}
	}
	for _, name := range hookNames() {
		if err := w.tls.serving.leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
}

// TestOverlap is one rotation, step by step.
func TestOverlap(t *testing.T) {
	w := newWorld(t, 1, false)
	w.settle()
	w.activate()
	old := w.ca.list[0]
	w.live(due(old.cert).Add(-time.Hour))
	before := w.tls.serving.leaf
	w.advance(time.Hour)
	w.settle()
	list := w.ca.list
	if len(list) != 2 || list[1].published.IsZero() {
		t.Fatalf("after two thirds of its life there is no second authority that is published: %+v", list)
	}
	if !w.tls.serving.leaf.Equal(before) {
		t.Error("the new authority issued at once")
	}
	w.advance(w.lifetimes.settle() - time.Second)
	w.settle()
	if !w.tls.serving.leaf.Equal(before) {
		t.Error("the new authority issued before every API server knew of it")
	}
	w.advance(time.Second)
	w.settle()
	if !list[1].signed(w.tls.serving.leaf) {
		t.Error("the new authority did not issue")
	}
	if list = w.ca.list; list[0].key != nil || list[0].retired.IsZero() {
		t.Error("the old authority keeps its key, or is not retired")
	}
	w.advance(w.lifetimes.retain() - time.Second)
	w.settle()
	if !holds(parseBundle(w.hooks[0].entries[0].bundle), old.cert) {
		t.Error("the old authority left the caBundle too early")
	}
	w.advance(time.Second)
	w.settle()
	if list = w.ca.list; len(list) != 1 || holds(parseBundle(w.hooks[0].entries[0].bundle), old.cert) {
		t.Error("the old authority stays")
	}
}

// TestCrashAtEveryWrite: each write of a rotation is the last one before the controller is gone for an hour.
func TestCrashAtEveryWrite(t *testing.T) {
	for crash := range 11 {
		w := newWorld(t, 1, false)
		w.settle()
		w.activate()
		w.live(due(w.ca.list[0].cert).Add(-time.Hour))
		written := 0
		for end := w.now.Add(30 * time.Hour); w.now.Before(end); w.advance(time.Hour) {
			for w.step(w.read(), w.now) {
				w.check()
				if written++; written == crash {
					w.advance(time.Hour)
				}
			}
		}
		if w.rotations != 2 || written < 10 {
			t.Errorf("with a crash at write %d of %d there were %d authorities, want 2", crash, written, w.rotations)
		}
	}
}

// An accident happens to a cluster.
type accident struct {
	name string
	do   func(w *world)
}

func accidents() []accident {
	return []accident{
		{"the authorities are deleted", func(w *world) { w.ca = stored{} }},
		{"the serving certificate is deleted", func(w *world) { w.tls = stored{} }},
		{"both Secrets are deleted", func(w *world) { w.ca, w.tls = stored{}, stored{} }},
		{"the authorities are spoilt", func(w *world) { w.writeCA([]byte("{")) }},
		{"the serving certificate is spoilt", func(w *world) {
			w.versions++
			w.tls = stored{version: w.versions}
		}},
		{"an admin puts a certificate of his own there", func(w *world) {
			own := must(mint(w.now, time.Hour*24*365))
			s := must(own.issue(w.now, time.Hour*24, hookNames()))
			w.versions++
			w.tls = stored{version: w.versions, serving: &s} // replicas that load it are the admin's affair
		}},
		{"a caBundle has a stranger", func(w *world) {
			stranger := must(mint(w.now, time.Hour*24*365))
			w.writeBundle(1, slices.Concat(w.hooks[1].entries[0].bundle, encodeCert(stranger.cert.Raw)))
		}},
		{"the authorities are put back from a backup", func(w *world) {
			backup := w.ca.text
			w.rotate()
			w.writeCA(backup)
		}},
		{"the serving certificate is put back from a backup", func(w *world) {
			backup := w.tls.serving
			w.rotate()
			w.versions++
			w.tls = stored{version: w.versions, serving: backup} // as old as it is, nobody may accept it
		}},
	}
}

// rotate lets time pass until another authority issues.
func (w *world) rotate() {
	for began := w.rotations; w.rotations == began; {
		w.live(w.now.Add(7 * 24 * time.Hour))
	}
}

// TestAccidents: after each the controller comes to rest with certificates as they should be, and meanwhile whatever replicas
// still serve is trusted.
func TestAccidents(t *testing.T) {
	for _, a := range accidents() {
		t.Run(a.name, func(t *testing.T) {
			w := newWorld(t, 1, false)
			w.settle()
			w.activate()
			w.advance(24 * time.Hour)
			w.settle()
			a.do(w)
			w.check()
			for range 40 {
				w.settle()
				w.advance(20 * time.Second)
			}
			w.sane()
			w.advance(w.lifetimes.retain())
			w.settle()
			w.advance(time.Hour)
			w.settle()
			w.sane()
			if n := len(parseBundle(w.hooks[0].entries[0].bundle)); n != 1 {
				t.Errorf("%d authorities are trusted in the end, want 1", n)
			}
		})
	}
}

// sane wants a stored authority, which issued the serving certificate, in both configurations.
func (w *world) sane() {
	w.Helper()
	list := w.ca.list
	if list == nil || w.tls.serving == nil {
		w.Fatalf("%d authorities; a serving certificate: %v", len(list), w.tls.serving != nil)
	}
	newest := list[len(list)-1]
	if !newest.signed(w.tls.serving.leaf) {
		w.Error("the serving certificate is not of the newest authority")
	}
	for i := range w.hooks {
		if !holds(parseBundle(w.hooks[i].entries[0].bundle), newest.cert) {
			w.Errorf("%s does not hold the newest authority", w.hooks[i].kind)
		}
	}
	if !bytes.Equal(w.tls.serving.root, w.hooks[0].entries[0].bundle) {
		w.Error("ca.crt is not the caBundle")
	}
}

// TestTwoLeaders: two controllers that act on what they have read some time before, over a year of accidents that come
// with chance.
func TestTwoLeaders(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, false)
			w.settle()
			w.activate()
			snapshots := [2]snapshot{w.read(), w.read()}
			list := accidents()[:7] // without backups, which take their own time
			for end := w.now.Add(365 * 24 * time.Hour); w.now.Before(end); {
				for range 4 {
					who := w.chance.IntN(2)
					if w.chance.IntN(3) > 0 {
						snapshots[who] = w.read()
					}
					// The clocks of controllers are that of the API server, give or take the seconds of a Date.
					w.step(snapshots[who], w.now.Add(time.Duration(w.chance.IntN(6)-3)*time.Second))
					w.advance(time.Duration(w.chance.IntN(5)) * time.Second)
				}
				if w.chance.IntN(100) == 0 {
					list[w.chance.IntN(len(list))].do(w)
					w.check()
				}
				if w.chance.IntN(5) == 0 {
					w.advance(time.Duration(w.chance.IntN(240)) * time.Hour)
				} else {
					w.advance(time.Duration(w.chance.IntN(120)) * time.Second)
				}
			}
			if w.conflicts == 0 {
				t.Error("the two never met, so this shows nothing")
			}
			for range 100 {
				w.settle()
				w.advance(time.Minute)
			}
			w.sane()
		})
	}
}

// TestWrongClock: a clock that was years ahead for a while, and one that goes back.
func TestWrongClock(t *testing.T) {
	for _, jump := range []time.Duration{5 * 365 * 24 * time.Hour, 30 * 24 * time.Hour, -30 * 24 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			w := newWorld(t, 1, false)
			w.settle()
			w.live(w.now.Add(50 * 24 * time.Hour))
			w.now = w.now.Add(jump)
			w.settle()
			w.now = w.now.Add(-jump)
			for range 20 {
				w.settle()
				w.advance(time.Minute)
			}
			w.sane()
			w.activate() // from here on all must verify
			w.served, w.held[0], w.held[1] = w.served[len(w.served)-1:], w.held[0][len(w.held[0])-1:], w.held[1][len(w.held[1])-1:]
			w.check()
		})
	}
}

// TestUnpublished: an authority that has vanished from a caBundle before it issued waits again.
func TestUnpublished(t *testing.T) {
	w := newWorld(t, 1, false)
	w.settle()
	w.activate()
	w.live(due(w.ca.list[0].cert))
	leaf := w.tls.serving.leaf
	w.advance(w.lifetimes.settle() - time.Second)
	w.writeBundle(1, encodeCert(w.ca.list[0].cert.Raw)) // somebody puts the former one back
	w.settle()
	w.advance(time.Minute)
	w.settle()
	if !w.tls.serving.leaf.Equal(leaf) {
		t.Error("it issued although an API server may not know it")
	}
	w.advance(w.lifetimes.settle())
	w.settle()
	if w.tls.serving.leaf.Equal(leaf) {
		t.Error("it never issued")
	}
}

func TestSpoiltSecrets(t *testing.T) {
	a := must(mint(time.Now(), time.Hour))
	b := must(mint(time.Now(), time.Hour))
	good := must(encodeAuthorities([]authority{a}))
	mixed := must(encodeAuthorities([]authority{{cert: a.cert, key: b.key}}))
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "EOF"},
		{"no JSON", "{", "unexpected EOF"},
		{"no authority", "{}", "it holds no authority"},
		{"unknown key", `{"authoritys": []}`, "unknown field"},
		{"no certificate", `{"authorities": [{"certificate": "x"}]}`, "authority 1: its certificate is not that of one CA in PEM"},
		{"key of another", string(mixed), "authority 1: its key does not fit its certificate"},
		{"key that is none", string(bytes.Replace(good, []byte("-----BEGIN PRIVATE KEY-----\\n"), []byte("x"), 1)), "authority 1: its key is not PEM"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := decodeAuthorities([]byte(tc.text))
			if err == nil || !bytes.Contains([]byte(err.Error()), []byte(tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	list, err := decodeAuthorities(good)
	if err != nil || !sameAuthority(list[0], a) {
		t.Errorf("what is good does not come back: %v %v", list, err)
	}
}
