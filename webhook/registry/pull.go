package registry

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-containerregistry/pkg/authn"
)

// PullCredentials gives what the Docker configs of a pod have for a registry, for Host.Credentials: one Docker config
// with nothing else in it, and the same bytes for the same credentials. It is nil when they have nothing.
//
// Names are read as the kubelet reads them (k8s.io/kubernetes/pkg/credentialprovider, urlsMatch): a label of the host may
// hold globs. Of several entries for one name the first config's counts, and in one config the one without globs.
// What else a Docker config can name is passed over, as the kubelet does. Errors quote nothing of a config.
func PullCredentials(host string, configs [][]byte) ([]byte, error) {
	found := map[string]authn.AuthConfig{}
	for _, config := range configs {
		if err := addPullCredentials(found, host, config); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	return stdjson.Marshal(map[string]any{"auths": found})
}

func addPullCredentials(found map[string]authn.AuthConfig, host string, config []byte) error {
	var file struct {
		Auths map[string]jsontext.Value `json:"auths"`
	}
	if err := json.Unmarshal(config, &file); err != nil {
		return errors.New(`it is not a Docker config (a JSON object with "auths")`)
	}
	names := make([]string, 0, len(file.Auths))
	for name := range file.Auths {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { // those with globs last
		if globs := strings.Count(a, "*") - strings.Count(b, "*"); globs != 0 {
			return globs
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		entryHost, below, hasPath := strings.Cut(registryOf(name), "/")
		if !hostMatches(entryHost, host) {
			continue
		}
		var auth authn.AuthConfig
		if err := stdjson.Unmarshal(file.Auths[name], &auth); err != nil {
			return fmt.Errorf(`its entry for %s cannot be read ("auth" is user:password in base64)`, host)
		}
		if auth == (authn.AuthConfig{}) {
			continue
		}
		if err := checkLogin(auth); err != nil {
			return fmt.Errorf("its entry for %s %w", host, err)
		}
		under := host
		if hasPath {
			under += "/" + below
		}
		if _, known := found[under]; !known {
			auth.Auth = "" // user and password say the same
			found[under] = auth
		}
	}
	return nil
}

// hostMatches compares label by label. The port has to be the same.
func hostMatches(pattern, host string) bool {
	if pattern == host {
		return true
	}
	pattern, patternPort, _ := strings.Cut(pattern, ":")
	host, port, _ := strings.Cut(host, ":")
	labels, want := strings.Split(pattern, "."), strings.Split(host, ".")
	if patternPort != port || len(labels) != len(want) {
		return false
	}
	for i, label := range labels {
		if ok, err := path.Match(label, want[i]); err != nil || !ok {
			return false
		}
	}
	return true
}
