package registry

import (
	"encoding/base64"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/hallmark-admission/hallmark/webhook"
)

// credentials are the entries of Docker configs that concern one registry, the longest name first in each.
type credentials []login

type login struct {
	name string // "registry.corp.example:5000", "registry.corp.example:5000/golden"
	auth authn.AuthConfig
}

// find gives the entry for "host/path/of/repository" whose name goes furthest along it by whole segments, in the first
// Docker config that has one; the zero value is anonymous.
func (c credentials) find(repository string) authn.AuthConfig {
	for _, entry := range c {
		if repository == entry.name || strings.HasPrefix(repository, entry.name+"/") {
			return entry.auth
		}
	}
	return authn.AuthConfig{}
}

// secrets lists what nobody else may see, as it is and as it is sent.
func (c credentials) secrets() []string {
	var all []string
	for _, entry := range c {
		basic := base64.StdEncoding.EncodeToString([]byte(entry.auth.Username + ":" + entry.auth.Password))
		all = append(all, basic, strings.TrimRight(basic, "="), entry.auth.Password, entry.auth.Auth, entry.auth.IdentityToken,
			entry.auth.RegistryToken)
	}
	return all
}

func (config Host) readCredentials(readFile func(name string) ([]byte, error)) (credentials, error) {
	var own, shared credentials
	var err error
	if config.Credentials != nil {
		if own, err = parseCredentials(config.Credentials, config.Host); err != nil {
			return nil, fmt.Errorf("credentials: %w", err)
		}
	}
	if config.CredentialsFile == "" {
		return own, nil
	}
	data, err := readFile(config.CredentialsFile)
	if err == nil {
		if shared, err = parseCredentials(data, config.Host); err == nil {
			return append(own, shared...), nil
		}
	}
	return nil, fmt.Errorf("credentials %s: %w", config.CredentialsFile, err)
}

// parseCredentials reads a Docker config. Errors never quote it. Programs that it names for keeping credentials are
// not run, so a config that relies on one is refused rather than read as anonymous.
func parseCredentials(data []byte, host string) (credentials, error) {
	var file struct {
		Auths       map[string]jsontext.Value `json:"auths"`
		CredsStore  string                    `json:"credsStore"`
		CredHelpers map[string]string         `json:"credHelpers"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, errors.New(`it is not a Docker config (a JSON object with "auths")`)
	}
	if file.CredsStore != "" {
		return nil, fmt.Errorf("it keeps credentials in the store %s, which Hallmark does not run; "+
			"put them under \"auths\"", show(file.CredsStore))
	}
	for name, helper := range file.CredHelpers {
		if entry, _, _ := strings.Cut(registryOf(name), "/"); entry == host {
			return nil, fmt.Errorf("it has credentials for %s from the helper %s, which Hallmark does not run; "+
				"put them under \"auths\"", host, show(helper))
		}
	}
	var found credentials
	for name, value := range file.Auths {
		entry := login{name: registryOf(name)}
		if first, _, _ := strings.Cut(entry.name, "/"); first != host {
			continue
		}
		if err := stdjson.Unmarshal(value, &entry.auth); err != nil {
			return nil, fmt.Errorf("the entry %s cannot be read (\"auth\" is user:password in base64)", webhook.Quote(name))
		}
		if entry.auth == (authn.AuthConfig{}) {
			continue
		}
		if err := checkLogin(entry.auth); err != nil {
			return nil, fmt.Errorf("the entry %s %w", webhook.Quote(name), err)
		}
		found = append(found, entry)
	}
	if found == nil {
		return nil, fmt.Errorf("it has no credentials for %s under \"auths\"", host)
	}
	slices.SortFunc(found, func(a, b login) int {
		if len(a.name) != len(b.name) {
			return len(b.name) - len(a.name)
		}
		return strings.Compare(a.name, b.name)
	})
	for i := 1; i < len(found); i++ {
		if found[i].name == found[i-1].name && found[i].auth != found[i-1].auth {
			return nil, fmt.Errorf("it has different credentials for %s under several names", webhook.Quote(found[i].name))
		}
	}
	return found, nil
}

// checkLogin refuses what would fail with every request.
func checkLogin(auth authn.AuthConfig) error {
	switch {
	case auth.RegistryToken != "" && !isHeaderValue(auth.RegistryToken):
		return errors.New(`has a "registrytoken" that cannot be sent in a header`)
	case auth.RegistryToken != "", auth.IdentityToken != "":
		return nil
	case auth.Username == "" || auth.Password == "":
		return errors.New("has no user or no password")
	}
	return nil
}

// registryOf takes off what Docker's names of registries have besides the name: a scheme, the version of the API, and
// Docker Hub's other hosts.
func registryOf(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://")
	name = strings.TrimRight(name, "/")
	for _, version := range []string{"/v1", "/v2"} {
		name = strings.TrimSuffix(name, version)
	}
	host, path, hasPath := strings.Cut(name, "/")
	switch host = strings.ToLower(host); host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		host = webhook.DockerHub
	}
	if !hasPath {
		return host
	}
	return host + "/" + path
}
