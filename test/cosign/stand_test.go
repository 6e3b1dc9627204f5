package cosign

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-admission/hallmark/test/pinned"
)

// programs are the paths of those under test, and of what they are tested with.
var programs struct {
	Programs
	stand string
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hallmark-cosign-")
	if err == nil {
		err = buildPrograms(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// buildPrograms builds the stand, too. It belongs to the module around this one, so it is run and not imported.
func buildPrograms(ctx context.Context, dir string) (err error) {
	if programs.Programs, err = Build(ctx, os.Stderr); err != nil {
		return err
	}
	programs.stand = filepath.Join(dir, "stand")
	return pinned.BuildOurs(ctx, filepath.Join("..", ".."), programs.stand,
		"./test/cosign/testdata/stand/main.go", "./test/cosign/testdata/stand/sigstore.go")
}

// environment has no proxy variables for loopback, and for all else a proxy that is not there: nothing leaves the machine.
func environment(home string) []string {
	const nobody = "http://127.0.0.1:1"
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "HTTP_PROXY=" + nobody, "HTTPS_PROXY=" + nobody, "COSIGN_PASSWORD=x",
	}
}

// A stand is a registry, and the product to ask what it says of images in it (testdata/stand).
type stand struct {
	t      *testing.T
	host   string
	caFile string // "" for plain HTTP

	sigstore    string // URL of the services for keyless signatures
	trustedRoot string // file with whom to believe for them
	orders      *json.Encoder
	said        *json.Decoder
}

// Of what the stand says, and is told, the fields that matter here; their meaning is that of package webhook.
type (
	order struct {
		Push      *push     `json:",omitempty"`
		Ask       *question `json:",omitempty"`
		Platforms *manifest `json:",omitempty"`
	}
	manifest struct{ Repository, Digest string }
	push     struct {
		Repository, Tag string
		Index           bool
	}
	question struct {
		Image        string
		CA           []byte
		PlainHTTP    bool
		Signers      map[string]trusted
		Signatures   []rule            `json:",omitempty"`
		Attestations []attestationRule `json:",omitempty"`
	}
	trusted struct {
		KeyFile     string
		Keyless     *identity `json:",omitempty"`
		TrustedRoot string
		SCT         string
		Timestamp   string
	}
	identity struct{ Issuer, Subject string }
	rule     struct {
		AnyOf      []string
		Threshold  int
		Repository string   `json:",omitempty"`
		Names      []string `json:",omitempty"`
		Platforms  string   `json:",omitempty"`
	}
	attestationRule struct {
		PredicateType string
		AnyOf         []string
	}
	answer struct {
		Digest     string
		Platforms  []string
		Signatures struct {
			Valid    []struct{ Signer, Digest, Key, Identity string }
			Found    int
			Rejected []string
		}
		Attestations struct {
			Valid []struct {
				PredicateType, Signer, Digest, Identity string
				Predicate                               struct{ JSON []byte }
			}
			Found    int
			Rejected []string
		}
		Error string
	}
)

func startStand(t *testing.T, flags ...string) *stand {
	t.Helper()
	command := exec.Command(programs.stand, flags...)
	command.Env = environment(t.TempDir())
	in, err := command.StdinPipe()
	must(t, err)
	out, err := command.StdoutPipe()
	must(t, err)
	var stderr strings.Builder
	command.Stderr = &stderr
	must(t, command.Start())
	t.Cleanup(func() {
		_ = in.Close()
		killer := time.AfterFunc(15*time.Second, func() { _ = command.Process.Kill() })
		defer killer.Stop()
		_, _ = io.Copy(io.Discard, out)
		if err := command.Wait(); err != nil {
			t.Errorf("the stand: %v\n%s", err, stderr.String())
		}
	})
	s := &stand{t: t, orders: json.NewEncoder(in), said: json.NewDecoder(out)}
	var where struct {
		Host            string
		CA, TrustedRoot []byte
		Sigstore        string
	}
	must(t, s.said.Decode(&where))
	s.host, s.sigstore = where.Host, where.Sigstore
	s.trustedRoot = filepath.Join(t.TempDir(), "trusted_root.json")
	must(t, os.WriteFile(s.trustedRoot, where.TrustedRoot, 0o600))
	if where.CA != nil {
		s.caFile = filepath.Join(t.TempDir(), "ca.pem")
		must(t, os.WriteFile(s.caFile, where.CA, 0o600))
	}
	return s
}

// in is the same stand for a part of the test.
func (s *stand) in(t *testing.T) *stand {
	part := *s
	part.t = t
	return &part
}

// tell gives the stand's answer to an order; its error is for whoever asked.
func (s *stand) tell(o order) answer {
	s.t.Helper()
	must(s.t, s.orders.Encode(o))
	var got answer
	must(s.t, s.said.Decode(&got))
	return got
}

// push stores an image, or an index, and gives it by digest.
func (s *stand) push(repository string, index bool) string {
	s.t.Helper()
	got := s.tell(order{Push: &push{repository, "v1", index}})
	if got.Error != "" {
		s.t.Fatal(got.Error)
	}
	return s.host + "/" + repository + "@" + got.Digest
}

// ask asks the product about an image in this registry, or in another whose authority is in caFile.
func (s *stand) ask(q question) answer {
	s.t.Helper()
	if q.CA == nil && s.caFile != "" {
		text, err := os.ReadFile(s.caFile)
		must(s.t, err)
		q.CA = text
	}
	q.PlainHTTP = q.CA == nil
	return s.tell(order{Ask: &q})
}

// platforms gives those of an index, by digest.
func (s *stand) platforms(index string) (images []string) {
	s.t.Helper()
	repository, digest, _ := strings.Cut(strings.TrimPrefix(index, s.host+"/"), "@")
	for _, platform := range s.tell(order{Platforms: &manifest{repository, digest}}).Platforms {
		images = append(images, s.host+"/"+repository+"@"+platform)
	}
	return images
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
