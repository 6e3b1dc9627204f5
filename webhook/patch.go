package webhook

import (
	"encoding/json"
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
	earlier := map[string]PinnedImage{}
	if json.Unmarshal([]byte(meta.annotations[ImagesAnnotation]), &earlier) == nil {
		for _, image := range v.images {
			was := earlier[image.Where]
			// What was pinned before, or is written again as it was written first, keeps its time.
			if was.Digest != "" && was.Digest == image.Digest() && (image.Ref.Digest != "" || was.Reference == image.Text) {
				pinned[image.Where] = was
			}
		}
	}
	value, err := json.Marshal(pinned)
	if err != nil {
		return // strings and times always marshal
	}
	if !meta.hasAnnotations {
		p.add("/metadata/annotations", "{}")
	}
	p.add("/metadata/annotations/"+escapePointer(ImagesAnnotation), quoteJSON(string(value)))
	p.add("/metadata/annotations/"+escapePointer(PolicyAnnotation), quoteJSON(v.Revision))
}

// A patch is a JSON Patch under construction. Values are JSON.
type patch struct {
	b   []byte
	ops int
}

func (p *patch) test(pointer, value string)    { p.op("test", pointer, quoteJSON(value)) }
func (p *patch) replace(pointer, value string) { p.op("replace", pointer, quoteJSON(value)) }
func (p *patch) add(pointer, value string)     { p.op("add", pointer, value) }

func (p *patch) op(name, pointer, value string) {
	p.b = append(p.b, `,{"op":"`...)
	p.b = append(p.b, name...)
	p.b = append(p.b, `","path":`...)
	p.b = append(p.b, quoteJSON(pointer)...)
	p.b = append(p.b, `,"value":`...)
	p.b = append(p.b, value...)
	p.b = append(p.b, '}')
	p.ops++
}

func (p *patch) bytes() []byte {
	p.b[0] = '['
	return append(p.b, ']')
}

func quoteJSON(s string) string {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil { // invalid UTF-8, which the decoder refuses
		b, _ = jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return string(b)
}

// escapePointer makes a name a token of a JSON pointer (RFC 6901, section 3).
func escapePointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
