package attack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/harness"
	"github.com/hallmark-admission/hallmark/webhook/registrytest"
	"github.com/hallmark-admission/hallmark/webhook/servertest"
)

// TestTimeoutOfTheAPIServer: with a registry that takes longer than the API server waits, both halves answer before it
// gives up, however many ask, and the registry is asked once.
func TestTimeoutOfTheAPIServer(t *testing.T) {
	const waits = 3 * time.Second
	var asked atomic.Int64
	w := newWorld(t, registrytest.Config{Intercept: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/golden/tools/") {
				asked.Add(1)
				time.Sleep(5 * time.Second)
			}
			next.ServeHTTP(rw, r)
		})
	}}, nil)
	review, err := servertest.NewReview("705ab4f5-6393-11e8-b7cc-42010a800002", servertest.Object{JSON: encode(t, w.pod(image(w.Ref("golden/tools:v1.0.0"))))})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 20 {
		path, want := "/validate", `"code":503`
		if i%2 == 0 {
			path, want = "/mutate", `"allowed":true` // the pinning half does not deny
		}
		group.Go(func() {
			start := time.Now()
			status, text, err := w.Client.Post(t.Context(), fmt.Sprintf("%s?timeout=%s", path, waits), body)
			if took := time.Since(start); err != nil || status != http.StatusOK || !bytes.Contains(text, []byte(want)) || took > waits {
				t.Errorf("%s answered %d %s %v after %v, want %s within %v", path, status, text, err, took, want, waits)
			}
		})
	}
	group.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("the registry was asked %d times", n)
	}
}

// TestStartAlone: a webhook whose registry is not there when it starts is ready all the same, judges what needs no
// registry, and says of the rest that it could not be checked. A key needs nobody to be believed.
func TestStartAlone(t *testing.T) {
	f, err := harness.NewFixture(t.Context(), t.TempDir(), registrytest.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Registry.Close(); err != nil {
		t.Fatal(err)
	}
	hook, err := harness.Serve(t.Context(), binary, f)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := hook.Stop(); err != nil {
			t.Error(err)
		}
	}()
	w := world{f, hook}
	for _, path := range []string{"/readyz", "/livez"} {
		if status, text := probe(t, hook, path); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	denied("docker.io is not an internal registry").check(t, w.admit(t, w.pod(image("docker.io/library/ubuntu:latest"))))
	want{code: 503, says: []string{"could not be checked: " + w.Registry.Host() + " refused the connection; try again."}}.check(t, w.admit(t, w.pod()))
}
