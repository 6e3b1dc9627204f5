package main

import (
	"os"
	"sync"
)

// files reads each file once, so that everything which is made of a file is made of the same content. A file may change
// between two readings, and back.
type files struct {
	mutex sync.Mutex
	known map[string]content
}

type content struct {
	text []byte
	err  error
}

func newFiles() *files { return &files{known: map[string]content{}} }

func (f *files) read(name string) ([]byte, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	got, ok := f.known[name]
	if !ok {
		got.text, got.err = os.ReadFile(name)
		f.known[name] = got
	}
	return got.text, got.err
}
