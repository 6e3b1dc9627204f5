package signature

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// maxVaultBytes bounds an answer; a key with a hundred versions takes 40 kB.
const maxVaultBytes = 1 << 20

// A vault is a transit secrets engine of Vault or OpenBao, as the environment gives it to their own programs and to
// cosign; but VAULT_SKIP_VERIFY is not heeded, because whoever answers would be believed. It is asked by one request of
// our own: the client of sigstore's provider knows neither context nor time-out nor limit, and without a token it runs
// programs to find one.
type vault struct {
	address   *url.URL
	engine    string // path at which the transit engine is mounted
	namespace string
	token     string
	client    *http.Client
}

// vaultKey reads the latest version of a transit key.
func vaultKey(ctx context.Context, uri string) (crypto.PublicKey, error) {
	v, err := newVault()
	if err != nil {
		return nil, err
	}
	defer v.client.CloseIdleConnections()
	_, name, _ := strings.Cut(uri, "://")
	body, err := v.get(ctx, "v1/"+v.engine+"/keys/"+name)
	if err != nil {
		return nil, errors.New(withoutSecrets(err.Error(), v.token))
	}
	return parseVaultKey(body)
}

// newVault reads the environment anew each time: the file with the token is replaced as the token is renewed.
func newVault() (*vault, error) {
	v := &vault{
		engine:    strings.Trim(either("TRANSIT_SECRET_ENGINE_PATH"), "/"),
		namespace: either("VAULT_NAMESPACE", "BAO_NAMESPACE"),
		token:     either("VAULT_TOKEN", "BAO_TOKEN"),
	}
	if v.engine == "" {
		v.engine = "transit"
	}
	address := either("VAULT_ADDR", "BAO_ADDR")
	if address == "" {
		return nil, errors.New("VAULT_ADDR is not set (nor BAO_ADDR)")
	}
	var err error
	if v.address, err = outsideURL(address); err != nil {
		return nil, fmt.Errorf("VAULT_ADDR: %w", err)
	}
	if v.token == "" {
		home, _ := os.UserHomeDir()
		token, _ := os.ReadFile(filepath.Join(home, ".vault-token"))
		if v.token = strings.TrimSpace(string(token)); v.token == "" {
			return nil, errors.New("there is no token: VAULT_TOKEN is not set, and there is no file .vault-token at home")
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := either("VAULT_CACERT", "BAO_CACERT"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("VAULT_CACERT: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("VAULT_CACERT: there is no certificate in the file")
		}
	}
	v.client = &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second,
			ForceAttemptHTTP2: true,
		},
		// The token goes to the configured address and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return v, nil
}

func (v *vault) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, v.address.JoinPath(path).String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Vault-Token", v.token)
	request.Header.Set("X-Vault-Request", "true") // what Vault's agent wants, against forged requests
	if v.namespace != "" {
		request.Header.Set("X-Vault-Namespace", v.namespace)
	}
	response, err := v.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxVaultBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	case len(body) > maxVaultBytes:
		return nil, fmt.Errorf("the answer has more than %d bytes", maxVaultBytes)
	case response.StatusCode == http.StatusOK:
		return body, nil
	}
	var problem struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(body, &problem) != nil || len(problem.Errors) == 0 {
		return nil, fmt.Errorf("the answer is %s", response.Status)
	}
	return nil, fmt.Errorf("the answer is %s: %s", response.Status, strings.Join(problem.Errors, "; "))
}

// parseVaultKey reads an answer of Vault's API: for each version the key in PEM, of Ed25519 its bytes in base64, and
// for keys that do not sign only a time.
func parseVaultKey(body []byte) (crypto.PublicKey, error) {
	type version struct {
		Name      string `json:"name"`
		PublicKey string `json:"public_key"`
	}
	var answer struct {
		Data struct {
			LatestVersion int                `json:"latest_version"`
			Keys          map[string]version `json:"keys"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, errors.New("the answer holds no public key; is it a key for signing?")
	}
	latest, ok := answer.Data.Keys[strconv.Itoa(answer.Data.LatestVersion)]
	switch {
	case !ok || latest.PublicKey == "":
		return nil, errors.New("the answer holds no public key; is it a key for signing?")
	case latest.Name == "ed25519":
		raw, err := base64.StdEncoding.DecodeString(latest.PublicKey)
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, errors.New("the Ed25519 public key in the answer cannot be read")
		}
		return ed25519.PublicKey(raw), nil
	}
	return parsePublicKey([]byte(latest.PublicKey))
}

// either is the first of the variables of the environment that is set.
func either(names ...string) string {
	for _, name := range names {
		if value := os.Getenv(name); value != "" {
			return value
		}
	}
	return ""
}
