package webhook

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// The annotations that Hallmark writes on a pod. They are for people: nothing ever trusts them.
const (
	AnnotationPrefix = "hallmark.dev/"
	ImagesAnnotation = AnnotationPrefix + "images" // JSON: where → PinnedImage
	PolicyAnnotation = AnnotationPrefix + "policy" // the revision
)

// PinMode says what the mutating half does to pods.
type PinMode string

// The pin modes.
const (
	PinRewrite  PinMode = "rewrite"  // images are replaced by repo:tag@digest
	PinAnnotate PinMode = "annotate" // only the annotation says what the tags named
	PinOff      PinMode = "off"
)

// PinnedImage is an entry of ImagesAnnotation.
type PinnedImage struct {
	Reference string    `json:"reference"` // as it was written
	Digest    string    `json:"digest"`
	Class     string    `json:"class"` // of the tag
	Time      time.Time `json:"time"`  // when the tag named the digest
}

// patched answers the mutating half: a JSON Patch for what could be pinned, or a plain yes.
func (v *review) patched() Decision {
	d := v.allow()
	d.Images = v.changed
	p := patch{}
	pinned := map[string]PinnedImage{}
	now := v.Now().UTC().Truncate(time.Second)
	for _, image := range v.changed {
		if image.Error != "" {
			continue
		}
		runs := image.Ref.WithDigest(image.Digest())
		if v.Pin == PinRewrite && (runs != image.Ref || image.rewritten()) {
			p.test(image.Pointer, image.prefix+image.Text)
			p.replace(image.Pointer, image.prefix+runs.String())
		}
		if runs != image.Ref || image.rewritten() && runs.Digest != "" {
			pinned[image.Where] = PinnedImage{
				Reference: image.Text, Digest: runs.Digest, Class: image.Entry.TagClass, Time: now,
			}
		}
		v.setUser(&p, image)
	}
	if len(pinned) > 0 && v.request.SubResource == "" {
		v.annotate(&p, pinned)
	}
	if p.ops > 0 {
		d.Outcome, d.Patch = Patched, p.bytes()
	}
	return d
}

// rewritten says that what will run is another name than what was written.
func (i *Image) rewritten() bool {
	written, err := ParseReference(i.Text)
	return err == nil && written != i.Ref
}

// setUser gives a container the uid that the catalogue has for its image, where neither container nor pod says one.
func (v *review) setUser(p *patch, image *Image) {
	golden := image.Entry.Golden
	if !v.SetUser || golden == nil || golden.UID == nil || *golden.UID == 0 || image.User.Known || !image.User.Applies ||
		image.source.inner || image.source.windows || image.denied {
		return
	}
	context := strings.TrimSuffix(image.Pointer, "/image") + "/securityContext"
	uid := strconv.FormatInt(*golden.UID, 10)
	if image.source.security.present {
		p.add(context+"/runAsUser", uid)
	} else {
		p.add(context, `{"runAsUser":`+uid+`}`)
	}
}

// annotate adds to what earlier calls wrote, as far as it still describes the pod: another webhook may have added a
// container since, and Hallmark is asked again.
func (v *review) annotate(p *patch, pinned map[string]PinnedImage) {
	meta := v.object.meta
	if written := meta.annotations[ImagesAnnotation]; written != "" {
		v.keepTimes(pinned, written)
	}
	if !meta.hasAnnotations {
		p.add("/metadata/annotations", "{}")
	}
	p.addText("/metadata/annotations/"+escapePointer(ImagesAnnotation), string(appendPinned(nil, pinned)))
	p.addText("/metadata/annotations/"+escapePointer(PolicyAnnotation), v.Revision)
}

// keepTimes gives what was pinned before, or is written again as it was written first, the time that it had then.
func (v *review) keepTimes(pinned map[string]PinnedImage, written string) {
	earlier := map[string]PinnedImage{}
	if json.Unmarshal([]byte(written), &earlier) != nil {
		return
	}
	for _, image := range v.images {
		was := earlier[image.Where]
		if was.Digest != "" && was.Digest == image.Digest() && (image.Ref.Digest != "" || was.Reference == image.Text) {
			pinned[image.Where] = was
		}
	}
}

// appendPinned writes ImagesAnnotation, sorted by place.
func appendPinned(b []byte, pinned map[string]PinnedImage) []byte {
	b = append(b, '{')
	for i, where := range slices.Sorted(maps.Keys(pinned)) {
		if i > 0 {
			b = append(b, ',')
		}
		image := pinned[where]
		b = appendQuoted(b, where)
		b = appendQuoted(append(b, `:{"reference":`...), image.Reference)
		b = appendQuoted(append(b, `,"digest":`...), image.Digest)
		b = appendQuoted(append(b, `,"class":`...), image.Class)
		b = image.Time.AppendFormat(append(b, `,"time":"`...), time.RFC3339)
		b = append(b, `"}`...)
	}
	return append(b, '}')
}

// A patch is a JSON Patch under construction.
type patch struct {
	b   []byte
	ops int
}

func (p *patch) test(pointer, value string)    { p.text("test", pointer, value) }
func (p *patch) replace(pointer, value string) { p.text("replace", pointer, value) }
func (p *patch) addText(pointer, value string) { p.text("add", pointer, value) }

func (p *patch) add(pointer, json string) {
	p.begin("add", pointer)
	p.b = append(append(p.b, json...), '}')
}

func (p *patch) text(name, pointer, value string) {
	p.begin(name, pointer)
	p.b = append(appendQuoted(p.b, value), '}')
}

// begin begins an operation; its value and its end are still to come.
func (p *patch) begin(name, pointer string) {
	if p.b == nil {
		p.b = make([]byte, 0, 1<<10)
	}
	p.b = append(append(p.b, `,{"op":"`...), name...)
	p.b = appendQuoted(append(p.b, `","path":`...), pointer)
	p.b = append(p.b, `,"value":`...)
	p.ops++
}

func (p *patch) bytes() []byte {
	p.b[0] = '['
	return append(p.b, ']')
}

func appendQuoted(b []byte, s string) []byte {
	quoted, err := jsontext.AppendQuote(b, s)
	if err != nil { // invalid UTF-8, which the decoder refuses
		quoted, _ = jsontext.AppendQuote(b, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return quoted
}

// escapePointer makes a name a token of a JSON pointer (RFC 6901, section 3).
func escapePointer(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}
