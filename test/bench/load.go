package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/hallmark-admission/hallmark/test/harness"
)

// An outcome is what came of a pod.
type outcome string

const (
	allowed   outcome = "allowed"
	denied    outcome = "denied"    // 403
	undecided outcome = "undecided" // 503
	failed    outcome = "error"     // no answer, or none that an API server takes
)

// A workload is pods that differ in nothing but name and uid.
type workload struct {
	first  *template
	second sync.Map // patch → *template: the pod with the patch applied
}

func newWorkload(images []string, size int) (*workload, error) {
	object, err := harness.Pod(images, size)
	if err != nil {
		return nil, err
	}
	first, err := newTemplate(object)
	return &workload{first: first}, err
}

// patched applies a patch. What the same patch makes of the same pod is remembered: the load program shall not take the
// machine from the server.
func (w *workload) patched(patch []byte) (*template, error) {
	if known, ok := w.second.Load(string(patch)); ok {
		return known.(*template), nil
	}
	decoded, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, fmt.Errorf("decode the patch: %w", err)
	}
	object, err := decoded.Apply(w.first.object)
	if err != nil {
		return nil, fmt.Errorf("apply the patch %s: %w", patch, err)
	}
	second, err := newTemplate(object)
	if err != nil {
		return nil, err
	}
	w.second.Store(string(patch), second)
	return second, nil
}

// A sample is one pod's way through both halves.
type sample struct {
	start   time.Time
	took    time.Duration
	outcome outcome
	reviews int
	patch   []byte
	says    string // of an outcome other than allowed
}

// admit sends a pod through both halves. Without a patch, which the floor does not give, the second half gets the same pod.
func (t *target) admit(ctx context.Context, w *workload, number uint64) (s sample) {
	s.start = time.Now()
	defer func() { s.took = time.Since(s.start) }()
	second := w.first
	for half, path := range []string{"/mutate?timeout=10s", "/validate?timeout=10s"} {
		from := w.first
		if half == 1 {
			from = second
		}
		body, uid := from.fill(number, half)
		response, err := t.ask(ctx, path, body, uid)
		s.reviews++
		switch {
		case err != nil:
			s.outcome, s.says = failed, err.Error()
			return s
		case !response.Allowed && response.Result != nil && response.Result.Code == http.StatusServiceUnavailable:
			s.outcome, s.says = undecided, response.Result.Message
			return s
		case !response.Allowed:
			s.outcome = denied
			if response.Result != nil {
				s.says = response.Result.Message
			}
			return s
		}
		if half == 0 && len(response.Patch) > 0 {
			s.patch = response.Patch
			if second, err = w.patched(response.Patch); err != nil {
				s.outcome, s.says = failed, err.Error()
				return s
			}
		}
	}
	s.outcome = allowed
	return s
}

func (t *target) ask(ctx context.Context, path string, body []byte, uid string) (*admissionv1.AdmissionResponse, error) {
	status, text, err := t.client.Post(ctx, path, body)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d: %s", path, status, bytes.TrimSpace(text))
	}
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(text, &answer); err != nil || answer.Response == nil || string(answer.Response.UID) != uid {
		return nil, fmt.Errorf("%s answered no review of %s: %s", path, uid, text)
	}
	return answer.Response, nil
}

// A turn is what one server did in one or several intervals.
type turn struct {
	took     []time.Duration // a pod
	outcomes map[outcome]int
	says     map[outcome]string // the first words of each outcome but allowed
	reviews  int
	wall     time.Duration
	cpu      time.Duration
	requests int64 // to the registry
	now      usage // at the end
}

func (t *turn) add(s sample) {
	if t.outcomes == nil {
		t.outcomes, t.says = map[outcome]int{}, map[outcome]string{}
	}
	t.took = append(t.took, s.took)
	t.outcomes[s.outcome]++
	t.reviews += s.reviews
	if _, said := t.says[s.outcome]; !said && s.outcome != allowed {
		t.says[s.outcome] = s.says
	}
}

func (t *turn) join(other turn) {
	t.took = append(t.took, other.took...)
	if t.outcomes == nil {
		t.outcomes, t.says = map[outcome]int{}, map[outcome]string{}
	}
	for o, n := range other.outcomes {
		t.outcomes[o] += n
	}
	for o, text := range other.says {
		if _, said := t.says[o]; !said {
			t.says[o] = text
		}
	}
	t.reviews += other.reviews
	t.wall += other.wall
	t.cpu += other.cpu
	t.requests += other.requests
	t.now = other.now
}

// quantile of the pods: 0.5, 0.95, 1 for the slowest.
func (t *turn) quantile(q float64) time.Duration {
	if len(t.took) == 0 {
		return 0
	}
	slices.Sort(t.took)
	return t.took[min(len(t.took)-1, int(q*float64(len(t.took))))]
}

// measured runs something and adds what the server used meanwhile.
func (s *stand) measured(t *target, run func() []sample) (turn, error) {
	before, err := t.used()
	if err != nil {
		return turn{}, err
	}
	asked, start := s.network.requests.Load(), time.Now()
	samples := run()
	result := turn{wall: time.Since(start), requests: s.network.requests.Load() - asked}
	if result.now, err = t.used(); err != nil {
		return turn{}, err
	}
	result.cpu = result.now.cpu - before.cpu
	for _, sample := range samples {
		result.add(sample)
	}
	return result, nil
}

// clients has n clients send pods, one after the other, until pick gives none. Pick is told how many were sent before.
func (s *stand) clients(ctx context.Context, t *target, n int, pick func(i int) *workload) []sample {
	var sent atomic.Int64
	var group sync.WaitGroup
	each := make([][]sample, n)
	base := s.pods
	for c := range n {
		group.Go(func() {
			for ctx.Err() == nil {
				i := int(sent.Add(1)) - 1
				w := pick(i)
				if w == nil {
					return
				}
				each[c] = append(each[c], t.admit(ctx, w, base+uint64(i)))
			}
		})
	}
	group.Wait()
	s.pods += uint64(sent.Load())
	return slices.Concat(each...)
}

// during picks one workload for a time.
func during(length time.Duration, w *workload) func(int) *workload {
	end := time.Now().Add(length)
	return func(int) *workload {
		if time.Now().After(end) {
			return nil
		}
		return w
	}
}

// once picks each workload once.
func once(list []*workload) func(int) *workload {
	return func(i int) *workload {
		if i >= len(list) {
			return nil
		}
		return list[i]
	}
}
