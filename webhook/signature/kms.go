package signature

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// A kmsProvider is where keys are kept. The clients of clouds are large and look for credentials in many places, so
// each is linked only with its build tag; sigstore's provider packages register themselves with sigstore's kms then.
type kmsProvider struct {
	scheme  string
	name    string
	form    string // of a reference, for messages
	tag     string // "" is built in
	pattern *regexp.Regexp
}

const (
	awsID  = `(mrk-)?[A-Fa-f0-9-]{32,36}`
	awsARN = `arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:`
)

// kmsProviders have the references of sigstore's providers, so that a signer is written as for cosign.
var kmsProviders = []kmsProvider{
	{"awskms://", "AWS KMS", "awskms://[ENDPOINT]/ID, ARN or alias/NAME", "kms_aws",
		regexp.MustCompile(`^awskms://[^/@\s]*/` +
			`(` + awsID + `|` + awsARN + `key/` + awsID + `|(` + awsARN + `)?alias/[\w/-]+)$`)},
	{"azurekms://", "Azure Key Vault", "azurekms://VAULT_HOST/KEY or azurekms://VAULT_HOST/KEY/VERSION", "kms_azure",
		regexp.MustCompile(`^azurekms://[A-Za-z0-9.:-]+/[A-Za-z0-9-]+(/[a-z0-9]*)?$`)},
	{"gcpkms://", "Google Cloud KMS",
		"gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY[/cryptoKeyVersions/VERSION]", "kms_gcp",
		regexp.MustCompile(`^gcpkms://projects/[\w.:-]+/locations/[\w-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+` +
			`(/(cryptoKeyVersions|versions)/\d+)?$`)},
	{"hashivault://", "HashiCorp Vault", "hashivault://KEY", "", regexp.MustCompile(`^hashivault://\w(([\w.-]+)?\w)?$`)},
	{"openbao://", "OpenBao", "openbao://KEY", "", regexp.MustCompile(`^openbao://\w(([\w.-]+)?\w)?$`)},
}

// checkKMS says at load time what is wrong with the reference of a key. It contacts nobody and never quotes the
// reference: somebody may have written credentials into it.
func checkKMS(uri string) error {
	provider, err := kmsProviderOf(uri)
	switch {
	case err != nil:
		return err
	case !provider.pattern.MatchString(uri):
		return fmt.Errorf("a key in %s is written %s", provider.name, provider.form)
	case provider.tag != "" && !slices.Contains(kms.SupportedProviders(), provider.scheme):
		return fmt.Errorf("this hallmark is built without %s; build it with -tags %s, or give the public key itself "+
			"(cosign public-key --key %s)", provider.name, provider.tag, uri)
	}
	return nil
}

func kmsProviderOf(uri string) (kmsProvider, error) {
	schemes := make([]string, 0, len(kmsProviders))
	for _, p := range kmsProviders {
		if strings.HasPrefix(uri, p.scheme) {
			return p, nil
		}
		schemes = append(schemes, p.scheme)
	}
	return kmsProvider{}, fmt.Errorf("a key in a KMS begins with one of %s", strings.Join(schemes, " "))
}

// kmsKey gives what reads a public key from its KMS, for one caller at a time, or what checkKMS finds wrong with the
// reference. The client is kept between readings: Google's cannot be closed.
func kmsKey(uri string) (read func(context.Context) (crypto.PublicKey, error), err error) {
	if err := checkKMS(uri); err != nil {
		return nil, err
	}
	provider, err := kmsProviderOf(uri)
	if err != nil {
		return nil, err
	}
	ask := vaultKey
	if provider.tag != "" {
		ask = new(cloudKey).read
	}
	return func(ctx context.Context) (crypto.PublicKey, error) {
		public, err := ask(ctx, uri)
		switch {
		case err == nil:
			return public, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("read %s: no answer in time: %w", uri, ctx.Err())
		}
		return nil, fmt.Errorf("read %s: %s", uri, withoutSecrets(err.Error()))
	}, nil
}

// A cloudKey is read with one of sigstore's providers.
type cloudKey struct {
	turn   chan struct{} // held by the goroutine that uses client
	client kms.SignerVerifier
}

// read asks on a goroutine of its own, because Google's provider does not know of the context; what is left behind ends
// by the time-outs of the client, and nobody asks again before.
func (c *cloudKey) read(ctx context.Context, uri string) (crypto.PublicKey, error) {
	if c.turn == nil {
		c.turn = make(chan struct{}, 1)
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	type answer struct {
		public crypto.PublicKey
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		defer func() { <-c.turn }()
		public, err := c.ask(ctx, uri)
		answered <- answer{public, err}
	}()
	select {
	case a := <-answered:
		return a.public, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask contains panics: the providers follow pointers in what they are answered.
func (c *cloudKey) ask(ctx context.Context, uri string) (public crypto.PublicKey, err error) {
	defer func() {
		if p := recover(); p != nil {
			public, err = nil, fmt.Errorf("the client panicked: %T", p)
		}
	}()
	if os.Getenv("AWS_TLS_INSECURE_SKIP_VERIFY") == "1" {
		return nil, errors.New("AWS_TLS_INSECURE_SKIP_VERIFY is set, so anybody could answer for the KMS; unset it")
	}
	if c.client == nil {
		// Clients keep the context for later, when they renew credentials. kms.Get runs programs for schemes that it does
		// not know; checkKMS has seen that it knows this one.
		if c.client, err = kms.Get(context.WithoutCancel(ctx), uri, crypto.SHA256); err != nil {
			return nil, err
		}
	}
	return c.client.PublicKey(sigstore.PublicKeyOption(options.WithContext(ctx)))
}

// secretVariables are where the clients find credentials, and proxies their passwords.
var secretVariables = []string{
	"VAULT_TOKEN", "BAO_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "AZURE_PASSWORD",
	"AZURE_CLIENT_CERTIFICATE_PASSWORD", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy",
}

// withoutSecrets makes one line of bounded length of what a client says, without the credentials that it was given:
// servers have been seen to repeat them.
func withoutSecrets(text string, secrets ...string) string {
	const shortest, longest = 4, 500
	for _, name := range secretVariables {
		secrets = append(secrets, os.Getenv(name))
	}
	for _, secret := range secrets {
		if len(secret) >= shortest {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	text = strings.Join(strings.Fields(text), " ")
	return strings.ToValidUTF8(text[:min(len(text), longest)], "")
}
