//go:build kms_aws || kms_all

package signature

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestAWS speaks to sigstore's provider and Amazon's client as AWS KMS does, over TLS.
func TestAWS(t *testing.T) {
	const id = "1234abcd-12ab-34cd-56ef-1234567890ab"
	public, der := newTestKey(t)
	var mode atomic.Pointer[string]
	set := func(text string) { mode.Store(&text) }
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A handler hears of the client's going only once it has read what was sent.
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		switch target := r.Header.Get("X-Amz-Target"); {
		case *mode.Load() == "hang":
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // to return would be to answer
		case *mode.Load() == "deny":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"__type":"AccessDeniedException","message":"not with s3cr3t-key"}`)
		case !strings.Contains(r.Header.Get("Authorization"), "Credential=AKIDEXAMPLE/"):
			w.WriteHeader(http.StatusForbidden)
		case target == "TrentService.GetPublicKey":
			fmt.Fprintf(w, `{"KeyId":%q,"PublicKey":%q}`, id, base64.StdEncoding.EncodeToString(der))
		case target == "TrentService.DescribeKey":
			fmt.Fprintf(w, `{"KeyMetadata":{"KeyId":%q,"SigningAlgorithms":["ECDSA_SHA_256"]}}`, id)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_CA_BUNDLE": writeCA(t, server), "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
		"AWS_SECRET_ACCESS_KEY": "s3cr3t-key", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE":           "/does/not/exist", "AWS_SHARED_CREDENTIALS_FILE": "/does/not/exist",
		"AWS_MAX_ATTEMPTS": "1",
	} {
		t.Setenv(name, value)
	}
	read, err := kmsKey("awskms://" + server.Listener.Addr().String() + "/" + id)
	if err != nil {
		t.Fatal(err)
	}
	set("deny")
	if _, err := read(t.Context()); !says(err, "AccessDeniedException: not with [redacted]") {
		t.Errorf("got %v", err)
	}
	set("hang")
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := read(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	set("")
	got, err := read(t.Context())
	if err != nil || !public.Equal(got) {
		t.Errorf("got %v, %v", got, err)
	}
	t.Setenv("AWS_TLS_INSECURE_SKIP_VERIFY", "1")
	if _, err := read(t.Context()); !says(err, "unset it") {
		t.Errorf("got %v", err)
	}
}
