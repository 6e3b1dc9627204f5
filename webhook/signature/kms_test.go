package signature

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature/kms"
)

func TestCheckKMS(t *testing.T) {
	const id = "1234abcd-12ab-34cd-56ef-1234567890ab"
	const ring = "gcpkms://projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"
	for _, tc := range []struct {
		uri, want string // want is "" for a good one of a provider that is built in
		tag       string // of the provider of a good one
	}{
		{uri: "hashivault://release-key.1"},
		{uri: "openbao://release"},
		{uri: "hashivault://", want: "a key in HashiCorp Vault is written hashivault://KEY"},
		{uri: "hashivault://a/b", want: "a key in HashiCorp Vault is written"},
		{uri: "hashivault://../sys", want: "a key in HashiCorp Vault is written"},
		{uri: "hashivault://u:s3cr3t@vault/key", want: "a key in HashiCorp Vault is written"},
		{uri: "awskms:///" + id, tag: "kms_aws"},
		{uri: "awskms://localhost:4566/" + id, tag: "kms_aws"},
		{uri: "awskms:///arn:aws:kms:us-east-2:111122223333:key/" + id, tag: "kms_aws"},
		{uri: "awskms:///arn:aws-us-gov:kms:us-gov-east-1:111122223333:alias/Example", tag: "kms_aws"},
		{uri: "awskms:///alias/Example", tag: "kms_aws"},
		{uri: "awskms:///key/" + id, want: "a key in AWS KMS is written"},
		{uri: "awskms://AKIA:s3cr3t@host/" + id, want: "a key in AWS KMS is written"},
		{uri: "azurekms://v.vault.azure.net/key", tag: "kms_azure"},
		{uri: "azurekms://v.vault.azure.net/key/0123abc", tag: "kms_azure"},
		{uri: "azurekms://v.vault.azure.net", want: "a key in Azure Key Vault is written"},
		{uri: ring, tag: "kms_gcp"},
		{uri: ring + "/cryptoKeyVersions/1", tag: "kms_gcp"},
		{uri: "gcpkms://projects/p", want: "a key in Google Cloud KMS is written"},
		{uri: "pkcs11://s3cr3t",
			want: "a key in a KMS begins with one of awskms:// azurekms:// gcpkms:// hashivault:// openbao://"},
		{uri: "", want: "a key in a KMS begins with one of"},
	} {
		t.Run(tc.uri, func(t *testing.T) {
			want := tc.want
			scheme, _, _ := strings.Cut(tc.uri, "://")
			if tc.tag != "" && !slices.Contains(kms.SupportedProviders(), scheme+"://") {
				want = "build it with -tags " + tc.tag
			}
			err := checkKMS(tc.uri)
			if !says(err, want) {
				t.Errorf("got %v, want %q", err, want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error says too much: %v", err)
			}
			if _, other := kmsKey(tc.uri); (other == nil) != (err == nil) {
				t.Errorf("kmsKey says %v", other)
			}
		})
	}
}

const vaultToken = "hvs.s3cr3t-token"

// newTestVault answers like Vault's API, for the transit engine and the keys that are given as JSON of their versions.
func newTestVault(t *testing.T, keys map[string]string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fail := func(status int, text string) {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"errors":[%q]}`, text)
		}
		name, ok := strings.CutPrefix(r.URL.Path, "/v1/transit/keys/")
		versions, known := keys[name]
		token := r.Header.Get("X-Vault-Token")
		switch {
		case r.Header.Get("X-Vault-Request") != "true":
			fail(http.StatusPreconditionFailed, "missing required header")
		case token != vaultToken:
			fail(http.StatusForbidden, "permission denied for "+token)
		case !ok:
			fail(http.StatusNotFound, "no handler for route")
		case !known:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors":[]}`)
		case versions == "hang":
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // to return would be to answer
		case versions == "echo":
			fail(http.StatusBadRequest, "bad token "+token+"\nof the request")
		case versions == "redirect":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		case versions == "endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		default:
			fmt.Fprintf(w, `{"request_id":"1","data":{"name":%q,"latest_version":2,"keys":%s}}`, name, versions)
		}
	}))
	t.Cleanup(server.Close)
	for _, name := range []string{
		"BAO_ADDR", "BAO_TOKEN", "BAO_CACERT", "VAULT_NAMESPACE", "VAULT_CACERT", "TRANSIT_SECRET_ENGINE_PATH",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_TOKEN", vaultToken)
	t.Setenv("HOME", t.TempDir())
	return server
}

func newTestKey(t *testing.T) (public *ecdsa.PublicKey, der []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if der, err = x509.MarshalPKIXPublicKey(private.Public()); err != nil {
		t.Fatal(err)
	}
	return &private.PublicKey, der
}

func TestVault(t *testing.T) {
	public, der := newTestKey(t)
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	newTestVault(t, map[string]string{
		"release":   fmt.Sprintf(`{"1":{"name":"P-256","public_key":"old"},"2":{"name":"P-256","public_key":%q}}`, encoded),
		"edwards":   fmt.Sprintf(`{"2":{"name":"ed25519","public_key":%q}}`, base64.StdEncoding.EncodeToString(edwards)),
		"short":     `{"2":{"name":"ed25519","public_key":"AAAA"}}`,
		"aes":       `{"2":1700000000}`,
		"noversion": `{"1":{"name":"P-256","public_key":"old"}}`,
		"garbage":   `{"2":{"name":"P-256","public_key":"garbage"}}`,
		"broken":    `{{`,
		"echo":      "echo", "redirect": "redirect", "endless": "endless",
	})
	for _, tc := range []struct {
		name string
		env  map[string]string
		uri  string
		err  string
	}{
		{name: "ECDSA", uri: "hashivault://release"},
		{name: "OpenBao", uri: "openbao://release", env: map[string]string{
			"BAO_ADDR": os.Getenv("VAULT_ADDR"), "BAO_TOKEN": vaultToken, "VAULT_ADDR": "", "VAULT_TOKEN": ""}},
		{name: "Ed25519", uri: "hashivault://edwards"},
		{name: "short Ed25519", uri: "hashivault://short", err: "Ed25519 public key in the answer cannot be read"},
		{name: "no signing key", uri: "hashivault://aes", err: "is it a key for signing?"},
		{name: "no latest version", uri: "hashivault://noversion", err: "is it a key for signing?"},
		{name: "garbage", uri: "hashivault://garbage", err: "PEM"},
		{name: "broken", uri: "hashivault://broken", err: "is it a key for signing?"},
		{name: "unknown", uri: "hashivault://unknown", err: "read hashivault://unknown: the answer is 404 Not Found"},
		{name: "wrong token", uri: "hashivault://release", env: map[string]string{"VAULT_TOKEN": "hvs.s3cr3t-other"},
			err: "403 Forbidden: permission denied for [redacted]"},
		{name: "token repeated", uri: "hashivault://echo", err: "400 Bad Request: bad token [redacted] of the request"},
		{name: "redirect", uri: "hashivault://redirect", err: "307 Temporary Redirect"},
		{name: "endless", uri: "hashivault://endless", err: "the answer has more than 1048576 bytes"},
		{name: "no engine", uri: "hashivault://release", env: map[string]string{"TRANSIT_SECRET_ENGINE_PATH": "other"},
			err: "no handler for route"},
		{name: "no token", uri: "hashivault://release", env: map[string]string{"VAULT_TOKEN": ""},
			err: "VAULT_TOKEN is not set"},
		{name: "no address", uri: "hashivault://release", env: map[string]string{"VAULT_ADDR": ""},
			err: "VAULT_ADDR is not set"},
		{name: "in the clear", uri: "hashivault://release", env: map[string]string{
			"VAULT_ADDR": "http://vault.example.com:8200"}, err: "VAULT_ADDR: the URL has to begin with https://"},
		{name: "credentials in the address", uri: "hashivault://release", env: map[string]string{
			"VAULT_ADDR": "https://u:s3cr3t@vault"}, err: "VAULT_ADDR: the URL has to be without credentials"},
		{name: "no authority", uri: "hashivault://release", env: map[string]string{"VAULT_CACERT": "/does/not/exist"},
			err: "VAULT_CACERT: open /does/not/exist"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, value := range tc.env {
				t.Setenv(name, value)
			}
			read, err := kmsKey(tc.uri)
			if err != nil {
				t.Fatal(err)
			}
			got, err := read(t.Context())
			switch {
			case tc.err != "":
				if err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "s3cr3t") {
					t.Errorf("got %v, %v; want %q", got, err, tc.err)
				}
			case err != nil:
				t.Error(err)
			case !public.Equal(got) && !edwards.Equal(got):
				t.Errorf("got another key: %v", got)
			}
		})
	}
}

// The file is read each time, since whoever renews the token replaces it.
func TestVaultTokenFile(t *testing.T) {
	_, der := newTestKey(t)
	encoded := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	newTestVault(t, map[string]string{"release": fmt.Sprintf(`{"2":{"public_key":%q}}`, encoded)})
	t.Setenv("VAULT_TOKEN", "")
	home, _ := os.UserHomeDir()
	read, err := kmsKey("hashivault://release")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ token, want string }{
		{"hvs.s3cr3t-old\n", "permission denied for [redacted]"}, {vaultToken + "\n", ""},
	} {
		if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte(tc.token), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := read(t.Context()); !says(err, tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
}

func TestVaultOverTLS(t *testing.T) {
	_, der := newTestKey(t)
	encoded := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	plain := newTestVault(t, map[string]string{"release": fmt.Sprintf(`{"2":{"public_key":%q}}`, encoded)})
	server := httptest.NewUnstartedServer(plain.Config.Handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it will not be believed once
	server.StartTLS()
	t.Cleanup(server.Close)
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_SKIP_VERIFY", "true")
	read, err := kmsKey("hashivault://release")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want it not to believe anybody", err)
	}
	t.Setenv("VAULT_CACERT", writeCA(t, server))
	if _, err := read(t.Context()); err != nil {
		t.Error(err)
	}
}

// writeCA gives the file with the certificate of a server.
func writeCA(t *testing.T, server *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVaultHangs(t *testing.T) {
	newTestVault(t, map[string]string{"release": "hang"})
	read, err := kmsKey("hashivault://release")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := read(ctx); !errors.Is(err, context.DeadlineExceeded) || !says(err, "no answer in time") {
		t.Errorf("got %v", err)
	}
}

func TestWithoutSecrets(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-key")
	got := withoutSecrets("a s3cr3t-key\n\tand\x00 " + strings.Repeat("é", 400))
	if strings.Contains(got, "s3cr3t") || !strings.HasPrefix(got, "a [redacted] and") || len(got) > 500 {
		t.Errorf("got %q", got)
	}
}
