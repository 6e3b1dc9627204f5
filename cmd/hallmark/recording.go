package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-admission/hallmark/webhook"
	"github.com/hallmark-admission/hallmark/webhook/server"
)

// recordVersion is that of the format of a record. A recording of another version is not replayed.
const recordVersion = 1

// A record is one answer of the validating half, with everything that it was decided by, as a line of JSON. It holds no
// value of an env variable but of those that name images.
type record struct {
	Version   int               `json:"version"`
	Time      time.Time         `json:"time"`
	Request   recordedRequest   `json:"request"`
	Workspace webhook.Workspace `json:"workspace"`
	Images    []recordedFacts   `json:"images"`
	Decision  webhook.Outcome   `json:"decision"`
	Findings  []recordedFinding `json:"findings"`
}

type recordedRequest struct {
	UID         string              `json:"uid"`
	Operation   webhook.Operation   `json:"operation"`
	Group       string              `json:"group"`
	Kind        string              `json:"kind"`
	SubResource string              `json:"subResource"`
	Namespace   string              `json:"namespace"`
	Name        string              `json:"name"`
	User        webhook.RequestUser `json:"user"`
	DryRun      bool                `json:"dryRun"`
	Object      json.RawMessage     `json:"object"`
	OldObject   json.RawMessage     `json:"oldObject,omitempty"`
}

// recordedFacts are what was found out about one image.
type recordedFacts struct {
	Ref        string              `json:"ref"`
	Digest     string              `json:"digest"`
	TagDigest  string              `json:"tagDigest"`
	Content    *webhook.Content    `json:"content"`
	Signatures *webhook.Signatures `json:"signatures"`
	Attested   *recordedStatements `json:"attested"`
	Derived    *webhook.Derived    `json:"derived"`
	Unknown    []recordedUnknown   `json:"unknown"`
}

type recordedStatements struct {
	Valid    []recordedStatement `json:"valid"`
	Found    int                 `json:"found"`
	Rejected []string            `json:"rejected"`
}

type recordedStatement struct {
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
	Signer        string          `json:"signer"`
	Identity      string          `json:"identity"`
	Issuer        string          `json:"issuer"`
	At            time.Time       `json:"at"`
}

type recordedUnknown struct {
	Fact   string `json:"fact"`
	Reason string `json:"reason"`
	Retry  bool   `json:"retry"`
}

type recordedFinding struct {
	Rule    string       `json:"rule"`
	Mode    webhook.Mode `json:"mode"`
	Where   string       `json:"where"`
	Message string       `json:"message"`
}

// newRecord makes a record of a decision; keep are the env variables whose values are images.
func newRecord(request *webhook.Request, d webhook.Decision, at time.Time, keep []string) (*record, error) {
	object, err := withoutEnv(request.Object, keep)
	old, oldErr := withoutEnv(request.OldObject, keep)
	if err := errors.Join(err, oldErr); err != nil {
		return nil, err
	}
	r := &record{
		Version: recordVersion, Time: at.UTC(), Workspace: d.Workspace, Decision: d.Outcome,
		Request: recordedRequest{
			UID: request.UID, Operation: request.Operation, Group: request.Group, Kind: request.Kind,
			SubResource: request.SubResource, Namespace: request.Namespace, Name: d.Name, User: request.User,
			DryRun: request.DryRun, Object: object, OldObject: old,
		},
	}
	for _, image := range d.Images {
		r.Images = append(r.Images, factsOf(image))
	}
	for _, f := range d.Findings {
		r.Findings = append(r.Findings, recordedFinding{f.Rule, f.Mode, whereOf(f), f.Message})
	}
	return r, nil
}

func factsOf(image *webhook.Image) recordedFacts {
	f := recordedFacts{
		Ref: image.Ref.String(), Digest: image.Digest(), TagDigest: image.TagDigest, Content: image.Content,
		Signatures: image.Signatures, Derived: image.Derived,
	}
	if a := image.Attested; a != nil {
		f.Attested = &recordedStatements{Found: a.Found, Rejected: a.Rejected}
		for _, s := range a.Valid {
			f.Attested.Valid = append(f.Attested.Valid, recordedStatement{
				s.PredicateType, s.Predicate.JSON, s.Signer, s.Identity, s.Issuer, s.At,
			})
		}
	}
	for _, u := range image.Unknown {
		f.Unknown = append(f.Unknown, recordedUnknown{u.Fact.String(), u.Reason, u.Retry})
	}
	return f
}

// withoutEnv takes the values of env variables out of an object, and what repeats them: the annotation of kubectl apply,
// and managedFields, which are of no use.
func withoutEnv(object []byte, keep []string) (json.RawMessage, error) {
	if len(object) == 0 {
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	var document any
	if err := decoder.Decode(&document); err != nil {
		return nil, fmt.Errorf("record the object: %w", err)
	}
	redact(document, keep)
	return json.Marshal(document)
}

func redact(value any, keep []string) {
	switch v := value.(type) {
	case map[string]any:
		delete(v, "managedFields")
		if annotations, ok := v["annotations"].(map[string]any); ok {
			delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
		}
		if variables, ok := v["env"].([]any); ok {
			redactEnv(variables, keep)
		}
		for _, member := range v {
			redact(member, keep)
		}
	case []any:
		for _, element := range v {
			redact(element, keep)
		}
	}
}

// redactEnv keeps the values of variables that name images, if they are references: a secret may have got there.
func redactEnv(variables []any, keep []string) {
	for _, entry := range variables {
		variable, ok := entry.(map[string]any)
		if !ok {
			continue
		}
		name, _ := variable["name"].(string)
		text, _ := variable["value"].(string)
		if _, err := webhook.ParseReference(text); slices.Contains(keep, name) && err == nil {
			continue
		}
		if _, there := variable["value"]; there {
			variable["value"] = removed(slices.Contains(keep, name))
		}
	}
}

// Bounds of a recording.
const (
	recordQueue     = 1000     // decisions that wait to be written; more are dropped, and counted in the log
	recordBytes     = 1 << 30  // of all files together; the oldest is removed
	recordFileBytes = 64 << 20 // of one file, about
)

// A recorder writes records into a directory, a file or more an hour. What it cannot write in time is dropped: nobody waits.
type recorder struct {
	dir       string
	bytes     int64 // of all files together
	fileBytes int64 // of one, about
	log       *slog.Logger
	now       func() time.Time
	queue     chan *record
	stop      chan struct{}
	done      chan struct{}

	hour   string // of file
	number int    // of the next file of the hour
	file   string // that is written to; "" before the first
	size   int64  // of it, in bytes
}

func newRecorder(dir string, log *slog.Logger) (*recorder, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	r := &recorder{
		dir: dir, bytes: recordBytes, fileBytes: recordFileBytes, log: log, now: time.Now,
		queue: make(chan *record, recordQueue), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go r.run()
	return r, nil
}

// close writes what waits, and ends.
func (r *recorder) close() {
	close(r.stop)
	<-r.done
}

func (r *recorder) run() {
	defer close(r.done)
	write := func(record *record) {
		if err := r.write(record); err != nil {
			r.log.Error("a decision could not be recorded", "error", err)
		}
	}
	for {
		select {
		case record := <-r.queue:
			write(record)
		case <-r.stop:
			for {
				select {
				case record := <-r.queue:
					write(record)
				default:
					return
				}
			}
		}
	}
}

func (r *recorder) write(record *record) error {
	line, err := json.Marshal(record)
	if err != nil {
		return err
	}
	if hour := record.Time.Format("2006-01-02T15"); hour != r.hour || r.size >= r.fileBytes {
		if err := r.next(hour); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(r.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	r.size += int64(len(line)) + 1
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Close())
}

// next begins a file, whose name sorts behind those that there are.
func (r *recorder) next(hour string) error {
	if err := r.makeRoom(); err != nil {
		return err
	}
	if hour != r.hour {
		r.number = 0
	}
	for ; ; r.number++ {
		name := filepath.Join(r.dir, fmt.Sprintf("%s-%03d.jsonl", hour, r.number))
		if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
			r.hour, r.file, r.size = hour, name, 0
			r.number++ // the name may be free again before the hour is over
			return nil
		} else if err != nil {
			return err
		}
	}
}

// makeRoom removes the oldest files while those that there are leave no room for another one.
func (r *recorder) makeRoom() error {
	files, err := filepath.Glob(filepath.Join(r.dir, "*.jsonl"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	sizes := make([]int64, len(files))
	var all int64
	for i, file := range files {
		if info, err := os.Stat(file); err == nil {
			sizes[i] = info.Size()
			all += sizes[i]
		}
	}
	for i := 0; i < len(files) && all+r.fileBytes > r.bytes; i++ {
		if err := os.Remove(files[i]); err != nil {
			return err
		}
		all -= sizes[i]
	}
	return nil
}

// recording has what the validating half decides recorded.
type recording struct {
	server.Reviewer
	recorder *recorder
	env      []string // variables that name images
}

// recorded is current with what it decides recorded.
func (l *loader) recorded(r *recorder) func() server.Reviewer {
	return func() server.Reviewer {
		g := l.generation.Load()
		if g == nil {
			return nil
		}
		return &recording{g.reviewer, r, g.config.Workspaces.ImageEnv}
	}
}

// Validate implements server.Reviewer.
func (r *recording) Validate(ctx context.Context, request *webhook.Request) webhook.Decision {
	d := r.Reviewer.Validate(ctx, request)
	if len(d.Images) == 0 {
		return d // nothing was judged
	}
	made, err := newRecord(request, d, r.recorder.now(), r.env)
	if err != nil {
		r.recorder.log.Error("a decision could not be recorded", "error", err)
		return d
	}
	select {
	case r.recorder.queue <- made:
	default:
		r.recorder.log.Warn("a decision was not recorded, since too many wait to be written", "id", d.ID)
	}
	return d
}

// readRecords reads the records of a file, or of all files of a directory, in the order of their time.
func readRecords(path string) ([]*record, error) {
	files := []string{path}
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.jsonl")); err != nil {
			return nil, err
		}
	}
	slices.Sort(files)
	var all []*record
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			var r record
			switch err := json.Unmarshal([]byte(line), &r); {
			case err != nil && !strings.HasSuffix(line, "\n"):
				continue // the last line, which was being written
			case err != nil:
				return nil, fmt.Errorf("%s:%d: this is no record: %w", file, number, err)
			case r.Version != recordVersion:
				return nil, hinted{fmt.Errorf("%s:%d: a record of version %d, not %d", file, number, r.Version, recordVersion),
					"replay it with the version of hallmark that made it"}
			}
			all = append(all, &r)
		}
	}
	slices.SortStableFunc(all, func(a, b *record) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// removed is what stands for a value: nothing, or where an image would have to be, what is no image either.
func removed(image bool) string {
	if image {
		return "<removed>"
	}
	return ""
}
