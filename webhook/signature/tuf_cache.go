package signature

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
)

// tufCacheFile is one file, so that what is kept belongs together: it is replaced as a whole.
const tufCacheFile = "tuf.json"

// A tufCache is what a repository served, by the path in it. The bytes are held against our root.json when they are
// used, so nothing in it needs to be believed.
type tufCache struct {
	URL   string            `json:"url"`
	Files map[string][]byte `json:"files"` // base64
}

func loadTUF(dir, url string) (map[string][]byte, error) {
	file, err := os.Open(filepath.Join(dir, tufCacheFile))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var cache tufCache
	// base64 takes a third more than what it encodes.
	if err := json.UnmarshalRead(io.LimitReader(file, 2*maxTUFBytes), &cache); err != nil {
		return nil, err
	}
	if cache.URL != url {
		return nil, errors.New("it is of another repository")
	}
	return cache.Files, nil
}

func saveTUF(dir, url string, files map[string][]byte) (err error) {
	text, err := json.Marshal(tufCache{url, files}, json.Deterministic(true))
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(dir, tufCacheFile+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temporary.Name()))
		}
	}()
	_, err = temporary.Write(text)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), filepath.Join(dir, tufCacheFile))
}

// checkWritable makes the directory and a file in it.
func checkWritable(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, tufCacheFile+".*")
	if err != nil {
		return fmt.Errorf("nothing can be kept there: %w", err)
	}
	return errors.Join(file.Close(), os.Remove(file.Name()))
}
