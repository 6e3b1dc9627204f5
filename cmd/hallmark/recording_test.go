package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRecorderBounds: files are begun anew by the hour and by size, and the oldest go when there are too many bytes.
func TestRecorderBounds(t *testing.T) {
	dir := t.TempDir()
	r := &recorder{dir: dir, bytes: 2000, fileBytes: 500, log: slog.New(slog.DiscardHandler)}
	at := time.Date(2027, 3, 31, 12, 59, 0, 0, time.UTC)
	var written int
	for i := range 40 {
		if err := r.write(&record{Version: recordVersion, Time: at.Add(time.Duration(i) * 2 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		written++
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) < 2 || filepath.Base(files[len(files)-1]) < "2027-03-31T13" {
		t.Fatalf("files %v, %v", files, err)
	}
	var all int64
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		all += info.Size()
	}
	records, err := readRecords(dir)
	if err != nil || all > 2400 || len(records) >= written || len(records) == 0 {
		t.Fatalf("%d bytes, %d of %d records, %v", all, len(records), written, err)
	}
	if last := records[len(records)-1].Time; !last.Equal(at.Add(39 * 2 * time.Second)) {
		t.Errorf("the newest record is of %v", last)
	}
}
