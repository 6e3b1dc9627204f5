package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// An attack is a body that no good client sends, or a pod that may not start.
type attack struct {
	name string
	body []byte
	want string // the status, and of a review whether it was allowed
}

// pause is between two attacks of one attacker. The pace is the same whatever the server makes of them, since otherwise
// the server that refuses most quickly would be attacked most.
const pause = 150 * time.Millisecond

// hostile has the good pods of some clients beside as many attackers.
func hostile(ctx context.Context, b *bench) error {
	return b.with(ctx, "", func(s *stand) error {
		w, err := s.known(ctx, "v8.0.", some)
		if err != nil {
			return err
		}
		attacks, err := s.attacks(ctx)
		if err != nil {
			return err
		}
		for _, a := range attacks {
			if err := s.price(ctx, a); err != nil {
				return err
			}
		}
		if err := s.turns(ctx, "hostile, without", some, func(t *target, _ int) ([]sample, error) {
			return s.clients(ctx, t, some, during(b.round, w)), nil
		}); err != nil {
			return err
		}
		counted := map[string]int{}
		if err := s.turns(ctx, "hostile, beside", some, func(t *target, _ int) ([]sample, error) {
			attacking, stop := context.WithCancel(ctx)
			answers := make(chan map[string]int, some)
			for range some {
				go func() { answers <- t.attackWith(attacking, attacks) }()
			}
			samples := s.clients(ctx, t, some, during(b.round, w))
			stop()
			for range some {
				for answer, n := range <-answers {
					if t == s.targets[0] {
						counted[answer] += n
					}
				}
			}
			return samples, nil
		}); err != nil {
			return err
		}
		total := 0
		for answer, n := range counted {
			total += n
			name, got, _ := strings.Cut(answer, ": ")
			if i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == name }); got != attacks[i].want {
				s.bench.report.note("hostile: %s, %d times: answered %s, expected %s", name, n, got, attacks[i].want)
			}
		}
		s.bench.report.note("hostile: beside the good pods hallmark was attacked %d times", total)
		return nil
	})
}

// price is what an attack costs Hallmark by itself, one after the other.
func (s *stand) price(ctx context.Context, a attack) error {
	const times = 20
	t := s.targets[0]
	result, err := s.measured(t, func() (samples []sample) {
		for range times {
			one := sample{start: time.Now(), outcome: denied, reviews: 1}
			if got := t.attack(ctx, a); got != a.want {
				one.outcome = failed
				one.says = fmt.Sprintf("answered %s, expected %s", got, a.want)
			}
			one.took = time.Since(one.start)
			samples = append(samples, one)
		}
		return samples
	})
	s.bench.report.row("hostile, "+a.name, s.bench.latencyNow(s), 1, t.name, result)
	return err
}

func (s *stand) attacks(ctx context.Context) ([]attack, error) {
	unsigned, err := s.Registry.PushImage(ctx, registrytest.Image{Repository: repository(0), Tag: "v8.8.8", User: "1000", Layers: []string{"unsigned"}})
	if err != nil {
		return nil, err
	}
	review := func(image string) ([]byte, error) {
		w, err := newWorkload([]string{image}, s.bench.bytes)
		if err != nil {
			return nil, err
		}
		return w.first.body, nil
	}
	good, err := review(s.Ref(repository(0) + ":v8.0.0"))
	if err != nil {
		return nil, err
	}
	deep := strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)
	list := []attack{
		{"oversized", bytes.Repeat([]byte(" "), maxBody+1), "413"},
		{"cut off", good[:len(good)/2], "400"},
		{"deep", bytes.Replace(good, []byte(`"labels":{`), []byte(`"labels":{"deep":`+deep+`,`), 1), "400"},
		{"two specs", bytes.Replace(good, []byte(`"spec":{`), []byte(`"spec":{},"spec":{`), 1), "200, not allowed"},
		{"no review", []byte(`{"apiVersion":"v1","kind":"Pod"}`), "400"},
	}
	for name, image := range map[string]string{
		"foreign registry": "evil.example/x:v1.0.0", "forbidden tag": s.Ref(repository(0) + ":latest"), "not canonical": s.Ref("golden/../evil:v1.0.0"),
		"unsigned": s.Ref(repository(0) + ":v8.8.8@" + unsigned),
	} {
		body, err := review(image)
		if err != nil {
			return nil, err
		}
		list = append(list, attack{name, body, "200, not allowed"})
	}
	return list, nil
}

// attackWith sends one after the other to the validating half until ctx ends, and counts the answers.
func (t *target) attackWith(ctx context.Context, attacks []attack) map[string]int {
	answers := map[string]int{}
	for i := rand.IntN(len(attacks)); ctx.Err() == nil; i++ {
		a := attacks[i%len(attacks)]
		answer := t.attack(ctx, a)
		if ctx.Err() != nil {
			return answers
		}
		answers[a.name+": "+answer]++
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return answers
}

// attack sends it to the validating half, which is the one that refuses.
func (t *target) attack(ctx context.Context, a attack) (answer string) {
	status, text, err := t.client.Post(ctx, "/validate?timeout=10s", a.body)
	switch {
	case err != nil:
		return "with a cut connection"
	case status == http.StatusOK && bytes.Contains(text, []byte(`"allowed":true`)):
		return "200, allowed"
	case status == http.StatusOK:
		return "200, not allowed"
	}
	return fmt.Sprint(status)
}
